use super::*;
use std::path::PathBuf;
use tempfile::TempDir;

struct Place {
    folder: TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::folder(&folder.path().join("store")).unwrap();
        Self { folder, store }
    }

    async fn open(&self) -> anyhow::Result<Log> {
        Log::open(&self.store, self.folder.path(), Some("log.example")).await
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("store/log").join(name)
    }

    async fn size(&self, log: &Log) -> u64 {
        restore(&self.store, &log.signer).await.unwrap().edge.size()
    }
}

fn entry(i: u32) -> Entry {
    let length = if i.is_multiple_of(7) { 3000 } else { 20 };
    let bytes = [&i.to_be_bytes()[..], &vec![0; length]].concat();
    let leaf = Leaf::said(Kind::Commit, Digest::of(&[&bytes]), &bytes).unwrap();
    Entry::new(leaf, vec![bytes])
}

#[tokio::test]
async fn leaves_stand_once_and_survive_a_restart() {
    let place = Place::new();
    let log = place.open().await.unwrap();
    for i in 0..300 {
        log.append(&place.store, vec![entry(i), entry(i / 2)]).await.unwrap();
    }
    assert_eq!(place.size(&log).await, 300);
    drop(log);
    let log = place.open().await.unwrap();
    // The checkpoint that ended with a leaf, at every kind of edge.
    for i in [0u32, 7, 254, 255, 256, 299] {
        let bytes = entry(i).bytes.remove(0);
        let found = log.find(&place.store, Kind::Commit, &Digest::of(&[&bytes])).await.unwrap();
        assert_eq!(found.leaf, u64::from(i));
        let mut edge = Edge::new();
        for i in 0..=i {
            edge.push(&entry(i).leaf.encode().unwrap(), &mut Vec::new()).unwrap();
        }
        let then = SignedCheckpoint::sign(edge.size(), edge.root(), &log.signer).unwrap();
        assert_eq!(*found.checkpoint.as_bytes(), then.checkpoint().digest());
    }
    assert!(log.find(&place.store, Kind::Commit, &Digest::new([0; 32])).await.is_err());
    log.append(&place.store, (0..310).map(entry).collect()).await.unwrap();
    assert_eq!(place.size(&log).await, 310);
    // Partial tiles make way for full ones, older checkpoints read these.
    assert!(place.file("tile/entries/000").exists());
    assert!(!place.file("tile/entries/000.p/255").exists());
    assert!(place.file("tile/entries/001.p/54").exists());
    let objects = std::fs::read_dir(place.file("objects")).unwrap().count();
    assert_eq!(objects, 45);
}

/// A host that is killed leaves some of the files of an append: after each
/// of them the log is what it was, and goes on.
#[tokio::test]
async fn an_append_that_is_cut_anywhere_leaves_a_log_that_goes_on() {
    let place = Place::new();
    let log = place.open().await.unwrap();
    log.append(&place.store, (0..254).map(entry).collect()).await.unwrap();
    for i in 254..260 {
        let log = place.open().await.unwrap();
        let checkpoint = std::fs::read(place.file("checkpoint")).unwrap();
        let known: HashSet<_> = place.store.list(FOLDER).await.unwrap().into_iter().collect();
        let pruned: Vec<_> = known
            .iter()
            .map(|name| (name.clone(), std::fs::read(place.file(name)).unwrap()))
            .collect();
        // Another leaf came first, of which all but the checkpoint was written.
        log.append(&place.store, vec![entry(1000 + i)]).await.unwrap();
        std::fs::write(place.file("checkpoint"), &checkpoint).unwrap();
        for (name, bytes) in pruned {
            std::fs::create_dir_all(place.file(&name).parent().unwrap()).unwrap();
            std::fs::write(place.file(&name), bytes).unwrap();
        }
        let log = place.open().await.unwrap();
        assert_eq!(place.size(&log).await, u64::from(i));
        log.append(&place.store, vec![entry(i)]).await.unwrap();
        assert_eq!(place.size(&log).await, u64::from(i) + 1);
        *log.standing.lock().await = None;
        log.append(&place.store, vec![entry(i)]).await.unwrap();
        assert_eq!(place.size(&log).await, u64::from(i) + 1);
    }
}

#[tokio::test]
async fn a_log_that_was_cut_or_changed_or_signed_by_another_is_not_opened() {
    let place = Place::new();
    let log = place.open().await.unwrap();
    log.append(&place.store, (0..300).map(entry).collect()).await.unwrap();
    drop(log);
    for name in ["tile/entries/000", "tile/0/000", "tile/entries/001.p/44", "checkpoint"] {
        let path = place.file(name);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(place.open().await.is_err(), "{name}");
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        assert!(place.open().await.is_err(), "{name}");
        std::fs::write(&path, &bytes).unwrap();
    }
    place.open().await.unwrap();
    let other = Log::open(&place.store, place.folder.path(), Some("other.example")).await;
    assert!(other.err().unwrap().to_string().contains("other.example"));
    // Without its key the log cannot go on, and is not begun anew.
    std::fs::remove_file(place.folder.path().join("log.key")).unwrap();
    let error = place.open().await.err().unwrap().to_string();
    assert!(error.contains("log.key"), "{error}");
}
