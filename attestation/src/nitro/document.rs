//! The document's bytes: one strict reading of envelope and payload.
//!
//! The envelope is malleable in lenient parsers (tags, an unprotected header,
//! longer lengths than needed), so exactly one encoding is accepted here, with
//! or without the tag of `COSE_Sign1`. The payload is signed as it stands, so
//! any encoding of CBOR will do there; genuine documents use maps of definite
//! and of indefinite length. Duplicate and unknown keys are refused.

use super::MAX_DOCUMENT;
use crate::verdict::CheckName;
use minicbor::Decoder;
use minicbor::data::Type;
use std::collections::BTreeMap;

/// The protected header: algorithm ES384.
pub const PROTECTED: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];
/// The length of an ES384 signature: r and s.
pub const SIGNATURE: usize = 96;

/// Limits of the NSM's specification, in bytes.
const MAX_PAYLOAD: usize = 16_384;
const MAX_PUBLIC_KEY: usize = 1024;
const MAX_USER_DATA: usize = 512;
const MAX_CERTIFICATE: usize = 1024;
const MAX_PCRS: usize = 32;
/// No genuine chain comes near.
const MAX_BUNDLE: usize = 16;

/// What a document says, not verified by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The NSM's identity.
    pub module_id: String,
    /// When it was signed, in milliseconds since 1970.
    pub timestamp: u64,
    /// Platform configuration registers by index.
    pub pcrs: BTreeMap<u8, Vec<u8>>,
    /// The leaf certificate, DER.
    pub certificate: Vec<u8>,
    /// The other certificates, root first, DER.
    pub cabundle: Vec<Vec<u8>>,
    /// A public key of the enclave's.
    pub public_key: Option<Vec<u8>>,
    /// User data of the enclave's.
    pub user_data: Option<Vec<u8>>,
    /// The asker's nonce.
    pub nonce: Option<Vec<u8>>,
}

/// Why bytes are no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{check}: expected {expected}, found {found}")]
pub struct DocumentError {
    /// The check that failed.
    pub check: CheckName,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

/// An envelope taken apart.
pub(crate) struct Envelope<'a> {
    pub payload: &'a [u8],
    pub signature: &'a [u8],
}

fn error(check: CheckName, expected: &str, found: impl ToString) -> DocumentError {
    DocumentError { check, expected: expected.to_owned(), found: found.to_string() }
}

impl<'a> Envelope<'a> {
    /// Takes the one encoding apart: `[d2] 84 44 a1013822 a0 <bstr> 5860 <96>`.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, DocumentError> {
        let wrong = |expected: &str, found: String| error(CheckName::Envelope, expected, found);
        if bytes.len() > MAX_DOCUMENT {
            return Err(wrong("at most 17,408 bytes", "more".to_owned()));
        }
        let start = |bytes: &[u8]| hex::encode(&bytes[..bytes.len().min(8)]);
        let body = bytes.strip_prefix(&[0xd2]).unwrap_or(bytes);
        let body = body
            .strip_prefix(&[0x84])
            .ok_or_else(|| wrong("an array of four (84)", start(bytes)))?;
        let (protected, body) =
            byte_string(body).ok_or_else(|| wrong("a protected header", start(body)))?;
        if protected != PROTECTED {
            let found = hex::encode(protected);
            return Err(error(CheckName::Algorithm, "ES384 (a1013822)", found));
        }
        let body = body
            .strip_prefix(&[0xa0])
            .ok_or_else(|| wrong("an empty unprotected header (a0)", start(body)))?;
        let (payload, body) = byte_string(body)
            .ok_or_else(|| wrong("a payload with the shortest length", start(body)))?;
        let signature = body
            .strip_prefix(&[0x58, 0x60])
            .filter(|rest| rest.len() == SIGNATURE)
            .ok_or_else(|| {
                wrong("a signature of 96 bytes and nothing after", format!("{} bytes", body.len()))
            })?;
        Ok(Self { payload, signature })
    }
}

