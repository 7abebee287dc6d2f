//! Witnesses ([C2SP tlog-witness]): others who are asked to cosign the log's
//! checkpoints, so that its readers need not believe this host alone.
//!
//! A witness remembers the last checkpoint that it cosigned and cosigns the next
//! only with a proof that it continues that one. It sees numbers and hashes,
//! nothing else. Each has a task of its own: one that is slow or gone holds up
//! nobody but the sites whose policy demands it.
//!
//! [C2SP tlog-witness]: https://c2sp.org/tlog-witness

use crate::cosigned;
use crate::host::Host;
use crate::log::FOLDER;
use metrics::gauge;
use sealfold_attestation::log::note::{KeyKind, MAX_NOTE};
use sealfold_attestation::log::proof::Tree;
use sealfold_attestation::log::tile::narrow;
use sealfold_attestation::log::{LogError, NoteKey, SignedCheckpoint, Tile, TileReader};
use sealfold_protocol::text::shown;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use url::Url;

/// How often the log is looked at.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause after a witness that did not cosign.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// How long a witness may take to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// A witness of this host's log.
#[derive(Debug, Clone)]
pub struct Witness {
    /// The key of its cosignatures.
    pub key: NoteKey,
    /// Where it is asked; without it, it comes by itself.
    pub url: Option<Url>,
}

impl FromStr for Witness {
    type Err = String;

    /// `KEY`, or `KEY URL`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, url) = text.split_once(' ').map_or((text, None), |(key, url)| (key, Some(url)));
        let key: NoteKey = key.parse().map_err(|error: LogError| error.to_string())?;
        if key.kind() != KeyKind::CosignatureV1 {
            return Err(format!("expected a key for cosignatures, found {key}"));
        }
        let url = url.map(str::trim).map(|url| match Url::parse(url) {
            Ok(url) if ["http", "https"].contains(&url.scheme()) => Ok(url),
            _ => Err(format!("expected the witness's URL behind its key, found {url:?}")),
        });
        Ok(Self { key, url: url.transpose()? })
    }
}

/// What a witness answered.
enum Answer {
    /// Lines of signatures.
    Cosigned(String),
    /// It has seen a checkpoint of this size.
    Seen(u64),
}

/// Starts a task for every witness that is to be asked.
pub fn start(host: &Arc<Host>) {
    for witness in &host.terms.witnesses {
        if let Some(url) = &witness.url {
            tokio::spawn(watch(host.clone(), witness.key.clone(), url.clone()));
        }
    }
}

