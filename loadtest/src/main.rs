//! The load generator as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate_loadtest::main()
}
