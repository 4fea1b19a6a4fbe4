//! The program; what it does is in the library beside it, so that tests can knock at its door.

use std::process::ExitCode;

fn main() -> ExitCode {
    warren_ingest::main()
}
