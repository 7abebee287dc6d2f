//! Foreign text, shown to a person.
//!
//! What another party wrote may hold characters that are not seen but act: a
//! line feed begins a line that looks like the program's own, an escape sequence
//! hides what follows or moves the cursor, a mark of direction (Unicode UAX #9)
//! shows words in another order than they are signed in. A manifest whose texts
//! hold one is refused; wherever else foreign text is printed, [`shown`] makes
//! them visible. JSON needs neither: it has escapes of its own.

/// Whether a character acts on what is shown, or is not seen at all: controls,
/// ends of lines and paragraphs, marks and overrides of direction, invisible
/// separators and tags. Joiners (U+200C, U+200D) are not among them: languages
/// are written with them.
#[must_use]
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// A text on one line, in which every [hidden](is_hidden) character stands as
/// its escape, `\n` or `\u{1b}`.
#[must_use]
pub fn shown(text: &str) -> String {
    escaped(text, |_| false)
}

/// As [`shown`], of a text that may have several lines of its own.
#[must_use]
pub fn shown_lines(text: &str) -> String {
    escaped(text, |character| character == '\n')
}

/// A number of things: `1 round`, `2 rounds`.
#[must_use]
pub fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// A figure with so many decimals, or in scientific notation where they would
/// not show what it is: too small, or too large to be read.
#[must_use]
pub fn figure(value: f64, decimals: usize) -> String {
    let magnitude = value.abs();
    let least = 0.1f64.powi(i32::try_from(decimals).unwrap_or(i32::MAX));
    if magnitude > 0.0 && magnitude.is_finite() && !(least..1e9).contains(&magnitude) {
        return format!("{value:.2e}");
    }
    format!("{value:.decimals$}")
}

fn escaped(text: &str, is_allowed: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) && !is_allowed(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!(
            [counted(0, "bin"), counted(1, "bin"), counted(2, "bin")].join(", "),
            "0 bins, 1 bin, 2 bins"
        );
    }

    #[test]
    fn figures_tell_what_they_are_whatever_their_size() {
        let shown = [0.0, 2.5, 0.0004, -1e-12, 1e300, f64::INFINITY].map(|value| figure(value, 3));
        assert_eq!(shown.join(" "), "0.000 2.500 4.00e-4 -1.00e-12 1.00e300 inf");
    }

    #[test]
    fn what_acts_is_seen_and_what_is_read_stays() {
        let plain = "Herzinsuffizienz, «älter als 65» \u{2014} 心不全, می\u{200c}خواهم 👩\u{200d}⚕";
        assert_eq!((shown(plain), shown_lines(plain)), (plain.to_owned(), plain.to_owned()));
        assert_eq!(shown("a\nb\r\tc"), "a\\nb\\r\\tc");
        assert_eq!(shown_lines("a\nb\rc"), "a\nb\\rc");
        assert_eq!(shown("\u{1b}[8m\u{7f}\u{9b}2J"), "\\u{1b}[8m\\u{7f}\\u{9b}2J");
        for character in "\u{202a}\u{202e}\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}\u{2028}\u{2029}\u{feff}\u{e0041}".chars() {
            let escape = format!("a\\u{{{:x}}}b", u32::from(character));
            assert_eq!(shown(&format!("a{character}b")), escape);
            assert_eq!(shown_lines(&format!("a{character}b")), escape);
        }
    }

    /// Nothing is hidden in what is shown, whatever it was.
    #[test]
    fn every_character_is_shown() {
        let all: String = (char::MIN..=char::MAX).collect();
        assert!(!shown(&all).contains(is_hidden));
        assert!(!shown_lines(&all).contains(|c| c != '\n' && is_hidden(c)));
        assert!(all.contains(is_hidden));
    }
}
