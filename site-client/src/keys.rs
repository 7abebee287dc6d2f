//! The site's keys: one signs, one opens releases.
//!
//! Each is a seed of 32 bytes in a file of mode 0600. Under a passphrase the
//! seed is sealed with AES-256-GCM under a key from Argon2id (RFC 9106, with
//! the parameters that it recommends for 64 MiB of memory).

use crate::home::{Home, read_file, write_file};
use crate::{Error, Result};
use argon2::{Algorithm, Argon2, Params, Version};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sealfold_protocol::SigningKey;
use sealfold_protocol::keys::random;
use sealfold_protocol::seal::{PublicKey, public_of};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use zeroize::Zeroizing;

const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// The name and the purpose of an operator's key.
const OPERATOR: &str = "operator";

/// A site's name and keys.
pub struct Keys {
    /// The site's name.
    pub site: String,
    /// Signs updates, commits and approvals.
    pub signing: SigningKey,
    /// The seed of the key that opens releases.
    pub release_seed: Zeroizing<[u8; 32]>,
}

/// A key file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    site: String,
    purpose: String,
    /// The seed, or the seed sealed under a passphrase; hex.
    seed: String,
    /// For a passphrase: 16 bytes of salt and 12 of nonce, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    salt: Option<String>,
}

impl Keys {
    /// Makes keys for a new site.
    ///
    /// # Errors
    /// If there are keys already, or the files cannot be written.
    pub fn create(home: &Home, site: &str, passphrase: Option<&str>) -> Result<Self> {
        let path = home.path("keys/signing.json");
        if path.exists() {
            let found = format!("{}", path.display());
            return Err(Error::input("keys", "a home without keys", found).next(
                "a site keeps its keys; a lost one is replaced by an amendment of the study",
            ));
        }
        let keys = Self {
            site: site.to_owned(),
            signing: SigningKey::generate()?,
            release_seed: Zeroizing::new(random()?),
        };
        store(home, site, "release", &keys.release_seed, passphrase)?;
        store(home, site, "signing", &keys.signing.seed(), passphrase)?;
        Ok(keys)
    }

    /// Loads the keys.
    ///
    /// # Errors
    /// If there are none, others can read them, or the passphrase is wrong.
    pub fn load(home: &Home, passphrase: Option<&str>) -> Result<Self> {
        let (site, signing) = load(&home.path("keys/signing.json"), "signing", passphrase)?;
        let (_, release_seed) = load(&home.path("keys/release.json"), "release", passphrase)?;
        Ok(Self { site, signing: SigningKey::from_seed(&signing)?, release_seed })
    }

    /// The public release key.
    ///
    /// # Errors
    /// Never for a seed of 32 bytes.
    pub fn release_key(&self) -> Result<PublicKey> {
        Ok(public_of(&self.release_seed).map_err(sealfold_protocol::Error::from)?)
    }

    /// The site's entry for a manifest, as TOML.
    ///
    /// # Errors
    /// As [`Keys::release_key`].
    pub fn listing(&self) -> Result<String> {
        Ok(format!(
            "[[site]]\nname = \"{}\"\nsigning_key = \"{}\"\nrelease_key = \"{}\"\n",
            self.site,
            self.signing.verifying_key(),
            self.release_key()?
        ))
    }
}

/// Makes the key of a host's operator.
///
/// # Errors
/// If the file cannot be written.
pub fn create_operator(home: &Home, passphrase: Option<&str>) -> Result<SigningKey> {
    let key = SigningKey::generate()?;
    store(home, OPERATOR, OPERATOR, &key.seed(), passphrase)?;
    Ok(key)
}

/// Loads the key of a host's operator.
///
/// # Errors
/// If there is none, others can read it, or the passphrase is wrong.
pub fn load_operator(home: &Home, passphrase: Option<&str>) -> Result<SigningKey> {
    let path = home.path("keys/operator.json");
    if !path.exists() {
        let expected = format!("an operator's key in {}", path.display());
        return Err(Error::input("keys", expected, "none").next("make it: sealfold operator key"));
    }
    let (_, seed) = load(&path, OPERATOR, passphrase)?;
    Ok(SigningKey::from_seed(&seed)?)
}

fn cipher(passphrase: &str, salt: &[u8]) -> Result<LessSafeKey> {
    let wrong = |_| Error::Usage("the passphrase cannot be used".to_owned());
    let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(32))
        .map_err(|_| Error::Usage("Argon2 does not take its parameters".to_owned()))?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, key.as_mut_slice())
        .map_err(|_| Error::Usage("the passphrase cannot be used".to_owned()))?;
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(wrong)?))
}

