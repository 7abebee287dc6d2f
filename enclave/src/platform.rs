//! Which platform this enclave runs on: by what is there, never by guess.
//!
//! A Nitro enclave has the device of its security module, a Confidential Space
//! the launcher's socket. An environment with neither is no enclave, and one
//! with both is none that is known; both are errors, and only an argument, which
//! is measured on either platform, decides otherwise.

use sealfold_protocol::endpoint::Endpoint;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The device of the Nitro Security Module.
pub const NSM: &str = "/dev/nsm";
/// The socket of a Confidential Space's launcher.
pub const LAUNCHER: &str = "/run/container_launcher/teeserver.sock";

/// Where the parent's record door is, from within a Nitro enclave.
const NITRO_DOOR: Endpoint = Endpoint::Vsock { cid: 3, port: 5001 };
/// Where a Nitro enclave listens: on whatever context identifier it has.
const NITRO_LISTEN: Endpoint = Endpoint::Vsock { cid: u32::MAX, port: 5000 };

/// A platform that attests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Platform {
    /// An AWS Nitro enclave.
    Nitro,
    /// A Google Confidential Space.
    ConfidentialSpace,
}

/// Why no platform was chosen, or what it lacks.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// This is no enclave.
    #[error(
        "platform: expected {nsm} (there is no NSM device) or {launcher} (a Confidential Space's \
         launcher), found neither; this program runs inside an enclave (docs/development.md says \
         how to simulate one)"
    )]
    Neither {
        /// Where the NSM's device was looked for.
        nsm: PathBuf,
        /// Where the launcher's socket was looked for.
        launcher: PathBuf,
    },
    /// This is no enclave that is known.
    #[error(
        "platform: expected {nsm} or {launcher}, found both; say which it is with --platform nitro \
         or --platform confidential-space"
    )]
    Both {
        /// The NSM's device.
        nsm: PathBuf,
        /// The launcher's socket.
        launcher: PathBuf,
    },
    /// Whether something is there cannot be said.
    #[error("platform: expected to see whether {path} is there, found: {error}")]
    Hidden {
        /// What was looked for.
        path: PathBuf,
        /// Why it was not seen.
        error: String,
    },
    /// A Confidential Space has no parent at a fixed address.
    #[error(
        "record door: expected its address, found none; the operator names the host with \
         tee-env-SEALFOLD_DOOR=tcp://ADDRESS:5001 (--door)"
    )]
    NoDoor,
}

impl Platform {
    /// The platform whose device or socket is there, unless one is forced.
    ///
    /// # Errors
    /// [`PlatformError`] if neither or both are there, or that cannot be said.
    pub fn choose(
        forced: Option<Self>,
        nsm: &Path,
        launcher: &Path,
    ) -> Result<Self, PlatformError> {
        if let Some(platform) = forced {
            return Ok(platform);
        }
        let both = || (nsm.to_owned(), launcher.to_owned());
        match (is_there(nsm)?, is_there(launcher)?) {
            (true, false) => Ok(Self::Nitro),
            (false, true) => Ok(Self::ConfidentialSpace),
            (false, false) => {
                let (nsm, launcher) = both();
                Err(PlatformError::Neither { nsm, launcher })
            }
            (true, true) => {
                let (nsm, launcher) = both();
                Err(PlatformError::Both { nsm, launcher })
            }
        }
    }

    /// Where the enclave listens if nothing else is said.
    #[must_use]
    pub fn listen(self) -> Endpoint {
        match self {
            Self::Nitro => NITRO_LISTEN,
            Self::ConfidentialSpace => Endpoint::Tcp("0.0.0.0:5000".to_owned()),
        }
    }

    /// Where the record door is: a Nitro enclave has one parent, a Confidential
    /// Space has to be told.
    ///
    /// # Errors
    /// [`PlatformError::NoDoor`].
    pub fn door(self, told: Option<Endpoint>) -> Result<Endpoint, PlatformError> {
        match (told, self) {
            (Some(door), _) => Ok(door),
            (None, Self::Nitro) => Ok(NITRO_DOOR),
            (None, Self::ConfidentialSpace) => Err(PlatformError::NoDoor),
        }
    }
}

fn is_there(path: &Path) -> Result<bool, PlatformError> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => {
            Err(PlatformError::Hidden { path: path.to_owned(), error: error.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_what_is_there_and_neither_or_both_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let (nsm, launcher) = (folder.path().join("nsm"), folder.path().join("teeserver.sock"));
        let choose = |forced| Platform::choose(forced, &nsm, &launcher);
        assert!(matches!(choose(None), Err(PlatformError::Neither { .. })));
        let error = choose(None).unwrap_err().to_string();
        assert!(error.contains("no NSM device") && error.contains("found neither"), "{error}");
        std::fs::write(&launcher, b"").unwrap();
        assert_eq!(choose(None), Ok(Platform::ConfidentialSpace));
        std::fs::write(&nsm, b"").unwrap();
        let error = choose(None).unwrap_err();
        assert!(matches!(error, PlatformError::Both { .. }));
        assert!(error.to_string().contains("--platform"), "{error}");
        for forced in [Platform::Nitro, Platform::ConfidentialSpace] {
            assert_eq!(choose(Some(forced)), Ok(forced));
        }
        std::fs::remove_file(&launcher).unwrap();
        assert_eq!(choose(None), Ok(Platform::Nitro));
    }

    #[test]
    fn what_cannot_be_looked_for_is_not_taken_for_absent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let error = Platform::choose(None, &file.join("nsm"), &file).unwrap_err();
        assert!(matches!(error, PlatformError::Hidden { .. }), "{error}");
    }

    #[test]
    fn only_a_nitro_enclave_knows_its_parent() {
        let told: Endpoint = "tcp://10.0.0.2:5001".parse().unwrap();
        for platform in [Platform::Nitro, Platform::ConfidentialSpace] {
            assert_eq!(platform.door(Some(told.clone())), Ok(told.clone()));
        }
        assert_eq!(Platform::Nitro.door(None).unwrap().to_string(), "vsock://3:5001");
        assert_eq!(Platform::ConfidentialSpace.door(None), Err(PlatformError::NoDoor));
        assert_eq!(Platform::Nitro.listen().to_string(), "vsock://4294967295:5000");
        assert_eq!(Platform::ConfidentialSpace.listen().to_string(), "tcp://0.0.0.0:5000");
    }
}
