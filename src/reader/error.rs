//! What is wrong with a question, and where.

use std::borrow::Cow;

/// A condition, a field or a time that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct FilterError {
    /// The byte of the text at which it stops making sense; the text's length if it ends too early.
    pub offset: usize,
    /// What is wrong there, and what is expected.
    pub reason: Cow<'static, str>,
}

impl FilterError {
    pub(super) fn at(offset: usize, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { offset, reason: reason.into() }
    }

    /// The same, in a text of which this one's is a part that begins at `start`.
    pub(super) fn moved(self, start: usize) -> Self {
        Self { offset: self.offset + start, ..self }
    }

    /// Shows the text, and below it a caret under the place and the reason:
    ///
    /// ```text
    /// meta.rows => 1e3
    ///           ^ no such operator: write `>=`; a value that begins so stands behind a space
    /// ```
    ///
    /// Control, bidirectional and invisible characters are shown as `·`, each other character as itself.
    #[must_use]
    pub fn show(&self, text: &str) -> String {
        let shown: String = text.chars().map(|char| if is_hidden(char) { '·' } else { char }).collect();
        let before = text.char_indices().take_while(|(at, _)| *at < self.offset).count();
        format!("{shown}\n{:before$}^ {}", "", self.reason)
    }
}

/// Whether a terminal may obey a character, or show nothing for it: control characters, line and paragraph separators, what
/// turns the direction of writing (Unicode UAX 9, §2), and what has no width of its own and joins nothing.
pub(super) fn is_hidden(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_place() {
        let text = "é\u{202e}x = y";
        assert_eq!(FilterError::at(5, "here").show(text), "é·x = y\n  ^ here");
        assert_eq!(FilterError::at(text.len(), "too early").show(text), "é·x = y\n       ^ too early");
        assert_eq!(FilterError::at(3, "here").moved(2).offset, 5);
    }

    #[test]
    fn what_a_terminal_obeys_or_does_not_show_is_hidden_and_nothing_that_languages_need() {
        let hidden = "\0\u{1b}\u{7f}\u{9b}\u{61c}\u{200b}\u{200e}\u{200f}\u{2028}\u{202a}\u{202e}\u{2060}\u{2066}\u{2069}\u{feff}";
        assert_eq!(hidden.chars().find(|char| !is_hidden(*char)), None);
        // Joiners shape Persian, Hindi and emoji; marks stand above letters.
        assert_eq!(" ~é\u{301}\u{200c}\u{200d}\u{fe0f}日🚀".chars().find(|char| is_hidden(*char)), None);
    }
}
