//! Inputs: files of the corpus, and mutations of them, each decided by a seed and a number alone, so that any of them can
//! be made again.

use serde_json::Value;

/// How the bytes of a target are written: what may be mutated beside bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// Bytes, and no more is known.
    Bytes,
    /// Text of lines and fields.
    Text,
    /// One JSON value.
    Json,
    /// TOML.
    Toml,
}

/// No input is longer: what grows by mutation has to end.
const MOST_BYTES: usize = 256 << 10;

/// Numbers at which counts, sizes and indices go wrong.
const NUMBERS: [u64; 14] = [
    0,
    1,
    2,
    0x7f,
    0xff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_fff0,
    u64::MAX,
];

/// Values, as JSON and TOML write them (one of them, or both).
const VALUES: [&str; 43] = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "1000",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "10000000000",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "0.5",
    "-0.0",
    "1e-320",
    "1e308",
    "-1e308",
    "1.7e308",
    "1e400",
    "nan",
    "inf",
    "null",
    "true",
    "false",
    "[]",
    "{}",
    "[[]]",
    "[0, 0]",
    "\"\"",
    "\".\"",
    "\"..\"",
    "\"../x\"",
    "\"/\"",
    "\"\\u0000\"",
    "\"\u{e9}\u{fb01}\u{1f642}\"",
    "\"mean-L99999999999\"",
    "\"00\"",
];

/// Pieces of text that readers trip over.
const TEXTS: [&str; 34] = [
    "\"",
    "\"\"",
    "'",
    "\n",
    "\r",
    "\r\n",
    "\n\n",
    "\t",
    ",",
    ";",
    "\\",
    "\u{feff}",
    "\0",
    "{",
    "}",
    "[",
    "]",
    ":",
    "\\u0000",
    "\\ud800",
    "\u{301}",
    "\u{1f469}\u{200d}\u{1f467}",
    "\u{fb01}",
    "\u{130}",
    "\u{85}",
    "\u{2028}",
    "#",
    "-DOCSTART-",
    "I-X",
    "B-",
    "[CLS]",
    "[SEP]",
    " \u{a0}",
    "1-2",
];

/// SplitMix64: small, and the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, number: u64) -> Random {
        let mut random = Random(seed ^ number.wrapping_mul(0xd129_0f2c_5a1f_95b3));
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, and 0 below 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// The input of this number: first every file of the corpus as it is, then mutations.
pub(crate) fn input(corpus: &[Vec<u8>], syntax: Syntax, seed: u64, number: u64) -> Vec<u8> {
    if let Some(file) = corpus.get(number as usize) {
        return file.clone();
    }
    let mut random = Random::new(seed, number);
    let mut bytes = random.pick(corpus).clone();
    let other = random.pick(corpus);
    // Half of them stay well formed, so that what comes after the parser sees them too.
    let is_formed = match syntax {
        Syntax::Json if !random.one_in(3) => mutate_json(&mut bytes, &mut random),
        Syntax::Toml if !random.one_in(3) => mutate_toml(&mut bytes, &mut random),
        _ => false,
    };
    let rounds = if is_formed { usize::from(random.one_in(8)) } else { 1 + random.below(4) };
    for _ in 0..rounds {
        match syntax {
            Syntax::Bytes => mutate_bytes(&mut bytes, other, &mut random),
            _ if random.one_in(3) => mutate_bytes(&mut bytes, other, &mut random),
            _ => mutate_text(&mut bytes, &mut random),
        }
    }
    bytes.truncate(MOST_BYTES);
    bytes
}

/// A place in the bytes; headers and footers are met more often than what lies between them.
fn place(length: usize, random: &mut Random) -> usize {
    let near = length.min(1 << random.below(13));
    match random.below(4) {
        0 => random.below(near),
        1 => length - random.below(near + 1),
        _ => random.below(length + 1),
    }
}

fn range(length: usize, random: &mut Random) -> std::ops::Range<usize> {
    let start = place(length, random);
    let most = 1 << random.below(10);
    start..(start + random.below(most + 1)).min(length)
}

