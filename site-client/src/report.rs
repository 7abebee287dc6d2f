//! What the client says while it works: lines for people on stderr, or JSON
//! lines for machines on stdout, and progress bars on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sealfold_protocol::text::{shown, shown_lines};
use serde_json::{Value, json};
use std::io::IsTerminal;

/// How to speak.
#[derive(Debug, Clone, Copy)]
pub struct Voice {
    /// JSON on stdout.
    pub json: bool,
    /// Nothing of what happens.
    pub quiet: bool,
}

impl Voice {
    /// Something happened.
    pub fn event(self, event: &str, fields: Value) {
        if self.quiet {
            return;
        }
        if self.json {
            let mut line = json!({ "event": event, "time": jiff::Timestamp::now() });
            if let (Some(line), Value::Object(fields)) = (line.as_object_mut(), fields) {
                line.extend(fields);
            }
            println!("{line}");
        } else {
            let text: Vec<_> = fields
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, value)| match value {
                    Value::String(text) => format!("{name}: {}", shown(text)),
                    other => format!("{name}: {}", shown(&other.to_string())),
                })
                .collect();
            eprintln!("{event} {}", text.join(", "));
        }
    }

    /// A result: JSON for machines, a text for people. Its lines are the
    /// program's own: foreign text in it is [`shown`] where it is put in.
    pub fn result(self, machine: &Value, people: &str) {
        if self.json {
            println!("{machine}");
        } else {
            println!("{}", shown_lines(people));
        }
    }

    /// A bar over so many bytes, seen on a terminal only.
    #[must_use]
    pub fn bar(self, what: &str, bytes: u64) -> ProgressBar {
        let target = if self.json || self.quiet || !std::io::stderr().is_terminal() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(bytes), target);
        let template = "{msg} {bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.with_message(what.to_owned())
    }
}
