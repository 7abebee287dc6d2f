//! A host in the hands of a test: it keeps what sites gave it, answers at the
//! record door, and may change whatever it likes.

use crate::http::call;
use crate::process::{self, Server};
use crate::site::{Sealed, pretended};
use sealfold_protocol::api::{
    CheckpointRequest, EnclaveStatus, EnvelopeBody, EvidenceReply, EvidenceRequest, OfferRequest,
};
use sealfold_protocol::bytes::{Envelope, Random};
use sealfold_protocol::door::{Operation, Request, Status};
use sealfold_protocol::endpoint::{Endpoint, Stream};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::Refusal;
use sealfold_protocol::release::Release;
use sealfold_protocol::roster::{Commit, Roster};
use sealfold_protocol::update::Receipt;
use sealfold_protocol::{Digest, Signed, Statement, VerifyingKey};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// Changes the bytes of a read at the door; called with what was asked for.
pub type Tamper = Box<dyn FnMut(&Request, &mut Vec<u8>) + Send>;

#[derive(Default)]
struct Store {
    objects: HashMap<[u8; 32], Vec<u8>>,
    finished: Vec<[u8; 32]>,
    reads: u64,
    tamper: Option<Tamper>,
}

/// The record door of a host that a test controls.
#[derive(Clone)]
pub struct Door {
    store: Arc<Mutex<Store>>,
    /// Where it listens.
    pub endpoint: Endpoint,
}

impl Door {
    /// Opens the door in a folder.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        let endpoint = Endpoint::Unix(folder.join("door.sock"));
        let listener = endpoint.listen().unwrap();
        let door = Self { store: Arc::default(), endpoint };
        let answering = door.clone();
        std::thread::spawn(move || {
            while let Ok(stream) = listener.accept() {
                let door = answering.clone();
                std::thread::spawn(move || door.answer(stream));
            }
        });
        door
    }

    /// Puts an object in place.
    pub fn put(&self, name: [u8; 32], bytes: Vec<u8>) {
        self.store.lock().unwrap().objects.insert(name, bytes);
    }

    /// An object that was finished.
    #[must_use]
    pub fn object(&self, name: &Random) -> Vec<u8> {
        let store = self.store.lock().unwrap();
        assert!(store.finished.contains(name.as_bytes()), "the object was not finished");
        store.objects[name.as_bytes()].clone()
    }

    /// How many reads there were.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.store.lock().unwrap().reads
    }

    /// From now on changes what is read.
    pub fn tamper(&self, tamper: impl FnMut(&Request, &mut Vec<u8>) + Send + 'static) {
        self.store.lock().unwrap().tamper = Some(Box::new(tamper));
    }

    /// From now on honest again.
    pub fn behave(&self) {
        self.store.lock().unwrap().tamper = None;
    }

    fn answer(&self, mut stream: Stream) {
        while let Ok(Some(request)) = Request::read_from(&mut stream) {
            if self.one(&request, &mut stream).is_err() {
                return;
            }
        }
    }

    fn one(&self, request: &Request, stream: &mut Stream) -> std::io::Result<()> {
        let offset = usize::try_from(request.offset).unwrap();
        match request.operation {
            Operation::Read => match self.read(request, offset) {
                Some(bytes) => {
                    Status::Done.write_to(stream)?;
                    stream.write_all(&bytes)
                }
                None => Status::NotFound.write_to(stream),
            },
            Operation::Write => {
                let mut bytes = vec![0; request.length as usize];
                stream.read_exact(&mut bytes)?;
                let mut store = self.store.lock().unwrap();
                let object = store.objects.entry(request.object).or_default();
                object.resize(object.len().max(offset + bytes.len()), 0);
                object[offset..offset + bytes.len()].copy_from_slice(&bytes);
                Status::Done.write_to(stream)
            }
            Operation::Finish => {
                self.store.lock().unwrap().finished.push(request.object);
                Status::Done.write_to(stream)
            }
        }
    }

    fn read(&self, request: &Request, offset: usize) -> Option<Vec<u8>> {
        let mut store = self.store.lock().unwrap();
        store.reads += 1;
        let mut tamper = store.tamper.take();
        let bytes = store
            .objects
            .get(&request.object)
            .and_then(|object| object.get(offset..offset + request.length as usize))
            .map(<[u8]>::to_vec);
        let bytes = bytes.map(|mut bytes| {
            if let Some(tamper) = &mut tamper {
                tamper(request, &mut bytes);
            }
            bytes
        });
        store.tamper = tamper;
        bytes
    }
}