fn mutate_bytes(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let n_bytes = bytes.len();
    match random.below(9) {
        0 | 1 if n_bytes > 0 => {
            let at = place(n_bytes, random).min(n_bytes - 1);
            bytes[at] ^= 1 << random.below(8);
        }
        2 if n_bytes > 0 => {
            let at = place(n_bytes, random).min(n_bytes - 1);
            bytes[at] = random.next() as u8;
        }
        3 => drop(bytes.drain(range(n_bytes, random))),
        4 => {
            let at = place(n_bytes, random);
            let inserted: Vec<u8> = (0..1 + random.below(8)).map(|_| random.next() as u8).collect();
            bytes.splice(at..at, inserted);
        }
        5 => {
            let piece = bytes[range(n_bytes, random)].to_vec();
            let at = place(n_bytes, random);
            bytes.splice(at..at, piece);
        }
        6 => {
            // The beginning of one, the end of the other.
            let keep = place(n_bytes, random);
            bytes.truncate(keep);
            bytes.extend_from_slice(&other[place(other.len(), random).min(other.len())..]);
        }
        7 => {
            let number = near(*random.pick(&NUMBERS), random);
            let width = *random.pick(&[1, 2, 4, 8]);
            let written = if random.one_in(4) {
                number.to_be_bytes()[8 - width..].to_vec()
            } else {
                number.to_le_bytes()[..width].to_vec()
            };
            overwrite(bytes, &written, random);
        }
        _ => {
            // As Thrift and protocol buffers write them.
            let written = varint(near(*random.pick(&NUMBERS), random));
            overwrite(bytes, &written, random);
        }
    }
}

fn near(number: u64, random: &mut Random) -> u64 {
    number.wrapping_add(random.below(5) as u64).wrapping_sub(2)
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut written = Vec::new();
    while number >= 0x80 {
        written.push(number as u8 | 0x80);
        number >>= 7;
    }
    written.push(number as u8);
    written
}

fn overwrite(bytes: &mut Vec<u8>, written: &[u8], random: &mut Random) {
    let at = place(bytes.len(), random);
    let replaced = if random.one_in(3) { 1 } else { written.len() };
    let end = (at + replaced).min(bytes.len());
    bytes.splice(at..end, written.iter().copied());
}

fn mutate_text(bytes: &mut Vec<u8>, random: &mut Random) {
    let n_bytes = bytes.len();
    match random.below(8) {
        0 | 1 => {
            let at = place(n_bytes, random);
            bytes.splice(at..at, random.pick(&TEXTS).bytes());
        }
        2 => {
            let at = range(n_bytes, random);
            bytes.splice(at, random.pick(&TEXTS).bytes());
        }
        3 | 4 => {
            // A number of the text becomes another.
            let start = place(n_bytes, random);
            let is_digit = |byte: &u8| byte.is_ascii_digit();
            let found = bytes[start..].iter().position(is_digit);
            if let Some(first) = found.map(|found| start + found) {
                let n_digits = bytes[first..].iter().take_while(|byte| is_digit(byte)).count();
                bytes.splice(first..first + n_digits, random.pick(&VALUES).bytes());
            }
        }
        5 => {
            // A line twice, or not at all.
            let start = place(n_bytes, random);
            let line_at = |place: usize| {
                bytes[..place].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
            };
            let first = line_at(start);
            let length = bytes[first..].iter().position(|byte| *byte == b'\n');
            let end = length.map_or(n_bytes, |length| first + length + 1);
            if random.one_in(2) {
                drop(bytes.drain(first..end))
            } else {
                let line = bytes[first..end].to_vec();
                bytes.splice(first..first, line);
            }
        }
        6 => {
            let n = 1 << random.below(12);
            let repeated = random.pick(&TEXTS).repeat(n);
            let at = place(n_bytes, random);
            bytes.splice(at..at, repeated.into_bytes());
        }
        _ => {
            let nested = nested(random);
            let at = range(n_bytes, random);
            bytes.splice(at, nested.into_bytes());
        }
    }
}

