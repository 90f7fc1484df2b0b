//! Splits Rust sources into tokens, and finds the paths in them: enough of the grammar to check the rules.

use crate::support::repository;

/// The source folders of the root package, of frostbert-cache and of frostbert-train.
pub(super) const ROOTS: [&str; 3] =
    ["src", "crates/frostbert-cache/src", "crates/frostbert-train/src"];

/// A source file of a crate.
pub(super) struct Source {
    /// The one of [`ROOTS`] that contains it.
    pub(super) root: &'static str,
    /// Its path below the root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

/// A word or a punctuation mark.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    pub(super) line: usize,
}

/// A path such as `crate::data::Source`, written out or inside the braces of a `use`.
#[derive(Debug)]
pub(super) struct NamedPath<'a> {
    pub(super) segments: Vec<&'a str>,
    pub(super) line: usize,
}

impl Source {
    /// Reads every Rust file under one of [`ROOTS`].
    pub(super) fn read_all(root: &'static str) -> Vec<Source> {
        let folder = repository().join(root);
        let mut sources = Vec::new();
        let mut folders = vec![folder.clone()];
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let path = path.strip_prefix(&folder).unwrap().display().to_string();
                    sources.push(Source { root, path, text });
                }
            }
        }
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        sources
    }

    /// Returns its tokens, including tests.
    pub(super) fn all_tokens(&self) -> Vec<Token<'_>> {
        tokens(&self.text)
    }

    /// Returns its tokens without items under `#[cfg(test)]`; empty for a file of tests.
    pub(super) fn tokens(&self) -> Vec<Token<'_>> {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        if name.starts_with("tests") {
            return Vec::new();
        }
        without_tests(&tokens(&self.text))
    }

    /// Returns the module that decides its layer: `data` for `data/read.rs`, `states` for `states.rs`.
    pub(super) fn module(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// Returns whether it belongs to the program and not to a library.
    pub(super) fn is_binary(&self) -> bool {
        self.is_of_root() && ["main", "cli"].contains(&self.module())
    }

    /// Returns whether it belongs to the root package.
    pub(super) fn is_of_root(&self) -> bool {
        self.root == ROOTS[0]
    }

    /// Returns its path in the repository.
    pub(super) fn place(&self) -> String {
        format!("{}/{}", self.root, self.path)
    }

    /// Returns the path of its module, from the root of the crate.
    pub(super) fn segments(&self) -> Vec<&str> {
        self.path.trim_end_matches(".rs").split('/').collect()
    }

    /// Returns whether it is this file, or belongs to this folder, which is written with a `/` at its end.
    pub(super) fn stands_in(&self, place: &str) -> bool {
        match place.strip_suffix('/') {
            Some(folder) => self.path.starts_with(place) || self.path == format!("{folder}.rs"),
            None => self.path.starts_with(place),
        }
    }

    /// Returns how many `super` lead from it to the root of the crate.
    pub(super) fn depth(&self) -> usize {
        self.path.matches('/').count() + 1
    }

    /// Returns a complaint about a line of it.
    pub(super) fn complain(&self, line: usize, problem: &str) -> String {
        format!("{}:{line}: {problem}", self.place())
    }
}

/// Splits a source into words and punctuation (`::` is one token), without comments, strings, characters and lifetimes.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let bytes = text.as_bytes();
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let start = at;
        let rest = &text[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += block_comment_length(rest);
        } else if let Some(length) = string_length(rest) {
            at += length;
        } else if bytes[at] == b'\'' {
            at += quote_length(rest);
        } else if is_word_byte(bytes[at]) {
            let length = rest.bytes().position(|byte| !is_word_byte(byte));
            at += length.unwrap_or(rest.len());
            tokens.push(Token { text: &text[start..at], line });
        } else {
            at += if rest.starts_with("::") { 2 } else { 1 };
            if !bytes[start].is_ascii_whitespace() {
                tokens.push(Token { text: &text[start..at], line });
            }
        }
        line += text[start..at].matches('\n').count();
    }
    tokens
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn is_word(token: &str) -> bool {
    token.bytes().next().is_some_and(is_word_byte)
}

/// Returns the length of a block comment; block comments nest.
fn block_comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Returns the length of the string literal at the start of `rest`, if there is one: plain, byte, C or raw.
fn string_length(rest: &str) -> Option<usize> {
    let prefix = ["", "b", "c", "r", "br", "cr"].into_iter().find(|prefix| {
        let after = rest.strip_prefix(prefix).unwrap_or("");
        after.starts_with('"')
            || (prefix.ends_with('r') && after.trim_start_matches('#').starts_with('"'))
    })?;
    let after = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = after.len() - after.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let body = prefix.len() + hashes + 1;
        return Some(
            body + rest[body..].find(&end).map_or(rest.len() - body, |place| place + end.len()),
        );
    }
    let mut escaped = false;
    for (place, byte) in after.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(prefix.len() + place + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

/// Returns the length of a character literal or of the name of a lifetime.
fn quote_length(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    let Some((_, first)) = characters.next() else {
        return 1;
    };
    if first == '\\' {
        let end = rest[3..].find('\'').map_or(rest.len(), |place| place + 4);
        return end.min(rest.len());
    }
    match characters.next() {
        Some((place, '\'')) => place + 1,
        _ => 1 + rest[1..].bytes().take_while(|byte| is_word_byte(*byte)).count(),
    }
}

/// Removes every item with the attribute `#[cfg(test)]`.
pub(super) fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let ahead = tokens[at..].iter().map(|token| token.text);
        if ahead.take(ATTRIBUTE.len()).eq(ATTRIBUTE) {
            at = item_end(tokens, at + ATTRIBUTE.len());
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

/// Returns the index after the item that starts here, which ends with a `;` or its closing brace.
fn item_end(tokens: &[Token<'_>], mut at: usize) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        match tokens[at].text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        let closes = tokens[at].text == "}" || tokens[at].text == ";";
        at += 1;
        if closes && depth == 0 {
            break;
        }
    }
    at
}

/// Returns the paths in a source: those in `use`, with braces expanded, and those written out with `::`.
pub(super) fn paths<'a>(tokens: &[Token<'a>]) -> Vec<NamedPath<'a>> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let (mut paths, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if text(at) == "use" && text(at + 1) != "<" {
            at = use_tree(tokens, at + 1, Vec::new(), &mut paths);
            continue;
        }
        let before = if at == 0 { "" } else { text(at - 1) };
        let goes_on = before == "::" && at >= 2 && (is_word(text(at - 2)) || text(at - 2) == ">");
        if is_word(text(at)) && !goes_on && before != "." && text(at + 1) == "::" {
            let mut segments = vec![text(at)];
            let line = tokens[at].line;
            while text(at + 1) == "::" && is_word(text(at + 2)) {
                at += 2;
                segments.push(text(at));
            }
            paths.push(NamedPath { segments, line });
        }
        at += 1;
    }
    paths
}

/// Expands one branch of a `use`, and returns where it ends.
fn use_tree<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    mut prefix: Vec<&'a str>,
    paths: &mut Vec<NamedPath<'a>>,
) -> usize {
    let mut line = 0;
    while let Some(token) = tokens.get(at) {
        line = token.line;
        match token.text {
            "::" => at += 1,
            "as" => at += 2,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    at = use_tree(tokens, at, prefix.clone(), paths);
                    at += usize::from(tokens.get(at).is_some_and(|token| token.text == ","));
                }
                return at + 1;
            }
            word if is_word(word) || word == "*" => {
                prefix.push(word);
                at += 1;
            }
            _ => break,
        }
    }
    paths.push(NamedPath { segments: prefix, line });
    at
}
