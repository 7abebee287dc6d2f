//! Signed notes ([signed-note]): a text, and lines of signatures below it.
//!
//! Keys travel as text, `name+hash+key`, as other tools write them: a policy
//! names a log by one such line. Signatures are Ed25519, on `ring`.
//!
//! [signed-note]: https://c2sp.org/signed-note

use super::{LogError, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use std::fmt;
use std::str::FromStr;

/// The longest note: room for the cosignatures of 200 sites and more.
pub const MAX_NOTE: usize = 64 << 10;
/// The most signatures of a note.
pub const MAX_SIGNATURES: usize = 256;
/// What a line of a signature begins with.
const MARK: &str = "\u{2014} ";

/// What a key signs, the first byte of its public form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// A note's text itself: a log's key.
    Ed25519,
    /// A checkpoint and the time: a witness's or a site's key
    /// ([cosignature/v1](super::cosignature)).
    CosignatureV1,
}

impl KeyKind {
    fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 1,
            Self::CosignatureV1 => 4,
        }
    }
}

/// Whose signatures are believed: a name and a public key.
#[derive(Clone, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    kind: KeyKind,
    key: [u8; 32],
}

impl NoteKey {
    /// A key under a name.
    ///
    /// # Errors
    /// [`LogError::Malformed`] if the name is empty or holds a space or a plus.
    pub fn new(name: &str, kind: KeyKind, key: [u8; 32]) -> Result<Self> {
        let is_name = !name.is_empty()
            && name.len() <= 256
            && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+');
        if !is_name {
            let shown: String = name.chars().take(80).collect();
            return Err(LogError::malformed("name of a key", "no space and no plus", shown));
        }
        Ok(Self { name: name.to_owned(), kind, key })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The public key.
    #[must_use]
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// SHA-256 over name, line feed, kind and key: what nobody can give another
    /// key too.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let input = [self.name.as_bytes(), b"\n", &[self.kind.byte()], &self.key].concat();
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, &input).as_ref());
        bytes
    }

    /// What tells keys of one name apart in a note: the first four bytes of the
    /// digest. Somebody with patience finds a second key with the same four.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let [first, second, third, fourth, ..] = self.digest();
        [first, second, third, fourth]
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.key).verify(message, signature).is_ok()
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let public = [&[self.kind.byte()], &self.key[..]].concat();
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id()), BASE64.encode(public))
    }
}

impl fmt::Debug for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteKey({self})")
    }
}

impl FromStr for NoteKey {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let shown: String = text.chars().take(80).collect();
            LogError::malformed("key of a log", "NAME+HASH+KEY of Ed25519", shown)
        };
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(public)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let public = BASE64.decode(public).map_err(|_| wrong())?;
        let (kind, key) = public.split_first().ok_or_else(wrong)?;
        let kind = match kind {
            1 => KeyKind::Ed25519,
            4 => KeyKind::CosignatureV1,
            _ => return Err(wrong()),
        };
        let key = Self::new(name, kind, key.try_into().map_err(|_| wrong())?)?;
        if hex::encode(key.id()) != id {
            return Err(LogError::malformed("key of a log", hex::encode(key.id()), id));
        }
        Ok(key)
    }
}

/// A key that signs notes, under a name.
pub struct NoteSigner {
    pair: Ed25519KeyPair,
    key: NoteKey,
}

impl NoteSigner {
    /// The signer of a 32-byte seed (RFC 8032).
    ///
    /// # Errors
    /// [`LogError::Malformed`] if the name cannot be one, or the seed is
    /// refused.
    pub fn from_seed(name: &str, kind: KeyKind, seed: &[u8; 32]) -> Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|_| LogError::malformed("signing key", "a seed", "one that is refused"))?;
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Ok(Self { pair, key: NoteKey::new(name, kind, public)? })
    }

    /// The key that verifies what it signs.
    #[must_use]
    pub fn key(&self) -> &NoteKey {
        &self.key
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteSigner(public {})", self.key)
    }
}

/// A line of a note: who signed, and what the kind of key makes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureLine {
    /// The key's name.
    pub name: String,
    /// The key's [id](NoteKey::id).
    pub id: [u8; 4],
    /// The signature, for a cosignature with the time before it.
    pub signature: Vec<u8>,
}

/// A note as it came; no signature of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<SignatureLine>,
}

impl Note {
    /// A note without signatures.
    ///
    /// # Errors
    /// [`LogError::Malformed`] if the text does not end with a line feed.
    pub fn new(text: String) -> Result<Self> {
        let is_text = text.ends_with('\n') && !text.contains(|c: char| c.is_control() && c != '\n');
        if !is_text {
            return Err(LogError::malformed("note", "lines of text", "something else"));
        }
        Ok(Self { text, signatures: Vec::new() })
    }

