//! Records as models, spelt in every way that JSON allows, for tests.

use std::fmt::Write as _;

use proptest::prelude::*;

use crate::record::{LINE_BYTES_MAX, Timestamp};

/// What a line says, however it is spelt.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) ts: Timestamp,
    pub(super) job_id: String,
    pub(super) workspace_id: String,
    pub(super) event: String,
    pub(super) message: String,
    pub(super) meta: Json,
}

/// A value with its order and repetitions.
#[derive(Debug, Clone)]
pub(super) enum Json {
    Null,
    Boolean(bool),
    /// Digits without leading zeros, a sign, and the power of ten that they are multiplied with.
    Number(bool, String, i32),
    /// Digits that are spelt in one way only, as a `ts`'s.
    Integer(i64),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Strings over a small alphabet, so that different ones share parts and differ in case.
pub(super) fn any_string() -> impl Strategy<Value = String> + Clone {
    prop_oneof![
        4 => "[abAB0 ]{0,4}",
        2 => prop::sample::select(&["5", "5.0", "true", "null", "a", "A b", "export", "EXPORT"][..]).prop_map(str::to_owned),
        1 => "[a\"\\\\\u{0}-\u{1f}/é\u{7f}\u{85}\u{2028}\u{202e}\u{1F600}]{0,4}",
    ]
}

fn any_number() -> impl Strategy<Value = Json> {
    let digits = prop_oneof![4 => "[0-9]|[1-9][0-9]", 1 => "[1-9][0-9]{15,40}"];
    (any::<bool>(), digits, prop_oneof![4 => -2..3i32, 1 => -400..400i32])
        .prop_map(|(minus, digits, power)| Json::Number(minus, digits, power))
}

pub(super) fn any_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Boolean),
        any_number(),
        any_string().prop_map(Json::String),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = prop_oneof![8 => "[abc]", 1 => any_string()];
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..3).prop_map(Json::Array),
            3 => prop::collection::vec((key, inner), 0..5).prop_map(Json::Object),
        ]
    })
}

pub(super) fn any_model() -> impl Strategy<Value = Model> {
    let ts = prop_oneof![0..4i64, 1_769_591_564_381..1_769_591_564_385i64, 0..=Timestamp::MAX.millis()];
    let strings = (any_string(), any_string(), any_string(), any_string());
    (ts.prop_map(Timestamp::from_millis), strings, any_value()).prop_map(
        |(ts, (job_id, workspace_id, event, message), meta)| Model { ts, job_id, workspace_id, event, message, meta },
    )
}

/// How a record is spelt: as it is written, or by chance.
pub(super) struct Spelling(Option<u64>);

impl Spelling {
    pub(super) fn canonical() -> Self {
        Self(None)
    }

    pub(super) fn random(seed: u64) -> Self {
        Self(Some(seed))
    }

    /// A number below `bound`; 0 in the canonical spelling.
    fn pick(&mut self, bound: usize) -> usize {
        let Some(seed) = &mut self.0 else { return 0 };
        usize::try_from(next(seed) % bound as u64).expect("below a usize")
    }

    fn space(&mut self, out: &mut String) {
        out.push_str(["", "", "", " ", "\t", "\r ", "  "][self.pick(7)]);
    }

