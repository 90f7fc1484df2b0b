//! about.json: what people like to know of a cache, and no state depends on: which model made it, and, by the time of the
//! file, when the cache was last used. Nothing fails where it cannot be read or written.

use std::{
    fs::{self, OpenOptions},
    io::Read,
    path::Path,
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use crate::{
    durable::{through_no_link, write_file},
    manifest::MANIFEST,
};

/// The file name in the cache folder.
pub const ABOUT_FILE: &str = "about.json";

/// The file name of a tokenizer that was built for a model whose folder has none. It is for people and other programs:
/// its hash is in the fingerprint, but it is never read.
pub(crate) const TOKENIZER_FILE: &str = "tokenizer.json";

/// Names and revisions are shorter.
const MOST_BYTES: u64 = 64 * 1024;

/// Which model made a cache, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its name: `owner/name` on the hub, else that of its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The commit on the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Its folder on this machine, if an export may need more of it than the states: that of a sentence-transformers
    /// model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
}

impl About {
    /// What is known of a cache folder.
    pub fn read(folder: &Path) -> About {
        let mut options = OpenOptions::new();
        let file = through_no_link(options.read(true)).open(folder.join(ABOUT_FILE));
        let mut text = String::new();
        let read = file.and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text));
        read.ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// Notes that this model's cache is being used.
    pub fn note(&self, folder: &Path) {
        if About::read(folder) == *self {
            note_use(folder);
        } else if let Ok(json) = serde_json::to_string_pretty(self) {
            let _ = write_file(&folder.join(ABOUT_FILE), (json + "\n").as_bytes());
        }
    }
}

/// Keeps a tokenizer.json that was built for the model of a cache.
pub fn keep_tokenizer(folder: &Path, json: &[u8]) {
    let path = folder.join(TOKENIZER_FILE);
    if !fs::read(&path).is_ok_and(|kept| kept == json) {
        let _ = write_file(&path, json);
    }
}

/// Notes that a cache is being used, now.
pub fn note_use(folder: &Path) {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    let file = through_no_link(&mut options).open(folder.join(ABOUT_FILE));
    let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
}

/// When a cache was last used: written, trained on or exported. Of a cache that was never noted, when it was last written;
/// `None` where the system does not say.
pub fn last_use(folder: &Path) -> Option<SystemTime> {
    let changed = |name: &str| fs::metadata(folder.join(name)).and_then(|file| file.modified());
    changed(ABOUT_FILE).or_else(|_| changed(MANIFEST)).ok()
}

#[cfg(test)]
mod tests {
    use std::{fs::File, time::Duration};

    use super::*;

    #[test]
    fn the_tokenizer_of_the_model_is_kept_as_it_is_now() {
        let folder = tempfile::tempdir().unwrap();
        for json in [&b"{}"[..], b"{}", b"{\"a\": 1}"] {
            keep_tokenizer(folder.path(), json);
            assert_eq!(fs::read(folder.path().join("tokenizer.json")).unwrap(), json);
        }
    }

    #[test]
    fn a_use_is_the_time_of_the_file_and_keeps_what_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let known = || About::read(folder.path());
        fs::write(folder.path().join("manifest.json"), "{}").unwrap();
        assert!(last_use(folder.path()).is_some());
        note_use(folder.path());
        assert_eq!(known(), About::default());
        let about = About { model: Some("a/b".into()), ..About::default() };
        about.note(folder.path());
        assert_eq!(known(), about);
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let file = File::options().append(true).open(folder.path().join(ABOUT_FILE)).unwrap();
        file.set_modified(long_ago).unwrap();
        assert_eq!(last_use(folder.path()), Some(long_ago));
        note_use(folder.path());
        assert!(last_use(folder.path()).unwrap() > long_ago);
        assert_eq!(known(), about);
    }
}
