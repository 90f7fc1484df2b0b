//! The files of a shared folder in a bucket of an object store that speaks the protocol of S3.
//!
//! Whether a file was created is decided by the store: `PUT` with `If-None-Match: *`. It answers 412 where there is a
//! file, and may answer 409 where another request for the same name is under way; after both, the file is read back,
//! because only what can be read is there.

mod transport;

use std::{
    fmt,
    fs::Permissions,
    io::{BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use frostbert_cache::mmap::map;
use futures_util::{StreamExt, stream};
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutPayload,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
    client::ClientConfigKey,
    path::Path as ObjectPath,
};
use tempfile::{Builder, NamedTempFile};
use tokio::runtime;

use crate::{
    distributed::{
        bucket::transport::Transport,
        files::{ASIDE, FetchedFile, SharedFile, SharedFiles},
    },
    error::{Error, Result},
};

/// How often a file is tried to be created where the outcome is not known; each try of the store has tries of its own.
const TRIES: u32 = 5;

/// How long the second try waits; each further one twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The number of requests at a time: a store answers many at once, each after some milliseconds.
const N_PARALLEL: usize = 16;

/// The most characters of a store's answer in a message.
const SHOWN: usize = 400;

/// A prefix in a bucket.
pub(crate) struct Bucket {
    store: AmazonS3,
    /// As the user wrote it.
    address: String,
    prefix: ObjectPath,
    scratch: PathBuf,
}

impl fmt::Debug for Bucket {
    /// The store itself knows secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl Bucket {
    /// Takes an address `s3://BUCKET/PREFIX`, and the variables `AWS_*`. Nothing is asked of the store yet.
    ///
    /// # Errors
    /// Returns an error if the address names no bucket, or the variables do not make sense.
    pub(crate) fn open(
        address: &str,
        variables: &[(String, String)],
        scratch: &Path,
    ) -> Result<Bucket> {
        let refuse = |expected: &str, got: String, hint: &str| Error::Argument {
            action: "share the work",
            expected: expected.into(),
            got,
            hint: hint.into(),
        };
        let rest = address.strip_prefix("s3://").unwrap_or(address);
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            let hint = "name the bucket, and a folder of its own for the plan";
            return Err(refuse("an address s3://BUCKET/PREFIX", format!("`{address}`"), hint));
        }
        let mut builder = AmazonS3Builder::new();
        for (name, value) in variables {
            // Other programs have variables of their own with this prefix.
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        let set = |key: AmazonS3ConfigKey| builder.get_config_value(&key);
        let endpoint = set(AmazonS3ConfigKey::S3Endpoint).or(set(AmazonS3ConfigKey::Endpoint));
        let allow_http = set(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
        if let Some(endpoint) = endpoint.filter(|endpoint| endpoint.starts_with("http:"))
            && !allow_http.is_some_and(|value| transport::is_true(&value))
        {
            let hint = "name an address that begins with https, or set AWS_ALLOW_HTTP=true if nobody else can listen";
            return Err(refuse("a server with https", format!("`{endpoint}`"), hint));
        }
        let built = builder.with_bucket_name(bucket).with_http_connector(Transport).build();
        let store = built.map_err(|error| {
            let hint = "check the variables AWS_* of the environment";
            refuse("variables that describe a store", error.to_string(), hint)
        })?;
        Ok(Bucket {
            store,
            address: address.trim_end_matches('/').into(),
            prefix: prefix.split('/').filter(|part| !part.is_empty()).collect(),
            scratch: scratch.to_path_buf(),
        })
    }

    /// Returns the key of a file.
    fn key(&self, name: &str) -> ObjectPath {
        let parts = name.split('/').filter(|part| !part.is_empty());
        parts.fold(self.prefix.clone(), |key, part| key.join(part))
    }

    /// Returns the name of a file, which is its key without the prefix.
    fn name(&self, key: &ObjectPath) -> Option<String> {
        let key = key.as_ref();
        let name = match self.prefix.as_ref() {
            "" => key,
            prefix => key.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        Some(name.into())
    }

    /// Builds the error for a request that failed.
    fn failed(&self, action: &'static str, name: &str, error: &object_store::Error) -> Error {
        let reason: String = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        Error::Store {
            action,
            address: format!("{}/{name}", self.address),
            hint: hint(error, &reason).into(),
            reason: reason.chars().take(SHOWN).collect(),
        }
    }
}

impl SharedFiles for Bucket {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let key = self.key(name);
        match wait(async { self.store.get(&key).await?.bytes().await }) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if is_no_such_object(&error) => Ok(None),
            Err(error) => Err(self.failed("read", name, &error)),
        }
    }

    fn create(&self, name: &str, content: &[u8]) -> Result<bool> {
        let key = self.key(name);
        let payload = PutPayload::from(content.to_vec());
        let (mut tries, mut pause) = (1, FIRST_WAIT);
        loop {
            let put = self.store.put_opts(&key, payload.clone(), PutMode::Create.into());
            let error = match wait(put) {
                Ok(_) => return Ok(true),
                Err(error) => error,
            };
            let is_taken = matches!(error, object_store::Error::AlreadyExists { .. });
            // A connection that broke says nothing about what became of the request.
            if !is_taken && !matches!(error, object_store::Error::Generic { .. }) {
                return Err(self.failed("create", name, &error));
            }
            match self.read(name)? {
                Some(there) => return Ok(!is_taken && there == content),
                // Neither this request nor the other one came to anything.
                None if tries < TRIES => {
                    thread::sleep(pause);
                    (tries, pause) = (tries + 1, pause * 2);
                }
                None => return Err(self.failed("create", name, &error)),
            }
        }
    }

    fn aside(&self, _folder: &str) -> PathBuf {
        self.scratch.clone()
    }

    fn store(&self, aside: NamedTempFile, name: &str) -> Result<()> {
        let bytes = map(aside.path())?;
        // Also if it is there: `vacuum` goes by the age of what no receipt names yet.
        let put = wait(self.store.put(&self.key(name), PutPayload::from(bytes)));
        put.map_err(|error| self.failed("store", name, &error)).map(drop)
    }

    fn fetch(&self, name: &str) -> Result<FetchedFile> {
        // A copy may become a file of a cache, which other users may read, as far as the umask allows.
        let permissions = Permissions::from_mode(0o666);
        let made = Builder::new().prefix(ASIDE).permissions(permissions).tempfile_in(&self.scratch);
        let made = made.map_err(Error::io("create a file in", &self.scratch))?;
        let key = self.key(name);
        let mut file = BufWriter::new(made.as_file());
        let fetched = wait(async {
            let mut pieces = self.store.get(&key).await?.into_stream();
            while let Some(piece) = pieces.next().await {
                if let Err(error) = file.write_all(&piece?) {
                    return Ok(Err(error));
                }
            }
            Ok(file.flush())
        });
        let written = fetched.map_err(|error| self.failed("fetch", name, &error))?;
        written.map_err(Error::io("write", made.path()))?;
        drop(file);
        Ok(FetchedFile::copied(made.into_temp_path()))
    }

    fn list(&self, folder: &str) -> Result<Vec<SharedFile>> {
        let prefix = self.key(folder);
        let listed = wait(async {
            let mut files = Vec::new();
            let mut objects = self.store.list(Some(&prefix));
            while let Some(object) = objects.next().await {
                let object = object?;
                if let Some(name) = self.name(&object.location) {
                    let modified = object.last_modified.into();
                    files.push(SharedFile { name, bytes: object.size, modified });
                }
            }
            Ok(files)
        });
        let mut files = listed.map_err(|error| self.failed("list", folder, &error))?;
        files.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(files)
    }

    fn folders(&self) -> Result<Vec<String>> {
        let listed = wait(self.store.list_with_delimiter(Some(&self.prefix)));
        let listed = listed.map_err(|error| self.failed("list", "", &error))?;
        let mut names: Vec<String> =
            listed.common_prefixes.iter().filter_map(|prefix| self.name(prefix)).collect();
        names.sort();
        Ok(names)
    }

    fn remove(&self, names: &[String]) -> Result<()> {
        let keys: Vec<_> = names.iter().map(|name| Ok(self.key(name))).collect();
        let removed = wait(async {
            let mut removed = self.store.delete_stream(stream::iter(keys).boxed());
            while let Some(one) = removed.next().await {
                match one {
                    Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        removed.map_err(|error| self.failed("remove files of", "", &error))
    }

    fn keeps_objects(&self) -> bool {
        true
    }

    fn n_parallel(&self) -> usize {
        N_PARALLEL
    }
}

/// Waits for a request. Each has a runtime of its own, which has nothing but a clock, for the pauses between tries: the
/// transport blocks, so that requests of several threads go on side by side.
fn wait<T>(request: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
    match runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime.block_on(request),
        Err(error) => Err(object_store::Error::Generic { store: "S3", source: Box::new(error) }),
    }
}

/// Whether an object is not there; a store answers with 404 too where there is no such bucket.
fn is_no_such_object(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { source, .. } if !source.to_string().contains("NoSuchBucket"))
}

/// Returns what can be done about an error.
fn hint(error: &object_store::Error, reason: &str) -> &'static str {
    // The address of the service that knows the role of a machine in Amazon's cloud.
    if reason.contains("169.254.") {
        return "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role";
    }
    if reason.contains("RequestTimeTooSkewed") {
        return "set this machine's clock: requests are signed with the time, and the store's differs by minutes";
    }
    match error {
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => {
            "check the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), and that they may \
             read, write, list and delete below this address"
        }
        object_store::Error::NotFound { .. } => {
            "check that the bucket exists, and AWS_ENDPOINT_URL and AWS_REGION"
        }
        _ if reason.contains(transport::UNSUPPORTED) => {
            "name a store that knows conditional puts (If-None-Match), or a folder on a disk that the machines share"
        }
        _ => {
            "check AWS_ENDPOINT_URL, AWS_REGION and the network, and run the command again: what has a receipt is kept"
        }
    }
}
