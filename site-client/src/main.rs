//! `sealfold`: parses arguments and wires the parts.

mod cli;

use clap::Parser;
use std::process::ExitCode;

/// What does not parse: help and errors as they are, errors for machines if the
/// command line asks for JSON.
fn unparsed(error: &clap::Error) -> ExitCode {
    let code = u8::try_from(error.exit_code()).unwrap_or(2);
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let text = error.render().to_string();
        // The first paragraph says what is wrong, the others how to call it.
        let text = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
        println!("{}", serde_json::json!({ "error": text, "refusal": null, "exit_code": code }));
    } else {
        let _ = error.print();
    }
    ExitCode::from(code)
}

fn main() -> ExitCode {
    // What is piped into `head` ends as other commands do.
    sigpipe::reset();
    let arguments = match cli::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return unparsed(&error),
    };
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
