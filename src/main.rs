//! The binary; see [`audit_log`].

use std::process::ExitCode;

fn main() -> ExitCode {
    audit_log::cli::main()
}
