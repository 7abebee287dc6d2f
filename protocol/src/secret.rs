//! Secrets: keys and blindings that no one but their owner may see.
//!
//! A secret lies in one place on the heap, so that moving it from one owner to
//! the next leaves no copy on the stack, and that place is erased when it is
//! dropped. It is never printed, compared in constant time, and has no encoding
//! of its own: the one statement that discloses secrets, the
//! [release](crate::release), says so field by field.

use crate::Result;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// 32 secret bytes, erased when dropped.
#[derive(Clone)]
pub struct Secret(Box<[u8; 32]>);

impl Secret {
    /// Takes 32 secret, uniformly random bytes, and erases the argument.
    #[must_use]
    pub fn new(mut bytes: [u8; 32]) -> Self {
        let secret = Self::copy_of(&bytes);
        bytes.zeroize();
        secret
    }

    /// A secret of its own with these bytes.
    #[must_use]
    pub fn copy_of(bytes: &[u8; 32]) -> Self {
        let mut secret = Self(Box::new([0; 32]));
        secret.0.copy_from_slice(bytes);
        secret
    }

    /// Draws from the operating system.
    ///
    /// # Errors
    /// [`crate::Error::Key`] if the system has no randomness.
    pub fn draw() -> Result<Self> {
        Self::filled(crate::keys::fill_random)
    }

    /// A secret that something writes in place.
    pub(crate) fn filled<E>(
        fill: impl FnOnce(&mut [u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<Self, E> {
        let mut secret = Self(Box::new([0; 32]));
        fill(secret.0.as_mut_slice())?;
        Ok(secret)
    }

    /// The bytes. A copy of them is the caller's to erase.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Secret {}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Secret {}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_compared_and_never_shown() {
        let secret = Secret::new([7; 32]);
        assert_eq!(secret, Secret::copy_of(&[7; 32]));
        assert_ne!(secret, Secret::draw().unwrap());
        assert_ne!(Secret::draw().unwrap(), Secret::draw().unwrap());
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn secrets_are_erased_by_their_type() {
        fn erased_when_dropped<T: ZeroizeOnDrop>() {}
        erased_when_dropped::<Secret>();
        erased_when_dropped::<crate::seal::InputKey>();
    }
}