fn store(
    home: &Home,
    site: &str,
    purpose: &str,
    seed: &[u8; 32],
    passphrase: Option<&str>,
) -> Result<()> {
    let (seed, salt) = match passphrase {
        None => (Zeroizing::new(hex::encode(seed)), None),
        Some(passphrase) => {
            let salt = random()?[..28].to_vec();
            let mut sealed = seed.to_vec();
            let aad = Aad::from(format!("{site}/{purpose}"));
            cipher(passphrase, &salt[..16])?
                .seal_in_place_append_tag(nonce(&salt)?, aad, &mut sealed)
                .map_err(|_| Error::Usage("the key cannot be sealed".to_owned()))?;
            (Zeroizing::new(hex::encode(sealed)), Some(hex::encode(salt)))
        }
    };
    let file = KeyFile {
        site: site.to_owned(),
        purpose: purpose.to_owned(),
        seed: seed.to_string(),
        salt,
    };
    let path = home.path(&format!("keys/{purpose}.json"));
    let json = Zeroizing::new(serde_json::to_vec_pretty(&file).map_err(|e| Error::file(&path, e))?);
    write_file(&path, &json)
}

fn nonce(salt: &[u8]) -> Result<Nonce> {
    Nonce::try_assume_unique_for_key(&salt[16..28])
        .map_err(|_| Error::Usage("the key file's salt is too short".to_owned()))
}

fn load(
    path: &Path,
    purpose: &str,
    passphrase: Option<&str>,
) -> Result<(String, Zeroizing<[u8; 32]>)> {
    let wrong = |reason: &str| Error::file(path, reason);
    let Some(bytes) = read_file(path)?.map(Zeroizing::new) else {
        let expected = format!("a key in {}", path.display());
        return Err(Error::input("keys", expected, "none").next("make keys: sealfold init"));
    };
    let meta = std::fs::metadata(path).map_err(|e| Error::file(path, e))?;
    if meta.mode() & 0o077 != 0 {
        let (at, mode) = (path.display(), meta.mode() & 0o777);
        return Err(Error::input(
            "key-mode",
            format!("{at} with mode 600, for its owner only"),
            format!("mode {mode:o}: others can read this key"),
        )
        .next("chmod 600, and think of who has read it"));
    }
    let file: KeyFile = serde_json::from_slice(&bytes).map_err(|_| wrong("not a key file"))?;
    if file.purpose != purpose {
        return Err(wrong("the key of another purpose"));
    }
    let mut bytes = Zeroizing::new(hex::decode(&file.seed).map_err(|_| wrong("not a key file"))?);
    if let Some(salt) = &file.salt {
        let at = path.display();
        let passphrase = passphrase.ok_or_else(|| {
            Error::input("passphrase", format!("a passphrase for {at}, which is encrypted"), "none")
                .next("give --passphrase-file or SEALFOLD_PASSPHRASE_FILE")
        })?;
        let salt = hex::decode(salt).ok().filter(|salt| salt.len() == 28);
        let salt = salt.ok_or_else(|| wrong("not a key file"))?;
        let aad = Aad::from(format!("{}/{purpose}", file.site));
        let length = cipher(passphrase, &salt[..16])?
            .open_in_place(nonce(&salt)?, aad, &mut bytes)
            .map_err(|_| {
                let expected = format!("the passphrase that {at} was encrypted under");
                Error::input("passphrase", expected, "another one")
                    .next("give --passphrase-file the right one")
            })?
            .len();
        bytes.truncate(length);
    }
    let mut seed = Zeroizing::new([0; 32]);
    if bytes.len() != seed.len() {
        return Err(wrong("not a key file"));
    }
    seed.copy_from_slice(&bytes);
    Ok((file.site, seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_come_back_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let made = Keys::create(&home, "site-a", None).unwrap();
        let loaded = Keys::load(&home, None).unwrap();
        assert_eq!(loaded.signing.verifying_key(), made.signing.verifying_key());
        assert_eq!(loaded.release_seed, made.release_seed);
        assert!(Keys::create(&home, "site-a", None).is_err());
        let path = home.path("keys/signing.json");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Keys::load(&home, None).err().unwrap().to_string().contains("chmod 600"));
    }

    #[test]
    fn an_operators_key_is_made_once_and_is_no_sites() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let error = load_operator(&home, None).unwrap_err().to_string();
        assert!(error.contains("sealfold operator key"), "{error}");
        let made = create_operator(&home, Some("correct horse")).unwrap();
        let loaded = load_operator(&home, Some("correct horse")).unwrap();
        assert_eq!(loaded.verifying_key(), made.verifying_key());
        let path = home.path("keys/operator.json");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::copy(&path, home.path("keys/signing.json")).unwrap();
        assert!(Keys::load(&home, Some("correct horse")).is_err());
    }

    #[test]
    fn a_passphrase_is_asked_for_and_compared() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let made = Keys::create(&home, "site-a", Some("correct horse")).unwrap();
        let text = std::fs::read_to_string(home.path("keys/signing.json")).unwrap();
        assert!(!text.contains(&hex::encode(*made.signing.seed())));
        assert!(Keys::load(&home, None).is_err());
        assert!(Keys::load(&home, Some("wrong")).is_err());
        let loaded = Keys::load(&home, Some("correct horse")).unwrap();
        assert_eq!(loaded.signing.verifying_key(), made.signing.verifying_key());
    }
}
