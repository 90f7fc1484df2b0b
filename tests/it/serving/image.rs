//! The Dockerfile and what it sees of the checkout, as far as that can be read without building it.

use std::fs;

use crate::support::repository;

fn text(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap()
}

#[test]
fn the_image_is_built_with_the_oldest_rust_and_runs_without_rights() {
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    let oldest = manifest["package"]["rust-version"].as_str().unwrap();
    let dockerfile = text("Dockerfile");
    assert!(dockerfile.contains(&format!("FROM rust:{oldest}-slim-")), "{oldest}");
    let last = dockerfile.rsplit("\nFROM ").next().unwrap();
    let user = last.find("\nUSER 10001\n").expect("a user without rights, as a number");
    assert!(last[..user].contains("\nRUN useradd --uid 10001 "));
    let start = last.find("\nENTRYPOINT ").unwrap();
    assert!(user < start && !last[user..].contains("\nRUN "));
}

#[test]
fn the_image_is_built_from_files_that_git_has_and_that_are_let_through() {
    let let_through: Vec<String> = text(".dockerignore")
        .lines()
        .filter_map(|line| line.strip_prefix('!').map(String::from))
        .collect();
    let is_let_through = |path: &str| {
        let mut allowed = let_through.iter();
        allowed.any(|allowed| path == allowed || path.starts_with(&format!("{allowed}/")))
    };
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    let mut needed = vec!["Cargo.lock".to_string(), "build.rs".into(), "crates".into()];
    for kind in ["bin", "test"] {
        for target in manifest[kind].as_array().unwrap() {
            needed.push(target["path"].as_str().unwrap().into());
        }
    }
    for target in manifest["bench"].as_array().unwrap() {
        needed.push(format!("benches/{}.rs", target["name"].as_str().unwrap()));
    }
    for line in text("Dockerfile").lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let mut words: Vec<&str> = line.split(' ').collect();
        words.pop();
        let own = words.into_iter().filter(|word| !line.starts_with("--from") && *word != ".");
        needed.extend(own.map(String::from));
    }
    assert!(needed.len() > 12, "{needed:?}");
    for path in needed {
        assert!(is_let_through(&path), "{path} is not let through by .dockerignore");
        assert!(repository().join(&path).exists(), "{path} is missing");
    }
}
