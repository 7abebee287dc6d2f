//! AWS Nitro Enclaves attestation documents.
//!
//! Source: <https://github.com/aws/aws-nitro-enclaves-nsm-api/blob/main/docs/attestation_process.md>.

mod appraisal;
pub mod document;
pub(crate) mod second_opinion;
pub(crate) mod signature;

pub(crate) use appraisal::{CHECKS, appraise};
pub use document::{Document, DocumentError};

/// The platform's name.
pub const NAME: &str = "nitro";

/// The longest document in bytes: a payload of 16,384 bytes in its envelope.
pub const MAX_DOCUMENT: usize = 17 << 10;

/// The AWS Nitro Enclaves root G1, DER, from
/// <https://aws-nitro-enclaves.amazonaws.com/AWS_NitroEnclaves_Root-G1.zip>.
pub const AWS_ROOT_G1: &[u8] = include_bytes!("../../roots/aws_nitro_root_g1.der");
