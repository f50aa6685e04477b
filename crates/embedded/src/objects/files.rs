//! Objects as files. Per bucket: `meta/HH/HASH` (JSON, one per key, named by the hash of the key) and `data/UUID`
//! (immutable bytes). The meta file is the object; its appearance by `link` or `rename` is the commit.

use crate::files::io_failure;
use docmill_model::{Failure, Sha256Hex};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use time::OffsetDateTime;

/// What is known about one object.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct ObjectMeta {
    /// The key.
    pub key: String,
    /// Name of the data file.
    pub data: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Entity tag without quotes.
    pub etag: String,
    /// SHA-256 in base64, as S3 puts it on the wire.
    pub sha256: String,
    /// Media type.
    pub content_type: Option<String>,
    /// User metadata.
    pub metadata: BTreeMap<String, String>,
    /// Time of the commit.
    #[serde(with = "time::serde::rfc3339")]
    pub modified: OffsetDateTime,
}

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

/// The folder of all buckets.
#[derive(Clone, Debug)]
pub struct ObjectFiles {
    root: Arc<PathBuf>,
}

impl ObjectFiles {
    /// Opens (and creates) the folder.
    ///
    /// # Errors
    /// `CONFIG_INVALID` naming the path.
    pub fn open(root: PathBuf) -> Result<Self, Failure> {
        fs::create_dir_all(&root).map_err(|e| io_failure("create", &root, &e))?;
        Ok(Self { root: Arc::new(root) })
    }

    fn bucket(&self, bucket: &str) -> PathBuf {
        self.root.join(Sha256Hex::of(bucket.as_bytes()).as_str())
    }

    fn meta_path(&self, bucket: &str, key: &str) -> PathBuf {
        let hash = Sha256Hex::of(key.as_bytes());
        self.bucket(bucket).join("meta").join(&hash.as_str()[..2]).join(hash.as_str())
    }

    /// A fresh path for incoming bytes, on the same file system as the objects.
    #[must_use]
    pub fn incoming(&self, bucket: &str) -> PathBuf {
        self.bucket(bucket).join("data").join(uuid::Uuid::new_v4().to_string())
    }

    /// Creates a bucket; existing is fine.
    ///
    /// # Errors
    /// Of the disk.
    pub fn create_bucket(&self, bucket: &str) -> io::Result<()> {
        let path = self.bucket(bucket);
        fs::create_dir_all(path.join("data"))?;
        for first in 0..=255u8 {
            fs::create_dir_all(path.join("meta").join(format!("{first:02x}")))?;
        }
        fs::write(path.join("name"), bucket)
    }

    /// True when the bucket exists.
    #[must_use]
    pub fn has_bucket(&self, bucket: &str) -> bool {
        self.bucket(bucket).join("name").is_file()
    }

    /// The object of `key`, if any.
    #[must_use]
    pub fn head(&self, bucket: &str, key: &str) -> Option<ObjectMeta> {
        read_meta(&self.meta_path(bucket, key)).filter(|meta| meta.key == key)
    }

    /// Opens the bytes of an object.
    ///
    /// # Errors
    /// Of the disk; `NotFound` when it was replaced meanwhile.
    pub fn data(&self, bucket: &str, meta: &ObjectMeta) -> io::Result<File> {
        File::open(self.bucket(bucket).join("data").join(&meta.data))
    }

    /// Makes an object visible. Its data file must be complete and synced. With `only_new`, exactly one of any number
    /// of racing commits wins.
    ///
    /// # Errors
    /// `Exists`, or of the disk.
    pub fn commit(&self, bucket: &str, meta: &ObjectMeta, only_new: bool) -> Result<(), CommitError> {
        let path = self.meta_path(bucket, &meta.key);
        let folder = path.parent().unwrap_or(Path::new("."));
        let temporary = self.bucket(bucket).join("data").join(format!("{}.meta", meta.data));
        let file = File::create(&temporary)?;
        serde_json::to_writer(&file, meta).map_err(io::Error::other)?;
        file.sync_all()?;
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
            let _ = fs::remove_file(self.bucket(bucket).join("data").join(previous.data));
        }
        Ok(())
    }

    /// Removes an object; an unknown key is fine.
    ///
    /// # Errors
    /// Of the disk.
    pub fn delete(&self, bucket: &str, key: &str) -> io::Result<()> {
        let path = self.meta_path(bucket, key);
        let Some(meta) = read_meta(&path) else { return Ok(()) };
        fs::remove_file(&path)?;
        let _ = fs::remove_file(self.bucket(bucket).join("data").join(meta.data));
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }

    /// All objects whose key starts with `prefix` and comes after `after`, in key order.
    #[must_use]
    pub fn list(&self, bucket: &str, prefix: &str, after: &str) -> Vec<ObjectMeta> {
        let Ok(folders) = fs::read_dir(self.bucket(bucket).join("meta")) else { return Vec::new() };
        let files = folders.flatten().filter_map(|folder| fs::read_dir(folder.path()).ok()).flatten().flatten();
        let mut found: Vec<ObjectMeta> = files
            .filter_map(|file| read_meta(&file.path()))
            .filter(|meta| meta.key.starts_with(prefix) && meta.key.as_str() > after)
            .collect();
        found.sort_by(|a, b| a.key.cmp(&b.key));
        found
    }
}

fn read_meta(path: &Path) -> Option<ObjectMeta> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