/// Brackets within brackets.
fn nested(random: &mut Random) -> String {
    let depth = 1 << random.below(16);
    let (open, close) =
        *random.pick(&[("[", "]"), ("{\"a\":", "}"), ("{a=", "}"), ("(", ")"), ("[", "")]);
    [open.repeat(depth), "1".into(), close.repeat(depth)].concat()
}

/// Stands in a tree for what its writer could not write.
const MARK: &str = "@mark@";

/// Mutates the tree of a JSON text; false where it is none.
fn mutate_json(bytes: &mut Vec<u8>, random: &mut Random) -> bool {
    let Ok(mut tree) = serde_json::from_slice::<Value>(bytes) else {
        return false;
    };
    for _ in 0..1 + random.below(3) {
        let donor = tree.clone();
        mutate_node(&mut tree, &donor, random);
    }
    *bytes = raw(tree.to_string(), random).into_bytes();
    true
}

/// Mutates the tree of a TOML text; false where it is none.
fn mutate_toml(bytes: &mut Vec<u8>, random: &mut Random) -> bool {
    let text = std::str::from_utf8(bytes).ok();
    let tree = text.and_then(|text| toml::from_str::<toml::Table>(text).ok());
    let Some(mut tree) = tree.and_then(|table| serde_json::to_value(table).ok()) else {
        return false;
    };
    for _ in 0..1 + random.below(3) {
        let donor = tree.clone();
        mutate_node(&mut tree, &donor, random);
    }
    let Ok(text) = toml::to_string(&tree) else {
        return false;
    };
    *bytes = raw(text, random).into_bytes();
    true
}

/// Puts values that a tree cannot hold where their marks are.
fn raw(mut text: String, random: &mut Random) -> String {
    let mark = format!("\"{MARK}\"");
    while text.contains(&mark) {
        let value =
            if random.one_in(10) { nested(random) } else { random.pick(&VALUES).to_string() };
        text = text.replacen(&mark, &value, 1);
    }
    text
}

/// Goes down the tree at random and changes one thing.
fn mutate_node(node: &mut Value, donor: &Value, random: &mut Random) {
    let goes_on = !random.one_in(5);
    match node {
        Value::Object(fields) if goes_on && !fields.is_empty() => {
            let at = random.below(fields.len());
            let key = fields.keys().nth(at).cloned().unwrap_or_default();
            match random.below(10) {
                0 => drop(fields.remove(&key)),
                1 => {
                    let value = fields[&key].clone();
                    let name = ["", " ", "a", "..", "tokens", "\u{e9}"];
                    fields.insert(random.pick(&name).to_string(), value);
                }
                _ => mutate_node(&mut fields[&key], donor, random),
            }
        }
        Value::Array(items) if goes_on && !items.is_empty() => {
            let at = random.below(items.len());
            match random.below(8) {
                0 => drop(items.remove(at)),
                1 => items.insert(at, items[at].clone()),
                2 => {
                    let to = random.below(items.len());
                    items.swap(at, to);
                }
                3 => items.clear(),
                _ => mutate_node(&mut items[at], donor, random),
            }
        }
        Value::Number(number) if random.one_in(3) => {
            // One more or less is wrong too, and hard to see.
            let step = random.below(3) as i64 - 1;
            if let Some(moved) = number.as_i64().and_then(|number| number.checked_add(step)) {
                *node = moved.into();
            }
        }
        Value::String(text) if random.one_in(2) => {
            let mut bytes = std::mem::take(text).into_bytes();
            match random.below(4) {
                0 => bytes.truncate(random.below(bytes.len() + 1)),
                1 => bytes.make_ascii_uppercase(),
                _ => mutate_text(&mut bytes, random),
            }
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        _ if random.one_in(4) => *node = piece_of(donor, random).clone(),
        _ => *node = MARK.into(),
    }
}

/// Any value within a tree.
fn piece_of<'a>(tree: &'a Value, random: &mut Random) -> &'a Value {
    let within = match tree {
        Value::Object(fields) => fields.values().nth(random.below(fields.len())),
        Value::Array(items) => items.get(random.below(items.len())),
        _ => None,
    };
    match within {
        Some(within) if !random.one_in(4) => piece_of(within, random),
        _ => tree,
    }
}