    fn string(&mut self, value: &str, out: &mut String) {
        // Some strings stay as they are, so that lines without backslashes turn up.
        let escapes = self.pick(3) == 2;
        out.push('"');
        for char in value.chars() {
            let short = match char {
                '"' => Some('"'),
                '\\' => Some('\\'),
                '/' if escapes => Some('/'),
                '\u{8}' => Some('b'),
                '\u{c}' => Some('f'),
                '\n' => Some('n'),
                '\r' => Some('r'),
                '\t' => Some('t'),
                _ => None,
            };
            if let Some(short) = short.filter(|_| !escapes || self.pick(2) == 0) {
                out.extend(['\\', short]);
            } else if char < ' ' || char == '"' || char == '\\' || escapes && self.pick(3) == 2 {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    let hex = if self.pick(2) == 0 { format!("\\u{unit:04x}") } else { format!("\\u{unit:04X}") };
                    out.push_str(&hex);
                }
            } else {
                out.push(char);
            }
        }
        out.push('"');
    }

    fn number(&mut self, minus: bool, digits: &str, power: i32, out: &mut String) {
        let mut digits = digits.to_owned();
        let zeros = self.pick(3);
        digits.push_str(if digits == "0" { "" } else { &"000"[..zeros] });
        let mut power = power - i32::try_from(if digits == "0" { 0 } else { zeros }).expect("few");
        let behind = self.pick(digits.len() + 1);
        power += i32::try_from(behind).expect("few");
        let (whole, fraction) = digits.split_at(digits.len() - behind);
        out.push_str(if minus { "-" } else { "" });
        out.push_str(if whole.is_empty() { "0" } else { whole });
        if !fraction.is_empty() {
            out.push('.');
            out.push_str(fraction);
        }
        if power != 0 || self.pick(3) == 1 {
            let sign = if power < 0 { "-" } else { ["", "+"][self.pick(2)] };
            let zeros = ["", "00"][self.pick(2)];
            write!(out, "{}{sign}{zeros}{}", ["e", "E"][self.pick(2)], power.abs()).expect("a string");
        }
    }

    pub(super) fn value(&mut self, value: &Json, out: &mut String) {
        match value {
            Json::Null => out.push_str("null"),
            Json::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
            Json::Number(minus, digits, power) => self.number(*minus, digits, *power, out),
            Json::Integer(value) => write!(out, "{value}").expect("a string"),
            Json::String(value) => self.string(value, out),
            Json::Array(values) => {
                out.push('[');
                for (at, value) in values.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    self.space(out);
                    self.value(value, out);
                    self.space(out);
                }
                out.push(']');
            }
            Json::Object(members) => self.object(members, out),
        }
    }

    fn object(&mut self, members: &[(String, Json)], out: &mut String) {
        out.push('{');
        for (at, (key, value)) in members.iter().enumerate() {
            out.push_str(if at > 0 { "," } else { "" });
            self.space(out);
            self.string(key, out);
            self.space(out);
            out.push(':');
            self.space(out);
            self.value(value, out);
            self.space(out);
        }
        out.push('}');
    }
}

impl Model {
    /// Spells the line, without its newline.
    pub(super) fn spell(&self, spelling: &mut Spelling) -> String {
        let ts = match spelling.pick(4) {
            0 => Json::String(self.ts.to_string()),
            1 => Json::Integer(self.ts.millis()),
            2 => Json::String(self.ts.to_string().replace('Z', "9+00:00")),
            _ => Json::String(self.ts.to_string().to_lowercase()),
        };
        let string = |value: &String| Json::String(value.clone());
        let mut members = [
            ("ts", ts),
            ("jobId", string(&self.job_id)),
            ("workspaceId", string(&self.workspace_id)),
            ("event", string(&self.event)),
            ("message", string(&self.message)),
            ("meta", self.meta.clone()),
        ]
        .map(|(key, value)| (key.to_owned(), value));
        for _ in 0..spelling.pick(3) {
            members.swap(spelling.pick(6), spelling.pick(6));
        }
        let mut line = String::new();
        spelling.space(&mut line);
        spelling.object(&members, &mut line);
        spelling.space(&mut line);
        line
    }
}

/// The line cut, with a byte changed, or with bytes put in or taken away.
pub(super) fn damaged(mut line: Vec<u8>, mut seed: u64) -> Vec<u8> {
    let mut pick = |bound: usize| usize::try_from(next(&mut seed) % bound.max(1) as u64).expect("below a usize");
    let at = pick(line.len());
    let pieces: [&[u8]; 12] =
        [b"\"", b"\\", b",", b"}", b"{", b" ", b"\0", b"\xff", b"0", b"\\ud800", b",\"meta\":1", b"\"event\":\"x\","];
    match pick(6) {
        0 => line.truncate(at),
        1 if !line.is_empty() => line[at] ^= 1 << pick(8),
        2 if !line.is_empty() => drop(line.remove(at)),
        3 => drop(line.splice(at..at, line.clone())),
        _ => drop(line.splice(at..at, pieces[pick(pieces.len())].iter().copied())),
    }
    line.truncate(LINE_BYTES_MAX - 1);
    line
}

/// `SplitMix64`: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
