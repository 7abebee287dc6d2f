//! What an independent implementation says of the same document.
//!
//! The crate `attestation-doc-validation` checks structure, chain and signature
//! with other code, other libraries and its own copy of the root. It knows
//! only the current time, and refuses genuine documents whose `user_data` is
//! empty, so it is asked where it can answer: live, under the AWS root. It
//! accepts more than we do (debug images, any measurement, malleable
//! envelopes), so its yes is never enough; its no is.

use attestation_doc_validation::validate_attestation_doc;

/// Asks for the opinion, at the system's time.
pub fn ask(document: &[u8]) -> Result<(), String> {
    validate_attestation_doc(document).map_err(|error| error.to_string())
}
