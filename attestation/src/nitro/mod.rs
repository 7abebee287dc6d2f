//! AWS Nitro Enclaves attestation documents.
//!
//! Source: <https://github.com/aws/aws-nitro-enclaves-nsm-api/blob/main/docs/attestation_process.md>.

pub(crate) mod chain;
pub mod document;
pub(crate) mod second_opinion;

pub use document::{Document, DocumentError};
