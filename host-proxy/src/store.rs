//! What the host keeps: documents and finished objects, through `object_store`.
//!
//! A folder by default, written with fsync; S3, GCS or Azure by URL, where the
//! binary was built with that feature. Everything in it is sealed, signed or
//! public.

use crate::staging::sync_folder;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutPayload};
use sealfold_protocol::refusal::{Check, Refusal};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The largest document that is read whole.
const MAX_DOCUMENT: u64 = 8 << 20;
/// The piece in which large objects are copied.
const PIECE: usize = 8 << 20;

/// The store.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    prefix: Key,
    /// Where it lies, if it is a folder.
    folder: Option<PathBuf>,
}

/// Names the store and what it failed at.
pub fn failed(error: impl std::fmt::Display) -> Refusal {
    tracing::error!(%error, "the store failed");
    Refusal::new(Check::Storage, "an answer of the store", error)
        .next("try again; the operator finds the cause in the host's log")
}

impl Store {
    /// A folder, made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn folder(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)?;
        forget_unfinished(path)?;
        let inner = LocalFileSystem::new_with_prefix(path)?.with_fsync(true);
        Ok(Self { inner: Arc::new(inner), prefix: Key::default(), folder: Some(path.to_owned()) })
    }

    /// An object store by its URL; options come from the environment.
    ///
    /// # Errors
    /// If the URL names none that this binary was built with.
    pub fn url(url: &str) -> anyhow::Result<Self> {
        let url = url::Url::parse(url)?;
        let options = std::env::vars().map(|(name, value)| (name.to_ascii_lowercase(), value));
        let (inner, prefix) = object_store::parse_url_opts(&url, options)?;
        Ok(Self { inner: Arc::from(inner), prefix, folder: None })
    }

    /// Any object store.
    #[must_use]
    pub fn over(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, prefix: Key::default(), folder: None }
    }

    fn key(&self, name: &str) -> Key {
        let name = Key::from(name);
        self.prefix.parts().chain(name.parts()).collect()
    }

    /// Puts a document. When this returns it is durable.
    ///
    /// # Errors
    /// A refusal by `storage`.
    pub async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), Refusal> {
        let payload = PutPayload::from(bytes);
        self.inner.put(&self.key(name), payload).await.map(|_| ()).map_err(failed)
    }

    /// Puts a large object from a reader.
    ///
    /// # Errors
    /// A refusal by `storage`.
    pub async fn put_large(
        &self,
        name: &str,
        mut reader: impl AsyncRead + Unpin,
    ) -> Result<(), Refusal> {
        let mut upload = self.inner.put_multipart(&self.key(name)).await.map_err(failed)?;
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = (&mut reader).take(PIECE as u64).read_to_end(&mut piece).await;
            if read.map_err(failed)? == 0 {
                break;
            }
            upload.put_part(PutPayload::from(piece)).await.map_err(failed)?;
        }
        upload.complete().await.map(|_| ()).map_err(failed)
    }

    /// Puts a finished file, which is durable already. A folder on the same disk
    /// takes it as it is; otherwise it is copied, and stays where it was.
    ///
    /// # Errors
    /// A refusal by `storage`.
    pub async fn put_file(&self, name: &str, file: &Path) -> Result<(), Refusal> {
        if let Some(folder) = &self.folder {
            let place = folder.join(self.key(name).as_ref());
            if let Some(parent) = place.parent() {
                std::fs::create_dir_all(parent).map_err(failed)?;
                sync_folder(parent).map_err(failed)?;
            }
            if std::fs::rename(file, &place).is_ok() {
                return sync_folder(&place).map_err(failed);
            }
        }
        self.put_large(name, tokio::fs::File::open(file).await.map_err(failed)?).await
    }

    /// A whole document; `None` if there is none.
    ///
    /// # Errors
    /// A refusal by `storage`.
    pub async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, Refusal> {
        match self.inner.get(&self.key(name)).await {
            Ok(found) if found.meta.size > MAX_DOCUMENT => {
                Err(failed(format!("{name} is {} bytes long", found.meta.size)))
            }
            Ok(found) => found.bytes().await.map(|bytes| Some(bytes.to_vec())).map_err(failed),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// The length of an object; `None` if there is none.
    ///
    /// # Errors
    /// A refusal by `storage`.
    pub async fn length(&self, name: &str) -> Result<Option<u64>, Refusal> {
        match self.inner.head(&self.key(name)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// A range of an object, as a stream.
    ///
    /// # Errors
    /// A refusal by `storage`.
    pub async fn stream(
        &self,
        name: &str,
        range: Range<u64>,
    ) -> Result<impl futures_util::Stream<Item = std::io::Result<Bytes>> + use<>, Refusal> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..Default::default() };
        let found = self.inner.get_opts(&self.key(name), options).await.map_err(failed)?;
        Ok(found.into_stream().map(|piece| piece.map_err(std::io::Error::other)))
    }

    /// Forgets an object, if it is there.
    ///
    /// # Errors
    /// A refusal by `storage`.
    pub async fn delete(&self, name: &str) -> Result<(), Refusal> {
        match self.inner.delete(&self.key(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// The names below a folder, each relative to it.
    ///
    /// # Errors
    /// A refusal by `storage`.
    pub async fn list(&self, folder: &str) -> Result<Vec<String>, Refusal> {
        let key = self.key(folder);
        let strip = format!("{key}/");
        let found: Vec<_> = self.inner.list(Some(&key)).try_collect().await.map_err(failed)?;
        let name = |meta: object_store::ObjectMeta| {
            meta.location.as_ref().strip_prefix(&strip).map(str::to_owned)
        };
        let mut names: Vec<_> = found.into_iter().filter_map(name).collect();
        names.sort();
        Ok(names)
    }
}

/// Removes what a crash left half written: `LocalFileSystem` writes to a name
/// with `#` and a number behind it, which no finished object has.
fn forget_unfinished(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forget_unfinished(&entry.path())?;
        } else if entry.file_name().to_string_lossy().contains('#') {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_put_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::folder(folder.path()).unwrap();
        assert_eq!(store.get("studies/a").await.unwrap(), None);
        store.put("studies/a/b", b"one".to_vec()).await.unwrap();
        store.put("studies/a/c/d", b"two".to_vec()).await.unwrap();
        store.put_large("big", &b"hello"[..]).await.unwrap();
        let file = folder.path().with_extension("staged");
        std::fs::write(&file, b"moved").unwrap();
        store.put_file("objects/ab", &file).await.unwrap();
        assert_eq!(store.get("objects/ab").await.unwrap().unwrap(), b"moved");
        assert!(!file.exists());
        assert_eq!(store.get("studies/a/b").await.unwrap().unwrap(), b"one");
        assert_eq!(store.list("studies").await.unwrap(), ["a/b", "a/c/d"]);
        assert_eq!(store.length("big").await.unwrap(), Some(5));
        let pieces: Vec<_> = store.stream("big", 1..4).await.unwrap().try_collect().await.unwrap();
        assert_eq!(pieces.concat(), b"ell");
        assert!(Store::url("nonsense").is_err());
    }
}
