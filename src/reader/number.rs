//! Numbers by their exact value, however they are spelt.

use std::cmp::Ordering;

use crate::record::json::{Kind, Scanner};

/// A JSON number, compared by its decimal expansion: `1.0`, `1` and `10e-1` are equal, and no digit is lost.
///
/// Exponents beyond ±10³⁰ count as ±10³⁰.
#[derive(Debug, Clone, Copy)]
pub struct Decimal<'a> {
    is_negative: bool,
    /// From the first digit that is not 0 to the last such, perhaps with a point within; empty for zero.
    digits: &'a str,
    /// The number is 0.`digits` times ten to this power; 0 for zero.
    magnitude: i128,
}

impl<'a> Decimal<'a> {
    /// Reads a text that is a JSON number and nothing else.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut scanner = Scanner::over(text);
        let is_number = matches!(scanner.value(), Ok(value) if matches!(value.kind, Kind::Number));
        (is_number && scanner.rest().is_empty()).then(|| Self::of(text))
    }

    /// Takes a JSON number apart.
    fn of(text: &'a str) -> Self {
        let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
        let (mantissa, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let whole = mantissa.find('.').unwrap_or(mantissa.len());
        let Some(first) = mantissa.find(|char| matches!(char, '1'..='9')) else {
            return Self { is_negative: false, digits: "", magnitude: 0 };
        };
        // Behind the point, the point itself is no digit.
        let leading_zeros = if first > whole { first - 1 } else { first };
        let count = |digits: usize| i128::try_from(digits).unwrap_or(i128::MAX / 4);
        Self {
            is_negative,
            digits: mantissa[first..].trim_end_matches(['0', '.']),
            magnitude: exponent(power) + count(whole) - count(leading_zeros),
        }
    }

    /// The one spelling of this value: without an exponent for up to 40 digits before the point, or zeros behind it; without
    /// zeros that say nothing. `1e1` is `10`, `-0.50` is `-0.5`, `1e41` is `1e41`.
    #[must_use]
    pub fn spelling(&self) -> String {
        // Made in one piece, as it may be as long as a line.
        let count = self.digits.len() - usize::from(self.digits.contains('.'));
        let mut text = String::with_capacity(count + PLAIN_DIGITS_MAX + 4);
        let point_at = |at: usize, text: &mut String| {
            for (nth, digit) in self.digits.chars().filter(|char| *char != '.').enumerate() {
                if nth == at {
                    text.push('.');
                }
                text.push(digit);
            }
        };
        let zeros = |count: usize, text: &mut String| text.extend(std::iter::repeat_n('0', count));
        if count == 0 {
            return "0".to_owned();
        }
        if self.is_negative {
            text.push('-');
        }
        match usize::try_from(self.magnitude.unsigned_abs()).unwrap_or(usize::MAX) {
            some @ 0..=PLAIN_DIGITS_MAX if self.magnitude <= 0 => {
                text.push_str("0.");
                zeros(some, &mut text);
                point_at(count, &mut text);
            }
            whole @ 0..=PLAIN_DIGITS_MAX => {
                point_at(whole, &mut text);
                zeros(whole.saturating_sub(count), &mut text);
            }
            _ => {
                point_at(1, &mut text);
                text.push('e');
                text.push_str(&(self.magnitude - 1).to_string());
            }
        }
        text
    }

    /// -1, 0 or 1.
    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.is_negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }
}

/// Digits before the point, and zeros behind it, that are written out.
const PLAIN_DIGITS_MAX: usize = 40;

fn exponent(text: &str) -> i128 {
    const MAX: i128 = 10_i128.pow(30);
    let (is_negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let digits = digits.trim_start_matches(['+', '0']);
    let value = if digits.is_empty() { 0 } else { digits.parse().unwrap_or(MAX).min(MAX) };
    if is_negative { -value } else { value }
}

impl Ord for Decimal<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let digits = |number: &Self| number.digits.bytes().filter(|byte| *byte != b'.');
        self.sign().cmp(&other.sign()).then_with(|| {
            // Without zeros at the end, the longer of two that begin alike is the greater.
            let sizes = self.magnitude.cmp(&other.magnitude).then_with(|| Iterator::cmp(digits(self), digits(other)));
            if self.is_negative { sizes.reverse() } else { sizes }
        })
    }
}

