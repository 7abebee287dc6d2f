//! The Nitro Security Module: the device `/dev/nsm` of a Nitro enclave.

use super::{Attester, EvidenceError};
use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use aws_nitro_enclaves_nsm_api::driver;
use sealfold_protocol::Secret;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long the NSM may take for one document; it takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(20);

/// An open NSM device. The driver's call blocks for as long as the device
/// does, so it is made by a thread of its own, which can be waited for in time.
#[derive(Debug)]
pub struct Nsm {
    driver: Mutex<Driver>,
    timeout: Duration,
}

/// The driver's thread. It has one request at a time.
#[derive(Debug)]
struct Driver {
    requests: SyncSender<Request>,
    responses: Receiver<Response>,
    /// A request was not answered in time, and may still be.
    owes: bool,
}

fn failed(reason: impl Into<String>) -> EvidenceError {
    EvidenceError { source_name: "/dev/nsm", reason: reason.into() }
}

impl Nsm {
    /// Opens the device.
    ///
    /// # Errors
    /// If there is none, as outside a Nitro enclave.
    pub fn open() -> Result<Self, EvidenceError> {
        let descriptor = driver::nsm_init();
        if descriptor < 0 {
            return Err(failed(
                "there is no NSM device; this program runs inside a Nitro enclave \
                 (see docs/development.md for a simulation)",
            ));
        }
        // Open for as long as the enclave runs.
        Ok(Self::over(move |request| driver::nsm_process_request(descriptor, request), TIMEOUT))
    }

    fn over(process: impl Fn(Request) -> Response + Send + 'static, timeout: Duration) -> Self {
        let (requests, to_do) = sync_channel(1);
        let (done, responses) = sync_channel(1);
        std::thread::spawn(move || {
            while let Ok(request) = to_do.recv() {
                if done.send(process(request)).is_err() {
                    return;
                }
            }
        });
        Self { driver: Mutex::new(Driver { requests, responses, owes: false }), timeout }
    }

    fn ask(&self, request: Request) -> Result<Response, EvidenceError> {
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        // An answer that came after its asker had gone is nobody's.
        if driver.owes && driver.responses.try_recv().is_err() {
            return Err(failed("the NSM has not answered the last request"));
        }
        driver.requests.send(request).map_err(|_| failed("the NSM's driver has ended"))?;
        driver.owes = true;
        let late = |_| failed(format!("the NSM did not answer in {} s", self.timeout.as_secs()));
        let response = driver.responses.recv_timeout(self.timeout).map_err(late)?;
        driver.owes = false;
        Ok(response)
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
        match self.ask(request)? {
            Response::Attestation { document } => Ok(document),
            Response::Error(code) => Err(failed(format!("{code:?}"))),
            _ => Err(failed("answered another request than was asked")),
        }
    }

    fn random(&self) -> Result<Secret, EvidenceError> {
        match self.ask(Request::GetRandom)? {
            Response::GetRandom { random } => {
                let random = Zeroizing::new(random);
                let bytes = random.first_chunk().ok_or_else(|| {
                    failed(format!("gave {} bytes of randomness, expected 32", random.len()))
                })?;
                Ok(Secret::copy_of(bytes))
            }
            Response::Error(code) => Err(failed(format!("{code:?}"))),
            _ => Err(failed("answered another request than was asked")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_nitro_enclaves_nsm_api::api::ErrorCode;

    fn reason(nsm: &Nsm) -> String {
        nsm.attest(&[1; 32], &[2; 32]).unwrap_err().to_string()
    }

    #[test]
    fn errors_and_other_answers_of_the_nsm_are_named() {
        let nsm = Nsm::over(|_| Response::Error(ErrorCode::InternalError), TIMEOUT);
        assert_eq!(reason(&nsm), "/dev/nsm: InternalError");
        let nsm = Nsm::over(|_| Response::GetRandom { random: vec![] }, TIMEOUT);
        assert!(reason(&nsm).contains("another request"));
        let nsm = Nsm::over(|_| Response::Attestation { document: vec![7] }, TIMEOUT);
        assert_eq!(nsm.attest(&[1; 32], &[2; 32]).unwrap(), [7]);
        assert_eq!(nsm.attest(&[1; 32], &[2; 32]).unwrap(), [7]);
    }

    #[test]
    fn randomness_is_as_much_as_was_asked_for() {
        let nsm = Nsm::over(|_| Response::GetRandom { random: vec![7; 256] }, TIMEOUT);
        assert_eq!(nsm.random().unwrap().as_bytes(), &[7; 32]);
        let nsm = Nsm::over(|_| Response::GetRandom { random: vec![7; 31] }, TIMEOUT);
        assert!(nsm.random().unwrap_err().to_string().contains("31 bytes"));
        let nsm = Nsm::over(|_| Response::Error(ErrorCode::InternalError), TIMEOUT);
        assert!(nsm.random().is_err());
    }

    #[test]
    fn an_nsm_that_does_not_answer_is_not_waited_for() {
        let (let_go, held) = sync_channel(0);
        let answer = move |_| {
            let byte = held.recv().unwrap();
            Response::Attestation { document: vec![byte] }
        };
        let mut nsm = Nsm::over(answer, Duration::from_millis(20));
        assert!(reason(&nsm).contains("did not answer"));
        assert!(reason(&nsm).contains("has not answered the last request"));
        // The late answer is dropped; the next request has its own.
        nsm.timeout = TIMEOUT;
        let other = std::thread::spawn(move || [1, 2].map(|byte| let_go.send(byte).unwrap()));
        let document = loop {
            match nsm.attest(&[1; 32], &[2; 32]) {
                Err(error) if error.reason.contains("last request") => std::thread::yield_now(),
                other => break other.unwrap(),
            }
        };
        assert_eq!(document, [2]);
        other.join().unwrap();
    }
}
