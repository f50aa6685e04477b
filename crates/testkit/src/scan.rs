//! Looking for words everywhere: the proof of a deletion.

use crate::World;
use secrecy::ExposeSecret;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::path::{Path, PathBuf};

impl World {
    /// Every place that holds `marker`, in any case: `table NAME` for rows (every column, also JSON and bytes), `object
    /// KEY` for what the store gives out, `file PATH` for what it and `folders` have on disk, byte for byte.
    ///
    /// # Panics
    /// When the database or the store cannot be read.
    pub async fn places_of(&self, marker: &str, folders: &[&Path]) -> Vec<String> {
        let mut places =
            self.tables_with(marker).await.unwrap_or_else(|error| panic!("the tables cannot be read: {error}"));
        let mut after: Option<String> = None;
        loop {
            let page = self.blobs.list("", after.as_deref()).await;
            let page = page.unwrap_or_else(|error| panic!("the store cannot be listed: {error}"));
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for entry in page {
                let object = self.blobs.get(&entry.key).await;
                let object = object.unwrap_or_else(|error| panic!("an object cannot be read: {error}"));
                if holds(&object, marker) || holds(entry.key.as_bytes(), marker) {
                    places.push(format!("object {}", entry.key));
                }
            }
        }
        let mut left: Vec<PathBuf> = folders.iter().map(|folder| folder.to_path_buf()).collect();
        left.push(self.store_root().to_owned());
        while let Some(path) = left.pop() {
            if path.is_dir() {
                let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
                left.extend(entries.map(|entry| entry.path()));
            } else if std::fs::read(&path).is_ok_and(|bytes| holds(&bytes, marker)) {
                places.push(format!("file {}", path.display()));
            }
        }
        places.sort();
        places
    }

    /// Tables with a row that holds the marker, read as their owner.
    async fn tables_with(&self, marker: &str) -> Result<Vec<String>, sqlx::Error> {
        let mut owner = PgConnection::connect(self.owner_url.expose_secret()).await?;
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
             ORDER BY 1",
        )
        .fetch_all(&mut owner)
        .await?;
        let mut found = Vec::new();
        for table in tables {
            // A row as text: JSON as it is written, bytes in hexadecimal digits.
            let sql = format!(
                "SELECT EXISTS (SELECT 1 FROM {table} t WHERE strpos(lower(t::text), lower($1)) > 0
                    OR strpos(t::text, encode(convert_to($1, 'UTF8'), 'hex')) > 0)"
            );
            if sqlx::query_scalar(AssertSqlSafe(sql)).bind(marker).fetch_one(&mut owner).await? {
                found.push(format!("table {table}"));
            }
        }
        Ok(found)
    }
}

/// Whether bytes hold the marker, whatever the case of ASCII letters.
fn holds(bytes: &[u8], marker: &str) -> bool {
    bytes.windows(marker.len()).any(|window| window.eq_ignore_ascii_case(marker.as_bytes()))
}