// As `Ord` has it: different bytes may be one value.
impl PartialOrd for Decimal<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Decimal<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Decimal<'_> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Decimal<'_> {
        Decimal::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn spellings_of_one_value_are_equal() {
        for group in [
            &["1", "1.0", "10e-1", "0.1E+1", "1e0", "1e-0", "0.0010e003"][..],
            &["0", "-0", "0.000", "0e999999999999999999999999999999999999999999"],
            &["-120", "-1.2e2", "-12e1", "-120.000"],
            &["123456789012345678901234567890", "1.2345678901234567890123456789e29"],
        ] {
            for (a, b) in group.iter().flat_map(|a| group.iter().map(move |b| (a, b))) {
                assert_eq!(number(a), number(b));
            }
        }
    }

    #[test]
    fn a_value_has_one_spelling() {
        let (forty, ten_to_39) = ("1234567890".repeat(4), format!("1{}", "0".repeat(39)));
        for (text, spelling) in [
            ("-0.0e7", "0"),
            ("1", "1"),
            ("-1.50", "-1.5"),
            ("1e1", "10"),
            ("12.5e-1", "1.25"),
            ("0.0010e003", "1"),
            ("100e-2", "1"),
            ("5e-1", "0.5"),
            ("1e39", &ten_to_39),
            ("1e40", "1e40"),
            ("-1.20e41", "-1.2e41"),
            (&forty, &forty),
            ("1e-41", &format!("0.{}1", "0".repeat(40))),
            ("1.5e-42", "1.5e-42"),
            ("1e999999999999999999999999999999999999999999", "1e1000000000000000000000000000000"),
        ] {
            assert_eq!(number(text).spelling(), spelling, "{text}");
        }
    }

    #[test]
    fn values_are_in_their_order() {
        let ascending = [
            "-1e400",
            "-9007199254740993",
            "-9007199254740992",
            "-1.01",
            "-1",
            "-1e-400",
            "0",
            "1e-400",
            "0.1",
            "0.1000000000000000000001",
            "0.9",
            "1",
            "1.01",
            "9",
            "10",
            "9007199254740992",
            "9007199254740993",
            "1e400",
            "1e1000000000000000000000",
            "1e1000000000000000000001",
        ];
        for pair in ascending.windows(2) {
            assert!(number(pair[0]) < number(pair[1]), "{pair:?}");
            assert!(number(pair[1]) > number(pair[0]), "{pair:?}");
        }
    }

    #[test]
    fn what_is_no_json_number_is_none() {
        for text in ["", " 1", "1 ", "+1", "01", "1.", ".5", "1e", "0x1", "NaN", "\"1\"", "true", "1,5"] {
            assert!(Decimal::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn spellings_tell_values_apart_and_are_their_own(a in "-?[1-9][0-9]{0,3}(\\.[0-9]{1,3})?(e-?[0-9]{1,2})?", zeros in 0..60_usize) {
            let spelling = number(&a).spelling();
            prop_assert_eq!(number(&a), number(&spelling));
            prop_assert_eq!(&number(&spelling).spelling(), &spelling);
            // The same value with zeros that say nothing.
            let (mantissa, power) = a.split_once('e').unwrap_or((&a, "0"));
            let point = if mantissa.contains('.') { "" } else { "." };
            let other = format!("{mantissa}{point}{:0<width$}e{power}", "", width = zeros + 1);
            prop_assert_eq!(number(&other).spelling(), spelling);
        }

        #[test]
        fn small_numbers_compare_as_integers_do(a in -2000..2000i64, b in -2000..2000i64, powers: [u8; 2]) {
            // Both in thousandths, spelt with points and powers of ten.
            let spell = |value: i64, power: u8| {
                let power = i32::from(power % 7);
                let shifted = i128::from(value) * 10_i128.pow(u32::try_from(power).unwrap());
                format!("{}{}.{:03}e-{power}", if shifted < 0 { "-" } else { "" }, shifted.abs() / 1000, shifted.abs() % 1000)
            };
            let (a_text, b_text) = (spell(a, powers[0]), spell(b, powers[1]));
            prop_assert_eq!(number(&a_text).cmp(&number(&b_text)), a.cmp(&b), "{} {}", a_text, b_text);
        }
    }
}
