//! The Nitro Security Module: the device `/dev/nsm` of a Nitro enclave.

use super::{Attester, EvidenceError};
use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use aws_nitro_enclaves_nsm_api::driver;
use std::os::fd::RawFd;

/// An open NSM device.
#[derive(Debug)]
pub struct Nsm {
    descriptor: RawFd,
}

impl Nsm {
    /// Opens the device.
    ///
    /// # Errors
    /// If there is none, as outside a Nitro enclave.
    pub fn open() -> Result<Self, EvidenceError> {
        let descriptor = driver::nsm_init();
        if descriptor < 0 {
            return Err(EvidenceError {
                source_name: "/dev/nsm",
                reason: "there is no NSM device; this program runs inside a Nitro enclave \
                         (see docs/development.md for a simulation)"
                    .to_owned(),
            });
        }
        Ok(Self { descriptor })
    }
}

impl Drop for Nsm {
    fn drop(&mut self) {
        driver::nsm_exit(self.descriptor);
    }
}

impl Attester for Nsm {
    fn attest(&self, user_data: &[u8; 32], nonce: &[u8; 32]) -> Result<Vec<u8>, EvidenceError> {
        let request = Request::Attestation {
            user_data: Some(user_data.to_vec().into()),
            nonce: Some(nonce.to_vec().into()),
            // An X-Wing key does not fit into this field; the offer that
            // names it is bound through user_data instead.
            public_key: None,
        };
        match driver::nsm_process_request(self.descriptor, request) {
            Response::Attestation { document } => Ok(document),
            Response::Error(code) => {
                Err(EvidenceError { source_name: "/dev/nsm", reason: format!("{code:?}") })
            }
            _ => Err(EvidenceError {
                source_name: "/dev/nsm",
                reason: "answered another request than was asked".to_owned(),
            }),
        }
    }
}
