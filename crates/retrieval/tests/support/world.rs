//! SHIM world.
use docmill_model::{Code, Failure, Sha256Hex};
use docmill_retrieval::{artifacts::Artifacts, blobs::Blobs, database::*, embedder::Embedder};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, atomic::{AtomicBool, Ordering}};

pub struct World { pub database: Database, pub artifacts: Artifacts, pub embedder: Arc<dyn Embedder>, broken: Arc<AtomicBool> }
pub struct Bag(Arc<AtomicBool>);
#[async_trait::async_trait]
impl Embedder for Bag { async fn embed(&self, t: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
  if self.0.load(Ordering::Relaxed) { return Err(Failure::new(Code::EmbeddingInvalid, "broken")); }
  Ok(t.iter().map(|t| super::bag_of_words(t)).collect()) } }
#[derive(Default)] struct Mem(Mutex<HashMap<String, bytes::Bytes>>);
#[async_trait::async_trait]
impl Blobs for Mem {
  async fn put(&self,k:&str,b:bytes::Bytes,_:&Sha256Hex)->Result<(),Failure>{ self.0.lock().unwrap().insert(k.to_owned(), b); Ok(()) }
  async fn get_verified(&self,k:&str,_:&Sha256Hex)->Result<bytes::Bytes,Failure>{ self.0.lock().unwrap().get(k).cloned().ok_or_else(|| Failure::new(Code::ObjectMissing,"gone")) }
}
impl World { pub fn break_embedder(&self, b: bool) { self.broken.store(b, Ordering::Relaxed); } }
pub async fn world() -> World {
  let url = |u: &str| secrecy::SecretString::from(format!("postgres://{u}@localhost/scratch?host=/tmp/rt/s"));
  let database = Database::connect(&DatabaseConfig{ app_url: url("docmill_app"), engine_url: url("docmill_engine"), max_connections: 8, acquire_timeout: std::time::Duration::from_secs(20)}).await.unwrap();
  let broken = Arc::new(AtomicBool::new(false));
  let artifacts = Artifacts::new(database.clone(), Arc::new(Mem::default()));
  World { database, artifacts, embedder: Arc::new(Bag(broken.clone())), broken }
}
