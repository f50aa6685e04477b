//! Vectors kept in a file between evaluations: embedding a corpus is the slow part, and texts repeat.
//!
//! One file for each fingerprint of the model, records of the text's SHA-256 and its vector, appended after every call.
//! The file is a cache: a damaged end is cut off, and deleting it costs time only. For corpora; the questions whose
//! latency is measured go to the model itself.

use docmill_model::{Code, Failure, Sha256Hex};
use docmill_platform::embedder::Embedder;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// An embedder that asks the real one only for texts it has not seen.
pub struct RememberingEmbedder {
    inner: Arc<dyn Embedder>,
    path: PathBuf,
    known: Mutex<HashMap<[u8; 32], Vec<f32>>>,
}

impl RememberingEmbedder {
    /// Over `inner`, with its file in `directory`, which is created when missing.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when the directory or file cannot be used.
    pub fn open(inner: Arc<dyn Embedder>, directory: &Path) -> Result<Arc<Self>, Failure> {
        let name = format!("vectors-{}.bin", &Sha256Hex::of(inner.fingerprint().as_bytes()).as_str()[..16]);
        let path = directory.join(name);
        std::fs::create_dir_all(directory).map_err(|error| unusable(directory, &error))?;
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(unusable(&path, &error)),
        };
        let record_bytes = 32 + inner.dimensions() * 4;
        let whole = bytes.len() - bytes.len() % record_bytes;
        if whole < bytes.len() {
            std::fs::write(&path, &bytes[..whole]).map_err(|error| unusable(&path, &error))?;
        }
        let known = bytes[..whole].chunks_exact(record_bytes).map(read_record).collect();
        Ok(Arc::new(Self { inner, path, known: Mutex::new(known) }))
    }

    fn keep(&self, fresh: Vec<([u8; 32], Vec<f32>)>) -> Result<(), Failure> {
        let mut bytes = Vec::with_capacity(fresh.len() * (32 + self.inner.dimensions() * 4));
        for (key, vector) in &fresh {
            bytes.extend_from_slice(key);
            vector.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
        }
        // Held while writing, so that records of two calls never interleave.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path);
        file.and_then(|mut file| file.write_all(&bytes)).map_err(|error| unusable(&self.path, &error))?;
        known.extend(fresh);
        Ok(())
    }
}

#[async_trait::async_trait]
impl Embedder for RememberingEmbedder {
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
        let keys: Vec<[u8; 32]> = texts.iter().map(|text| Sha256Hex::of(text.as_bytes()).to_bytes()).collect();
        let missing: Vec<usize> = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            (0..texts.len()).filter(|&place| !known.contains_key(&keys[place])).collect()
        };
        if !missing.is_empty() {
            let asked: Vec<String> = missing.iter().map(|&place| texts[place].clone()).collect();
            let vectors = self.inner.embed(&asked).await?;
            self.keep(missing.iter().map(|&place| keys[place]).zip(vectors).collect())?;
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let vector = |key| known.get(key).cloned();
        let found: Option<Vec<Vec<f32>>> = keys.iter().map(vector).collect();
        found.ok_or_else(|| Failure::new(Code::EmbeddingInvalid, "the embedder returned too few vectors"))
    }

    fn dimensions(&self) -> usize {
        self.inner.dimensions()
    }

    fn fingerprint(&self) -> String {
        self.inner.fingerprint()
    }
}

fn read_record(record: &[u8]) -> ([u8; 32], Vec<f32>) {
    let mut key = [0u8; 32];
    key.copy_from_slice(&record[..32]);
    let value = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    (key, record[32..].chunks_exact(4).map(value).collect())
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Code::ConfigInvalid, format!("{} cannot be used ({})", path.display(), error.kind()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Counting(AtomicUsize);

    #[async_trait::async_trait]
    impl Embedder for Counting {
        async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
            self.0.fetch_add(texts.len(), Ordering::Relaxed);
            Ok(texts.iter().map(|text| vec![text.len() as f32, 1.0]).collect())
        }

        fn dimensions(&self) -> usize {
            2
        }

        fn fingerprint(&self) -> String {
            "counting".to_owned()
        }
    }

    #[tokio::test]
    async fn texts_are_embedded_once_also_across_restarts_and_after_a_torn_write() {
        let (folder, inner) = (tempfile::tempdir().unwrap(), Arc::new(Counting::default()));
        let open = || RememberingEmbedder::open(inner.clone(), folder.path()).unwrap();
        let texts: Vec<String> = ["a", "bb", "a"].iter().map(|text| (*text).to_owned()).collect();
        let expected = vec![vec![1.0, 1.0], vec![2.0, 1.0], vec![1.0, 1.0]];
        let first = open();
        assert_eq!(first.embed(&texts).await.unwrap(), expected);
        let asked = inner.0.load(Ordering::Relaxed);
        assert_eq!(open().embed(&texts).await.unwrap(), expected);
        assert_eq!(inner.0.load(Ordering::Relaxed), asked);
        let path = first.path.clone();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert_eq!(open().embed(&texts).await.unwrap(), expected);
        assert_eq!(std::fs::read(&path).unwrap().len() % 40, 0);
    }
}