    /// Reads a note.
    ///
    /// # Errors
    /// [`LogError::Malformed`] if it is too long, or is no note.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |found: &str| LogError::malformed("note", "a signed note", found);
        if bytes.len() > MAX_NOTE {
            return Err(wrong(&format!("{} bytes, more than {MAX_NOTE}", bytes.len())));
        }
        let all = std::str::from_utf8(bytes).map_err(|_| wrong("no text"))?;
        let (text, lines) =
            all.rsplit_once("\n\n").ok_or_else(|| wrong("a text without signatures"))?;
        let mut note = Self::new(format!("{text}\n"))?;
        let lines = lines.strip_suffix('\n').ok_or_else(|| wrong("a cut line"))?;
        for line in lines.split('\n') {
            if note.signatures.len() == MAX_SIGNATURES {
                return Err(wrong("too many signatures"));
            }
            let parts = line.strip_prefix(MARK).and_then(|line| line.split_once(' '));
            let (name, signature) = parts.ok_or_else(|| wrong("a line that is no signature"))?;
            let bytes = BASE64.decode(signature).map_err(|_| wrong("a signature not in base64"))?;
            let (id, signature) =
                bytes.split_first_chunk::<4>().ok_or_else(|| wrong("a short signature"))?;
            if name.is_empty() || name.contains(char::is_whitespace) {
                return Err(wrong("a signature without a name"));
            }
            let (name, signature) = (name.to_owned(), signature.to_vec());
            note.signatures.push(SignatureLine { name, id: *id, signature });
        }
        Ok(note)
    }

    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The lines below it.
    #[must_use]
    pub fn signatures(&self) -> &[SignatureLine] {
        &self.signatures
    }

    /// Adds a line, in place of an older one of the same key.
    pub fn add(&mut self, key: &NoteKey, signature: Vec<u8>) {
        let line = SignatureLine { name: key.name.clone(), id: key.id(), signature };
        let same = |known: &&mut SignatureLine| known.name == line.name && known.id == line.id;
        match self.signatures.iter_mut().find(same) {
            Some(known) => *known = line,
            None => self.signatures.push(line),
        }
    }

    /// Signs the text.
    pub fn sign(&mut self, signer: &NoteSigner) {
        self.add(signer.key(), signer.sign(self.text.as_bytes()));
    }

    /// The lines of a key: its name and id are there; whether they verify is
    /// not asked.
    pub fn lines_of<'a>(&'a self, key: &'a NoteKey) -> impl Iterator<Item = &'a SignatureLine> {
        let id = key.id();
        self.signatures.iter().filter(move |line| line.name == key.name && line.id == id)
    }

    /// Expects a signature of the text by a key.
    ///
    /// # Errors
    /// [`LogError::Signature`] if there is none, or one that does not verify.
    pub fn expect(&self, what: &'static str, key: &NoteKey) -> Result<()> {
        let wrong = |found: String| LogError::Signature { what, expected: key.to_string(), found };
        let names = || {
            let names: Vec<_> = self.signatures.iter().map(|line| line.name.as_str()).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        let line = self.lines_of(key).next().ok_or_else(|| wrong(names()))?;
        if key.kind == KeyKind::Ed25519 && key.verifies(self.text.as_bytes(), &line.signature) {
            return Ok(());
        }
        Err(wrong("one that does not verify".to_owned()))
    }

    /// The note as it travels.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut all = format!("{}\n", self.text);
        for line in &self.signatures {
            let signature = [&line.id, &line.signature[..]].concat();
            all.push_str(&format!("{MARK}{} {}\n", line.name, BASE64.encode(signature)));
        }
        all.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of Go's `golang.org/x/mod/sumdb/note`.
    const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
         then you don't know what your problem is.\n\n\
         \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn a_note_of_another_implementation_verifies() {
        let key: NoteKey = GO_KEY.parse().unwrap();
        assert_eq!(key.to_string(), GO_KEY);
        let note = Note::parse(GO_NOTE.as_bytes()).unwrap();
        note.expect("note", &key).unwrap();
        assert_eq!(note.to_bytes(), GO_NOTE.as_bytes());
        let changed = GO_NOTE.replace("problem is", "Problem is");
        let changed = Note::parse(changed.as_bytes()).unwrap();
        assert!(matches!(changed.expect("note", &key), Err(LogError::Signature { .. })));
    }

    #[test]
    fn keys_and_notes_that_are_none_are_refused() {
        for odd in ["", "a", "a+b", "a+00000000+", "a b+c74f20a3+AR", "x+c74f20a3+ARpc2QcUPDhM"] {
            assert!(odd.parse::<NoteKey>().is_err(), "{odd}");
        }
        let other = GO_KEY.replace("PeterNeumann", "Peter");
        assert!(other.parse::<NoteKey>().unwrap_err().to_string().contains("c74f20a3"));
        for end in 0..GO_NOTE.len() {
            let Ok(note) = Note::parse(&GO_NOTE.as_bytes()[..end]) else { continue };
            assert!(note.expect("note", &GO_KEY.parse().unwrap()).is_err(), "{end}");
        }
        assert!(Note::parse(&vec![b'a'; MAX_NOTE + 1]).is_err());
        assert!(Note::new("no line feed".to_owned()).is_err());
        assert!(Note::new("tab\there\n".to_owned()).is_err());
    }

    #[test]
    fn a_signer_signs_under_its_name() {
        let signer = NoteSigner::from_seed("log.example", KeyKind::Ed25519, &[7; 32]).unwrap();
        let mut note = Note::new("hello\n".to_owned()).unwrap();
        note.sign(&signer);
        note.sign(&signer);
        assert_eq!(note.signatures().len(), 1);
        let read = Note::parse(&note.to_bytes()).unwrap();
        read.expect("note", signer.key()).unwrap();
        let other = NoteSigner::from_seed("log.example", KeyKind::Ed25519, &[8; 32]).unwrap();
        let error = read.expect("note", other.key()).unwrap_err().to_string();
        assert!(error.contains("found log.example"), "{error}");
        assert!(!format!("{signer:?}").contains(&hex::encode([7u8; 32])));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_note_that_comes_back_or_none(
            text in "[a-z\n]{0,20}(\n\n)?(\u{2014} )?[a-z]{0,3} ?[A-Za-z0-9+/]{0,12}={0,2}\n?"
        ) {
            if let Ok(note) = Note::parse(text.as_bytes()) {
                prop_assert_eq!(note.to_bytes(), text.into_bytes());
            }
        }
    }
}
