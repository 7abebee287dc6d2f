//! What does not hold, apart from what could not be done and may be on another try:
//! the exit code says which, as that of `sealfold` does.

use std::fmt::{Display, Formatter, Result};

/// The exit code of a refusal.
const REFUSED: u8 = 1;
/// The exit code of what could not be done.
const FAILED: u8 = 2;

/// A refusal, in words: what was given or came out is not what it has to be, or a
/// program of sealfold refused.
#[derive(Debug)]
pub struct Refused(pub String);

impl Display for Refused {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// A refusal as an error.
#[must_use]
pub fn refused(message: String) -> anyhow::Error {
    Refused(message).into()
}

/// An error about a program that ended with this exit code: a refusal if it was one.
#[must_use]
pub fn of_program(code: Option<i32>, message: String) -> anyhow::Error {
    if code == Some(REFUSED.into()) { refused(message) } else { anyhow::Error::msg(message) }
}

/// The exit code for an error: 1 if something was refused, 2 if it could not be done.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<Refused>() { REFUSED } else { FAILED }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_what_could_not_be_done() {
        let refused = of_program(Some(1), "no".to_owned());
        assert_eq!((exit_code(&refused), refused.to_string()), (1, "no".to_owned()));
        assert_eq!(exit_code(&refused.context("round 3")), 1);
        for code in [Some(2), Some(101), None] {
            assert_eq!(exit_code(&of_program(code, "ended".to_owned())), 2);
        }
    }
}
