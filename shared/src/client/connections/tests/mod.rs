mod dials;
mod manager;
mod room;
mod table;
