//! Rules that look at all files together: no circular imports inside a folder, and no type name defined twice.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, paths};

/// The type names that may be defined in several files, each with the reason.
const DOUBLED: [(&str, &str); 0] = [];

/// The files and folders in one folder, each with those that it imports.
type Imports<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// Finds circular imports inside each folder of a crate. A file and the folder of the same name are one unit; imports
/// between them do not count.
pub(super) fn circles(sources: &[Source]) -> Vec<String> {
    let modules: BTreeSet<Vec<&str>> = sources.iter().map(Source::segments).collect();
    let tokens: Vec<_> = sources.iter().map(Source::tokens).collect();
    let mut folders: BTreeMap<Vec<&str>, Imports<'_>> = BTreeMap::new();
    for (source, tokens) in sources.iter().zip(&tokens) {
        let module = source.segments();
        for path in paths(tokens) {
            let Some(target) = target(&module, &path.segments, &modules) else {
                continue;
            };
            let shared = module.iter().zip(target).take_while(|(one, other)| one == other).count();
            if shared < module.len() && shared < target.len() {
                let imports = folders.entry(module[..shared].to_vec()).or_default();
                imports.entry(module[shared]).or_default().insert(target[shared]);
            }
        }
    }
    let mut complaints = Vec::new();
    for (folder, imports) in &folders {
        let mut complained = BTreeSet::new();
        for name in imports.keys() {
            let reached = reached(name, imports);
            if reached.contains(name) && !complained.contains(name) {
                let circle: Vec<&str> = reached
                    .iter()
                    .filter(|other| self::reached(other, imports).contains(name))
                    .copied()
                    .collect();
                let folder = [&[sources[0].root], &folder[..]].concat().join("/");
                complaints
                    .push(format!("{folder}: {} import each other in a circle", circle.join(", ")));
                complained.extend(circle);
            }
        }
    }
    complaints
}

/// Returns the module among `modules` that a path leads into, as seen from `module`.
fn target<'a, 'm>(
    module: &[&'a str],
    path: &[&'a str],
    modules: &'m BTreeSet<Vec<&'a str>>,
) -> Option<&'m [&'a str]> {
    let supers = path.iter().take_while(|segment| **segment == "super").count();
    let whole = match path {
        ["crate", rest @ ..] => rest.to_vec(),
        ["super", ..] => {
            [module.get(..module.len().checked_sub(supers)?)?, &path[supers..]].concat()
        }
        ["self", rest @ ..] => [module, rest].concat(),
        [first, ..] if modules.contains(&[module, &[*first]].concat()) => [module, path].concat(),
        _ => return None,
    };
    let longest = (1..=whole.len()).rev().find_map(|length| modules.get(&whole[..length]))?;
    Some(longest)
}

/// Returns everything that can be reached by imports.
fn reached<'a>(from: &str, imports: &Imports<'a>) -> BTreeSet<&'a str> {
    let (mut reached, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(name) = left.pop() {
        for other in imports.get(name).into_iter().flatten() {
            if reached.insert(*other) {
                left.push(other);
            }
        }
    }
    reached
}

/// Returns the types that are defined in several files of a crate but are not in [`DOUBLED`], and the names in it that
/// are not defined twice.
pub(super) fn doubled_types(sources: &[Source]) -> Vec<String> {
    let mut places: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for source in sources {
        let mut depth = 0;
        for pair in source.tokens().windows(2) {
            match pair[0].text {
                "{" => depth += 1,
                "}" => depth -= 1,
                "struct" | "enum" | "trait" | "type" | "union" if depth == 0 => {
                    places.entry(pair[1].text.into()).or_default().insert(&source.path);
                }
                _ => {}
            }
        }
    }
    places.retain(|_, files| files.len() > 1);
    let listed = |name: &str| DOUBLED.iter().any(|(known, _)| *known == name);
    let unlisted = places.iter().filter(|(name, _)| !listed(name));
    let mut complaints: Vec<String> = unlisted
        .map(|(name, files)| {
            let files: Vec<&str> = files.iter().copied().collect();
            format!("`{name}` is defined in {}: give each a name of its own", files.join(" and "))
        })
        .collect();
    let stale = DOUBLED.iter().filter(|(name, _)| !places.contains_key(*name));
    complaints.extend(stale.map(|(name, _)| format!("`{name}` is listed and not doubled")));
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> Vec<Source> {
        files
            .iter()
            .map(|(path, text)| Source { root: "src", path: (*path).into(), text: (*text).into() })
            .collect()
    }

    #[test]
    fn a_circle_is_found_over_folders_and_other_files_and_a_parent_makes_none() {
        let a = ("a.rs", "mod b; mod c; mod d; use b::B;");
        let b = ("a/b.rs", "use super::{A, c::deep::C};");
        let c = ("a/c.rs", "mod deep;");
        let d = ("a/d.rs", "use crate::a::b::B;");
        let test = "use super::X; #[cfg(test)] use crate::a::d::D;";
        let found = circles(&sources(&[a, b, c, d, ("a/c/deep.rs", test)]));
        assert!(found.is_empty(), "{found:?}");
        let deep = "use crate::a::d::D;";
        let found = circles(&sources(&[a, b, c, d, ("a/c/deep.rs", deep)]));
        assert_eq!(found, ["src/a: b, c, d import each other in a circle"]);
    }

    #[test]
    fn a_type_of_two_files_is_found_and_one_inside_an_impl_is_none() {
        let one = "struct Row; impl Iterator for X { type Item = u8; }";
        let found = doubled_types(&sources(&[("a.rs", one), ("b.rs", "enum Item {}")]));
        assert!(found.is_empty(), "{found:?}");
        let found = doubled_types(&sources(&[("a.rs", one), ("b.rs", "pub type Row = u8;")]));
        assert_eq!(found, ["`Row` is defined in a.rs and b.rs: give each a name of its own"]);
    }
}
