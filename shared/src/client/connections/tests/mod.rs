mod manager;
mod table;