/// A host with its real enclaves.
pub struct HostileHost {
    /// Its folder.
    pub folder: TempDir,
    /// Its record door.
    pub door: Door,
}

impl HostileHost {
    /// A host without an enclave yet.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let door = Door::open(folder.path());
        Self { folder, door }
    }

    /// Starts a real enclave behind this host.
    #[must_use]
    pub fn enclave(&self, name: &str) -> Enclave {
        let (server, endpoint) = process::enclave(self.folder.path(), name, &self.door.endpoint);
        Enclave { server, endpoint }
    }
}

impl Default for HostileHost {
    fn default() -> Self {
        Self::new()
    }
}

/// A real enclave process, as its host reaches it.
pub struct Enclave {
    /// The process.
    pub server: Server,
    /// Where it serves.
    pub endpoint: Endpoint,
}

impl Enclave {
    fn post<T: Statement>(
        &self,
        path: &str,
        body: &Value,
        signer: &VerifyingKey,
    ) -> Result<Signed<T>, Refusal> {
        let reply: EnvelopeBody = call(&self.endpoint, "POST", path, body)?;
        Ok(Signed::open(&reply.envelope.0, signer).unwrap())
    }

    /// Asks for an offer.
    ///
    /// # Errors
    /// The enclave's refusal.
    pub fn offer(&self, request: &OfferRequest) -> Result<Signed<Offer>, Refusal> {
        let reply: EnvelopeBody = call(&self.endpoint, "POST", "/v1/offer", request)?;
        Ok(Offer::open(&reply.envelope.0).unwrap())
    }

    /// Asks for evidence.
    ///
    /// # Errors
    /// The enclave's refusal.
    pub fn evidence(&self, nonce: Random) -> Result<EvidenceReply, Refusal> {
        call(&self.endpoint, "POST", "/v1/evidence", &EvidenceRequest { nonce })
    }

    /// Gives an update in: its bytes to the door, its header to the enclave.
    ///
    /// # Errors
    /// The enclave's refusal.
    pub fn admit(
        &self,
        door: &Door,
        offer: &Signed<Offer>,
        update: &Sealed,
    ) -> Result<Signed<Receipt>, Refusal> {
        door.put(*update.header.digest().as_bytes(), update.bytes.clone());
        self.admit_header(offer, update.header.envelope())
    }

    /// Gives a header in whose bytes are at the door, or not.
    ///
    /// # Errors
    /// The enclave's refusal.
    pub fn admit_header(
        &self,
        offer: &Signed<Offer>,
        header: &[u8],
    ) -> Result<Signed<Receipt>, Refusal> {
        let body = json!({ "envelope": Envelope(header.to_vec()) });
        self.post("/v1/updates", &body, &offer.statement().instance_key)
    }

    /// Asks for the roster.
    ///
    /// # Errors
    /// The enclave's refusal.
    pub fn roster(&self, offer: &Signed<Offer>) -> Result<Signed<Roster>, Refusal> {
        let roster: Signed<Roster> =
            self.post("/v1/roster", &json!({}), &offer.statement().instance_key)?;
        // Once for each roster; a second one is refused, and no harm.
        let _ = self.checkpoint(roster.digest(), pretended(&roster.digest()));
        Ok(roster)
    }

    /// Gives a checkpoint in for a roster.
    ///
    /// # Errors
    /// The enclave's refusal.
    pub fn checkpoint(&self, roster: Digest, checkpoint: Digest) -> Result<(), Refusal> {
        let body = CheckpointRequest { roster, checkpoint };
        call::<_, Value>(&self.endpoint, "POST", "/v1/checkpoint", &body).map(|_| ())
    }

    /// Gives a commit in.
    ///
    /// # Errors
    /// The enclave's refusal.
    pub fn commit(&self, commit: &Signed<Commit>) -> Result<(), Refusal> {
        let body = EnvelopeBody { envelope: Envelope(commit.envelope().to_vec()) };
        call::<_, Value>(&self.endpoint, "POST", "/v1/commits", &body).map(|_| ())
    }

    /// Asks for the release.
    ///
    /// # Errors
    /// The enclave's refusal.
    pub fn release(&self, offer: &Signed<Offer>) -> Result<Signed<Release>, Refusal> {
        self.post("/v1/release", &json!({}), &offer.statement().instance_key)
    }

    /// Where the instance stands.
    #[must_use]
    pub fn status(&self) -> EnclaveStatus {
        call(&self.endpoint, "GET", "/v1/status", &json!({})).unwrap()
    }
}
