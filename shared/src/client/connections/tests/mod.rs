mod dials;
mod manager;
mod table;
