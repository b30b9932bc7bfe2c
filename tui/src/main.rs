//! `idunno`: the console without arguments, the command line with them.

use std::process::ExitCode;

fn main() -> ExitCode {
    idunno_console::main(std::env::args_os().collect())
}
