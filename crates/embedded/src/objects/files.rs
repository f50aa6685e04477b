//! Objects as files. Per bucket: `meta/HH/HASH` (JSON, one per key, named by the hash of the key) and `data/UUID`
//! (immutable bytes). The meta file is the object; its appearance by `link` or `rename` is the commit.
//!
//! Durable order: bytes synced, their folder synced, meta synced, linked into place, its folder synced. Everything here
//! blocks on the disk: call from a blocking thread.

use super::meta::{ObjectMeta, read_meta};
use crate::files::io_failure;
use docmill_model::{Code, Failure, Sha256Hex};
use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Commits of one key exclude each other; keys share this many locks.
const LOCKS: usize = 64;
/// A reader that meets a replaced object looks again this often.
const LOOKS: usize = 8;

/// Why a commit did not happen.
#[derive(Debug)]
pub enum CommitError {
    /// An object of this key exists and the request said it must not.
    Exists,
    /// The disk failed.
    Io(io::Error),
}

impl From<io::Error> for CommitError {
    fn from(error: io::Error) -> Self {
        CommitError::Io(error)
    }
}

/// The folder of all buckets, held by one process at a time.
#[derive(Clone, Debug)]
pub struct ObjectFiles {
    root: Arc<PathBuf>,
    locks: Arc<Vec<Mutex<()>>>,
    _held: Arc<File>,
}