/// Asks one witness whenever the log has grown, until the process ends.
async fn watch(host: Arc<Host>, witness: NoteKey, url: Url) {
    let (mut cosigned, mut pause, mut said) = (0, PAUSE, String::new());
    loop {
        let size = host.log.size().await;
        if size.is_some_and(|size| size > cosigned) {
            match ask(&host, &witness, &url).await {
                Ok(size) => {
                    cosigned = size;
                    pause = PAUSE;
                    said.clear();
                    #[allow(clippy::cast_precision_loss)] // a figure to look at
                    gauge!("sealfold_witness_size", "witness" => witness.name().to_owned())
                        .set(size as f64);
                }
                Err(reason) => {
                    if reason != said {
                        tracing::warn!(
                            witness = witness.name(),
                            reason,
                            "a witness does not cosign"
                        );
                        said = reason;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Asks for a cosignature of the latest checkpoint, and keeps it. The size of the
/// checkpoint that the witness has cosigned now.
///
/// A witness is asked even if the store holds its cosignature already: the store
/// may be an old copy, and only the witness knows.
async fn ask(host: &Arc<Host>, witness: &NoteKey, url: &Url) -> Result<u64, String> {
    let own = host.log.key();
    let name = format!("{FOLDER}/checkpoint");
    let bytes = host.store.get(&name).await.map_err(|error| error.to_string())?;
    let bytes = bytes.ok_or("the log has no checkpoint")?;
    let size = SignedCheckpoint::open(&bytes, own).map_err(|error| error.to_string())?.size();
    let kept = host.store.get(&cosigned::place(witness)).await.ok().flatten();
    let kept = kept.and_then(|bytes| SignedCheckpoint::open(&bytes, own).ok());
    let mut old = kept.map_or(0, |kept| kept.size());
    // A second time with the size that it remembers, if that is another one.
    for _ in 0..2 {
        if old > size {
            return Err(format!(
                "it has seen {old} leaves, this log has {size}: an old copy of the log was put \
                 back, and no site that knows the newer one will commit"
            ));
        }
        let request = request(host, old, size, &bytes).await?;
        let (to, asked) = (url.clone(), spawn_blocking);
        match asked(move || post(&to, &request)).await.map_err(|error| error.to_string())?? {
            Answer::Seen(seen) if seen == old => {
                return Err(format!("it has seen {seen} leaves, as was said, and refused"));
            }
            Answer::Seen(seen) => old = seen,
            Answer::Cosigned(lines) => {
                let note = [&bytes[..], lines.as_bytes()].concat();
                let kept = cosigned::keep(host, &note).await;
                kept.map_err(|refusal| refusal.to_string())?;
                return Ok(size);
            }
        }
    }
    Err("it says each time that it has seen another size".to_owned())
}

/// The body: the size that the witness has seen, a proof, the checkpoint.
async fn request(
    host: &Arc<Host>,
    old: u64,
    size: u64,
    checkpoint: &[u8],
) -> Result<Vec<u8>, String> {
    let tiles = Tiles { host: host.clone(), handle: Handle::current() };
    let proof = spawn_blocking(move || match old {
        0 => Ok(Vec::new()),
        old => Tree::new(&tiles, size).consistency(old),
    });
    let proof = proof.await.map_err(|error| error.to_string())?;
    let proof = proof.map_err(|error| error.to_string())?;
    let mut body = format!("old {old}\n");
    for hash in proof {
        body.push_str(&format!("{hash}\n"));
    }
    body.push('\n');
    Ok([body.as_bytes(), checkpoint].concat())
}

fn post(url: &Url, request: &[u8]) -> Result<Answer, String> {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(ANSWER))
        .build()
        .new_agent();
    let to = format!("{}/add-checkpoint", url.as_str().trim_end_matches('/'));
    let mut reply = agent.post(to).send(request).map_err(|error| error.to_string())?;
    let status = reply.status().as_u16();
    let text = reply.body_mut().with_config().limit(MAX_NOTE as u64).read_to_string();
    let text = text.map_err(|error| error.to_string())?;
    match status {
        200 => Ok(Answer::Cosigned(text)),
        409 => match text.trim_end().parse() {
            Ok(seen) => Ok(Answer::Seen(seen)),
            Err(_) => Err(format!("status 409 without a size: {}", beginning(&text))),
        },
        404 => Err("it does not know this log; give its operator the log's key".to_owned()),
        status => Err(format!("status {status}: {}", beginning(&text))),
    }
}

/// The beginning of what a witness answered.
fn beginning(text: &str) -> String {
    shown(text).chars().take(200).collect()
}

/// The store's tiles, for code that waits.
struct Tiles {
    host: Arc<Host>,
    handle: Handle,
}

impl Tiles {
    fn get(&self, tile: &Tile) -> Result<Option<Vec<u8>>, LogError> {
        let path = tile.to_string();
        let found = self.handle.block_on(self.host.store.get(&format!("{FOLDER}/{path}")));
        found.map_err(|error| LogError::Unreadable { path, reason: error.to_string() })
    }
}

impl TileReader for Tiles {
    /// A tile; where the log has grown since, what the full one begins with.
    fn read(&self, tile: &Tile) -> Result<Vec<u8>, LogError> {
        if let Some(bytes) = self.get(tile)? {
            return Ok(bytes);
        }
        let full = tile.filled();
        let missing = || LogError::Unreadable {
            path: tile.to_string(),
            reason: "it is not in the store".to_owned(),
        };
        narrow(tile, &full, &self.get(&full)?.ok_or_else(missing)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealfold_attestation::log::NoteSigner;

    #[test]
    fn a_witness_is_a_key_and_where_it_is_asked() {
        let key = |kind| NoteSigner::from_seed("w", kind, &[1; 32]).unwrap().key().to_string();
        let cosigns = key(KeyKind::CosignatureV1);
        assert!(cosigns.parse::<Witness>().unwrap().url.is_none());
        let asked: Witness = format!("{cosigns} https://witness.example/prefix").parse().unwrap();
        assert_eq!(asked.url.unwrap().as_str(), "https://witness.example/prefix");
        for wrong in
            ["x", &key(KeyKind::Ed25519), &format!("{cosigns} ftp://x"), &format!("{cosigns} ")]
        {
            assert!(wrong.parse::<Witness>().is_err(), "{wrong}");
        }
    }
}
