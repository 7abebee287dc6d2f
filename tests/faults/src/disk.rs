//! The host's durable things: an object store and the disk of its staging
//! folder, which fail, fill up, and forget at a crash what was not synced.

use crate::fate::Fate;
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use sealfold_host::disk::Disk;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// The most recent writes that a disk which lies about syncing still forgets.
const UNSYNCED: usize = 8;

/// What the machine runs on: it goes out after so many writes.
#[derive(Debug, Default)]
pub struct Power {
    /// Writes until it goes out; below zero, never.
    left: AtomicI64,
    is_out: AtomicBool,
    went_out: Notify,
    /// Whether the disks are full.
    full: AtomicBool,
}

impl Power {
    /// A machine that stays on.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { left: AtomicI64::new(-1), ..Self::default() })
    }

    /// Goes out in the middle of the n-th write from now on.
    pub fn fail_after(&self, writes: u64) {
        self.left.store(i64::try_from(writes).unwrap(), Ordering::Relaxed);
    }

    /// Comes back.
    pub fn restore(&self) {
        self.left.store(-1, Ordering::Relaxed);
        self.is_out.store(false, Ordering::Relaxed);
    }

    /// Fills the disks, or makes room.
    pub fn fill(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Whether it is out.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.is_out.load(Ordering::Relaxed)
    }

    /// Returns when it is out.
    pub async fn out(&self) {
        while !self.is_out() {
            self.went_out.notified().await;
        }
    }

    fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Counts a write. Whether the machine is out now.
    fn counts(&self) -> bool {
        if self.left.load(Ordering::Relaxed) >= 0 && self.left.fetch_sub(1, Ordering::Relaxed) == 0
        {
            self.is_out.store(true, Ordering::Relaxed);
            self.went_out.notify_one();
        }
        self.is_out()
    }
}

/// The object store.
pub struct Shelf {
    inner: InMemory,
    power: Arc<Power>,
    fate: Fate,
    /// Whether it acknowledges what is not durable yet.
    lies: bool,
    /// What stood at a name before a write that is not durable.
    unsynced: Mutex<Vec<(Key, Option<bytes::Bytes>)>>,
    /// What a folder held when it was rewound for the first time.
    old: Mutex<Option<BTreeMap<String, Vec<u8>>>>,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a shelf of a simulated store")
    }
}

impl fmt::Display for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

fn broken(what: &str) -> object_store::Error {
    object_store::Error::Generic { store: "simulated", source: what.into() }
}

impl Shelf {
    /// An empty store.
    #[must_use]
    pub fn new(power: Arc<Power>, fate: Fate, lies: bool) -> Arc<Self> {
        let inner = InMemory::new();
        Arc::new(Self {
            inner,
            power,
            fate,
            lies,
            unsynced: Mutex::default(),
            old: Mutex::default(),
        })
    }

    /// Undoes, after a crash, what was acknowledged and not durable.
    pub async fn forget_unsynced(&self) {
        let unsynced = std::mem::take(&mut *self.unsynced.lock().unwrap());
        for (key, before) in unsynced.into_iter().rev() {
            match before {
                Some(bytes) => _ = self.inner.put(&key, bytes.into()).await.unwrap(),
                None => _ = self.inner.delete(&key).await,
            }
        }
    }

    /// Puts a folder back to what it held when this was asked for first.
    pub async fn rewind(&self, folder: &str) {
        let now = self.dump(folder).await;
        let old = self.old.lock().unwrap().get_or_insert_with(|| now.clone()).clone();
        for name in now.keys().filter(|name| !old.contains_key(*name)) {
            self.inner.delete(&Key::from(name.as_str())).await.unwrap();
        }
        for (name, bytes) in old {
            self.inner.put(&Key::from(name), bytes.into()).await.unwrap();
        }
    }

    /// Everything under a folder, by name, past all faults.
    pub async fn dump(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        let key = Key::from(folder);
        let listed: Vec<_> = self.inner.list(Some(&key)).collect().await;
        let mut found = BTreeMap::new();
        for meta in listed {
            let key = meta.unwrap().location;
            let bytes = self.inner.get(&key).await.unwrap().bytes().await.unwrap();
            found.insert(key.to_string(), bytes.to_vec());
        }
        found
    }

    /// Before a write: the machine may go out, the store may be full.
    async fn begin(&self) -> Result<()> {
        if self.power.counts() {
            std::future::pending::<()>().await;
        }
        if self.power.is_full() { Err(broken("no space left on the device")) } else { Ok(()) }
    }
}

#[async_trait]
impl ObjectStore for Shelf {
    async fn put_opts(
        &self,
        location: &Key,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.begin().await?;
        let fails = self.fate.store_fails();
        if fails == Some(false) {
            return Err(broken("a write that failed"));
        }
        if self.lies {
            let before = match self.inner.get(location).await {
                Ok(found) => Some(found.bytes().await?),
                Err(_) => None,
            };
            let mut unsynced = self.unsynced.lock().unwrap();
            unsynced.push((location.clone(), before));
            if unsynced.len() > UNSYNCED {
                unsynced.remove(0);
            }
        }
        let put = self.inner.put_opts(location, payload, options).await;
        if self.power.counts() {
            std::future::pending::<()>().await;
        }
        if fails == Some(true) { Err(broken("a write of which nobody knows")) } else { put }
    }

    async fn put_multipart_opts(
        &self,
        location: &Key,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.begin().await?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Key, options: GetOptions) -> Result<GetResult> {
        if self.power.is_out() {
            std::future::pending::<()>().await;
        }
        if self.fate.store_fails().is_some() {
            return Err(broken("a read that failed"));
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Key>>,
    ) -> BoxStream<'static, Result<Key>> {
        if self.power.counts() {
            return futures_util::stream::pending().boxed();
        }
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// The disk of the staging folder.
#[derive(Debug)]
pub struct Platter {
    power: Arc<Power>,
    /// Whether it says that it has synced when it has not.
    lies: bool,
    /// How much of each file that was written to is durable.
    synced: Mutex<BTreeMap<PathBuf, u64>>,
}

impl Platter {
    /// An empty disk.
    #[must_use]
    pub fn new(power: Arc<Power>, lies: bool) -> Arc<Self> {
        Arc::new(Self { power, lies, synced: Mutex::default() })
    }

    /// Cuts every file, after a crash, to what was durable of it.
    pub fn forget_unsynced(&self) {
        for (path, length) in &*self.synced.lock().unwrap() {
            if let Ok(file) = File::options().write(true).open(path) {
                file.set_len(*length).unwrap();
            }
        }
    }
}

impl Disk for Platter {
    fn write_at(&self, path: &Path, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut synced = self.synced.lock().unwrap();
        let before = file.metadata()?.len();
        if before == 0 {
            // Another file of that name is another file.
            synced.insert(path.to_owned(), 0);
        }
        synced.entry(path.to_owned()).or_insert(before);
        if self.power.counts() || self.power.is_full() {
            file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, path: &Path, file: &File) -> io::Result<()> {
        if self.power.counts() {
            return Err(io::Error::other("the machine is out"));
        }
        if !self.lies {
            self.synced.lock().unwrap().insert(path.to_owned(), file.metadata()?.len());
        }
        Ok(())
    }
}