impl ObjectFiles {
    /// Opens (and creates) the folder, and removes bytes that never became objects.
    ///
    /// # Errors
    /// `CONFIG_INVALID` naming the path, `CONFLICT` when another process holds the folder.
    pub fn open(root: PathBuf) -> Result<Self, Failure> {
        fs::create_dir_all(&root).map_err(|e| io_failure("create", &root, &e))?;
        let path = root.join("lock");
        let held = File::create(&path).map_err(|e| io_failure("create", &path, &e))?;
        held.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                Failure::new(Code::Conflict, format!("{} is served by another process", root.display()))
            }
            TryLockError::Error(e) => io_failure("lock", &path, &e),
        })?;
        let locks = (0..LOCKS).map(|_| Mutex::new(())).collect();
        let files = Self { root: Arc::new(root), locks: Arc::new(locks), _held: Arc::new(held) };
        files.sweep().map_err(|e| io_failure("sweep", &files.root, &e))?;
        Ok(files)
    }

    pub(super) fn bucket(&self, bucket: &str) -> PathBuf {
        self.root.join(Sha256Hex::of(bucket.as_bytes()).as_str())
    }

    fn meta_path(&self, bucket: &str, key: &str) -> PathBuf {
        let hash = Sha256Hex::of(key.as_bytes());
        self.bucket(bucket).join("meta").join(&hash.as_str()[..2]).join(hash.as_str())
    }

    fn data_path(&self, bucket: &str, name: &str) -> PathBuf {
        self.bucket(bucket).join("data").join(name)
    }

    /// A fresh path for incoming bytes, on the same file system as the objects.
    #[must_use]
    pub fn incoming(&self, bucket: &str) -> PathBuf {
        self.data_path(bucket, &uuid::Uuid::new_v4().to_string())
    }

    /// Creates a bucket; existing is fine.
    ///
    /// # Errors
    /// Of the disk.
    pub fn create_bucket(&self, bucket: &str) -> io::Result<()> {
        let path = self.bucket(bucket);
        fs::create_dir_all(path.join("data"))?;
        fs::create_dir_all(path.join("meta"))?;
        fs::write(path.join("name"), bucket)?;
        File::open(&path)?.sync_all()?;
        File::open(&*self.root)?.sync_all()
    }

    /// True when the bucket exists.
    #[must_use]
    pub fn has_bucket(&self, bucket: &str) -> bool {
        self.bucket(bucket).join("name").is_file()
    }

    /// Names of all buckets.
    #[must_use]
    pub fn buckets(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&*self.root) else { return Vec::new() };
        entries.flatten().filter_map(|entry| fs::read_to_string(entry.path().join("name")).ok()).collect()
    }

    /// The object of `key`, if any.
    #[must_use]
    pub fn head(&self, bucket: &str, key: &str) -> Option<ObjectMeta> {
        read_meta(&self.meta_path(bucket, key)).filter(|meta| meta.key == key)
    }

    /// The object and its open bytes; `None` when there is no such object.
    ///
    /// # Errors
    /// Of the disk.
    pub fn open_object(&self, bucket: &str, key: &str) -> io::Result<Option<(ObjectMeta, File)>> {
        for _ in 0..LOOKS {
            let Some(meta) = self.head(bucket, key) else { return Ok(None) };
            match File::open(self.data_path(bucket, &meta.data)) {
                Ok(file) => return Ok(Some((meta, file))),
                // Replaced or deleted between the two steps.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("the bytes of an object are missing"))
    }

    /// A second name for the bytes of an object, to be committed under another key. Bytes are immutable.
    ///
    /// # Errors
    /// Of the disk.
    pub fn share(&self, from_bucket: &str, meta: &ObjectMeta, target: &Path) -> io::Result<()> {
        fs::hard_link(self.data_path(from_bucket, &meta.data), target)
    }

    /// Makes an object visible. Its data file must be complete and synced. With `only_new`, exactly one of any number
    /// of racing commits wins.
    ///
    /// # Errors
    /// `Exists`, or of the disk.
    pub fn commit(&self, bucket: &str, meta: &ObjectMeta, only_new: bool) -> Result<(), CommitError> {
        let path = self.meta_path(bucket, &meta.key);
        let folder = path.parent().unwrap_or(Path::new("."));
        if fs::create_dir(folder).is_ok() {
            File::open(folder.parent().unwrap_or(folder))?.sync_all()?;
        }
        let temporary = self.data_path(bucket, &format!("{}.meta", meta.data));
        let file = File::create(&temporary)?;
        serde_json::to_writer(&file, meta).map_err(io::Error::other)?;
        file.sync_all()?;
        File::open(temporary.parent().unwrap_or(folder))?.sync_all()?;
        let _alone = self.lock(&path);
        let previous = read_meta(&path);
        if only_new {
            let linked = fs::hard_link(&temporary, &path);
            let _ = fs::remove_file(&temporary);
            match linked {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(CommitError::Exists),
                Err(error) => return Err(error.into()),
            }
        } else {
            fs::rename(&temporary, &path)?;
        }
        File::open(folder)?.sync_all()?;
        if let Some(previous) = previous.filter(|p| p.data != meta.data) {
            let _ = fs::remove_file(self.data_path(bucket, &previous.data));
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> std::sync::MutexGuard<'_, ()> {
        let last = path.as_os_str().as_encoded_bytes().last().copied().unwrap_or_default();
        let before = path.as_os_str().as_encoded_bytes().iter().nth_back(1).copied().unwrap_or_default();
        let index = (usize::from(last) * 31 + usize::from(before)) % LOCKS;
        self.locks[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes an object; an unknown key is fine.
    ///
    /// # Errors
    /// Of the disk.
    pub fn delete(&self, bucket: &str, key: &str) -> io::Result<()> {
        let path = self.meta_path(bucket, key);
        let _alone = self.lock(&path);
        let Some(meta) = read_meta(&path) else { return Ok(()) };
        fs::remove_file(&path)?;
        let _ = fs::remove_file(self.data_path(bucket, &meta.data));
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }

    /// All objects whose key starts with `prefix` and comes after `after`, in key order.
    #[must_use]
    pub fn list(&self, bucket: &str, prefix: &str, after: &str) -> Vec<ObjectMeta> {
        let mut found: Vec<ObjectMeta> =
            self.metas(bucket).filter(|meta| meta.key.starts_with(prefix) && meta.key.as_str() > after).collect();
        found.sort_by(|a, b| a.key.cmp(&b.key));
        found
    }

    fn metas(&self, bucket: &str) -> impl Iterator<Item = ObjectMeta> + use<> {
        let folders = fs::read_dir(self.bucket(bucket).join("meta")).into_iter().flatten().flatten();
        let files = folders.filter_map(|folder| fs::read_dir(folder.path()).ok()).flatten().flatten();
        files.filter_map(|file| read_meta(&file.path()))
    }

    /// Bytes without an object are left by a kill during a PUT. Runs before anything is served.
    fn sweep(&self) -> io::Result<()> {
        for bucket in self.buckets() {
            let known: HashSet<String> = self.metas(&bucket).map(|meta| meta.data).collect();
            for entry in fs::read_dir(self.bucket(&bucket).join("data"))?.flatten() {
                if !known.contains(&*entry.file_name().to_string_lossy()) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        Ok(())
    }
}
