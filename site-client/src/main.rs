//! `sealfold`: parses arguments and wires the parts.

mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // What is piped into `head` ends as other commands do.
    sigpipe::reset();
    let arguments = cli::Arguments::parse();
    let json = arguments.json;
    match cli::run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if json {
                println!("{}", error.to_json());
            } else {
                eprintln!("error: {}", sealfold_protocol::text::shown_lines(&error.explain()));
            }
            ExitCode::from(error.exit_code())
        }
    }
}