/// A byte string whose length is encoded as shortly as possible.
fn byte_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match bytes {
        [first @ 0x40..=0x57, rest @ ..] => (usize::from(first - 0x40), rest),
        [0x58, length @ 24..=255, rest @ ..] => (usize::from(*length), rest),
        [0x59, high @ 1..=255, low, rest @ ..] => {
            (usize::from(*high) << 8 | usize::from(*low), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

impl Document {
    /// Reads a payload.
    ///
    /// # Errors
    /// [`DocumentError`] naming `payload`, `field-limits` or `algorithm`.
    pub fn parse(payload: &[u8]) -> Result<Self, DocumentError> {
        if payload.len() > MAX_PAYLOAD {
            let found = format!("{} bytes", payload.len());
            return Err(error(CheckName::FieldLimits, "a payload of at most 16,384 bytes", found));
        }
        let fields = Fields::decode(payload)
            .map_err(|e| error(CheckName::Payload, "the map of the NSM's specification", e))?;
        fields.check()
    }

    /// A register; empty if it is not there.
    #[must_use]
    pub fn pcr(&self, index: u8) -> &[u8] {
        self.pcrs.get(&index).map_or(&[], Vec::as_slice)
    }
}

/// A payload's fields before they are checked. A field may be missing, null
/// or there; each is another thing.
#[allow(clippy::option_option)]
#[derive(Default)]
struct Fields {
    module_id: Option<String>,
    digest: Option<String>,
    timestamp: Option<u64>,
    pcrs: Option<BTreeMap<u8, Vec<u8>>>,
    certificate: Option<Vec<u8>>,
    cabundle: Option<Vec<Vec<u8>>>,
    public_key: Option<Option<Vec<u8>>>,
    user_data: Option<Option<Vec<u8>>>,
    nonce: Option<Option<Vec<u8>>>,
}

type Decoded<T> = Result<T, minicbor::decode::Error>;

impl Fields {
    fn decode(payload: &[u8]) -> Decoded<Self> {
        let mut decoder = Decoder::new(payload);
        let mut fields = Self::default();
        let mut left = decoder.map()?;
        while more(&mut decoder, &mut left)? {
            let key = decoder.str()?.to_owned();
            fields.take(&key, &mut decoder)?;
        }
        if decoder.position() != payload.len() {
            return Err(minicbor::decode::Error::message("bytes after the map"));
        }
        Ok(fields)
    }

    fn take(&mut self, key: &str, decoder: &mut Decoder<'_>) -> Decoded<()> {
        match key {
            "module_id" => once(&mut self.module_id, decoder.str()?.to_owned()),
            "digest" => once(&mut self.digest, decoder.str()?.to_owned()),
            "timestamp" => once(&mut self.timestamp, decoder.u64()?),
            "pcrs" => once(&mut self.pcrs, pcrs(decoder)?),
            "certificate" => once(&mut self.certificate, decoder.bytes()?.to_vec()),
            "cabundle" => once(&mut self.cabundle, bundle(decoder)?),
            "public_key" => once(&mut self.public_key, optional(decoder)?),
            "user_data" => once(&mut self.user_data, optional(decoder)?),
            "nonce" => once(&mut self.nonce, optional(decoder)?),
            _ => Err(minicbor::decode::Error::message("an unknown field")),
        }
    }

    fn check(self) -> Result<Document, DocumentError> {
        let missing = |field: &str| error(CheckName::Payload, field, "no such field");
        let digest = self.digest.ok_or_else(|| missing("digest"))?;
        if digest != "SHA384" {
            return Err(error(CheckName::Algorithm, "digest SHA384", digest));
        }
        let document = Document {
            module_id: self.module_id.ok_or_else(|| missing("module_id"))?,
            timestamp: self.timestamp.ok_or_else(|| missing("timestamp"))?,
            pcrs: self.pcrs.ok_or_else(|| missing("pcrs"))?,
            certificate: self.certificate.ok_or_else(|| missing("certificate"))?,
            cabundle: self.cabundle.ok_or_else(|| missing("cabundle"))?,
            public_key: self.public_key.flatten(),
            user_data: self.user_data.flatten(),
            nonce: self.nonce.flatten(),
        };
        document.limits()?;
        Ok(document)
    }
}

impl Document {
    fn limits(&self) -> Result<(), DocumentError> {
        let within = |what: &str, low: usize, high: usize, found: usize| {
            if (low..=high).contains(&found) {
                return Ok(());
            }
            let expected = format!("{what} of {low} to {high}");
            Err(error(CheckName::FieldLimits, &expected, found))
        };
        within("a module id (bytes)", 1, 256, self.module_id.len())?;
        within("a timestamp (ms)", 1, usize::MAX, usize::try_from(self.timestamp).unwrap_or(0))?;
        within("a number of PCRs", 1, MAX_PCRS, self.pcrs.len())?;
        for (index, pcr) in &self.pcrs {
            within("a PCR index", 0, MAX_PCRS - 1, usize::from(*index))?;
            if ![32, 48, 64].contains(&pcr.len()) {
                let found = format!("PCR{index} of {}", pcr.len());
                return Err(error(CheckName::FieldLimits, "PCRs of 32, 48 or 64 bytes", found));
            }
        }
        within("a certificate (bytes)", 1, MAX_CERTIFICATE, self.certificate.len())?;
        within("a CA bundle (certificates)", 1, MAX_BUNDLE, self.cabundle.len())?;
        for certificate in &self.cabundle {
            within("a CA certificate (bytes)", 1, MAX_CERTIFICATE, certificate.len())?;
        }
        for (what, low, high, field) in [
            ("public_key (bytes)", 1, MAX_PUBLIC_KEY, &self.public_key),
            ("user_data (bytes)", 0, MAX_USER_DATA, &self.user_data),
            ("nonce (bytes)", 0, MAX_USER_DATA, &self.nonce),
        ] {
            if let Some(field) = field {
                within(what, low, high, field.len())?;
            }
        }
        Ok(())
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Decoded<()> {
    if place.replace(value).is_some() {
        return Err(minicbor::decode::Error::message("a field twice"));
    }
    Ok(())
}

/// Whether another item of a container follows; `left` is `None` for one of
/// indefinite length, whose end is taken.
fn more(decoder: &mut Decoder<'_>, left: &mut Option<u64>) -> Decoded<bool> {
    match left {
        Some(0) => Ok(false),
        Some(left) => {
            *left -= 1;
            Ok(true)
        }
        None if decoder.datatype()? == Type::Break => {
            decoder.skip()?;
            Ok(false)
        }
        None => Ok(true),
    }
}

fn pcrs(decoder: &mut Decoder<'_>) -> Decoded<BTreeMap<u8, Vec<u8>>> {
    let mut pcrs = BTreeMap::new();
    let mut left = decoder.map()?;
    while more(decoder, &mut left)? {
        let index = decoder.u8()?;
        if pcrs.insert(index, decoder.bytes()?.to_vec()).is_some() {
            return Err(minicbor::decode::Error::message("a PCR twice"));
        }
    }
    Ok(pcrs)
}

fn bundle(decoder: &mut Decoder<'_>) -> Decoded<Vec<Vec<u8>>> {
    let mut bundle = Vec::new();
    let mut left = decoder.array()?;
    while more(decoder, &mut left)? {
        bundle.push(decoder.bytes()?.to_vec());
    }
    Ok(bundle)
}

fn optional(decoder: &mut Decoder<'_>) -> Decoded<Option<Vec<u8>>> {
    if decoder.datatype()? == Type::Null {
        decoder.null()?;
        return Ok(None);
    }
    Ok(Some(decoder.bytes()?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_have_one_encoding() {
        assert_eq!(byte_string(&[0x41, 7, 9]), Some((&[7][..], &[9][..])));
        assert_eq!(byte_string(&[0x58, 1, 7]), None);
        assert_eq!(byte_string(&[0x59, 0, 1, 7]), None);
        assert_eq!(byte_string(&[0x5f, 0x41, 7, 0xff]), None);
        let long = [&[0x58, 24][..], &[0; 24]].concat();
        assert_eq!(byte_string(&long), Some((&[0; 24][..], &[][..])));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Envelope::parse(&bytes);
            let _ = Document::parse(&bytes);
        }
    }
}
