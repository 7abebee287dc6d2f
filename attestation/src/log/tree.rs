//! Hashes of the Merkle tree, and the verification of proofs (RFC 9162,
//! section 2.1).

use super::{LogError, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::fmt;

/// The longest proof: one hash for each level of a tree of 2^64 leaves, and one
/// more where a consistency proof names the old root.
pub const MAX_PROOF: usize = 65;

/// A hash of the tree: SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl Hash {
    /// Reads what `Display` writes: standard base64 with padding.
    #[must_use]
    pub fn from_base64(text: &str) -> Option<Self> {
        BASE64.decode(text).ok()?.try_into().ok().map(Self)
    }
}

fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    Hash(hash)
}

/// The root of the tree without leaves.
#[must_use]
pub fn empty_root() -> Hash {
    sha256(&[])
}

/// The hash of a leaf.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    sha256(&[&[0], entry])
}

/// The hash of an inner node.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], &left.0, &right.0])
}

/// The largest power of two below `size`: where RFC 9162 splits a tree.
#[must_use]
pub(crate) fn split(size: u64) -> u64 {
    1 << (size.max(2) - 1).ilog2()
}

/// Whether the leaf with this hash is number `index` in the tree of that size.
///
/// # Errors
/// [`LogError::NotProven`]; [`LogError::Malformed`] if the index is beyond the
/// tree or the proof's length is not the tree's.
pub fn verify_inclusion(
    index: u64,
    leaf: &Hash,
    size: u64,
    root: &Hash,
    proof: &[Hash],
) -> Result<()> {
    if index >= size {
        return Err(LogError::malformed(
            "inclusion proof",
            format!("a leaf of {size}"),
            format!("number {index}"),
        ));
    }
    let (mut first, mut second, mut hash) = (index, size - 1, *leaf);
    for step in proof {
        if second == 0 {
            return Err(wrong_length("inclusion proof", proof));
        }
        if first & 1 == 1 || first == second {
            hash = node_hash(step, &hash);
            while first & 1 == 0 && first != 0 {
                (first, second) = (first >> 1, second >> 1);
            }
        } else {
            hash = node_hash(&hash, step);
        }
        (first, second) = (first >> 1, second >> 1);
    }
    if second != 0 {
        return Err(wrong_length("inclusion proof", proof));
    }
    expect_root("inclusion", root, hash)
}

/// Whether the tree of size `size` begins with all leaves of the tree of size
/// `old_size`, unchanged.
///
/// # Errors
/// [`LogError::NotProven`]; [`LogError::Malformed`] if the old tree is the
/// larger one or the proof's length is not the trees'.
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash,
    size: u64,
    root: &Hash,
    proof: &[Hash],
) -> Result<()> {
    if old_size > size {
        return Err(LogError::malformed(
            "consistency proof",
            format!("an old tree of at most {size} leaves"),
            old_size,
        ));
    }
    if old_size == 0 || old_size == size {
        if !proof.is_empty() {
            return Err(wrong_length("consistency proof", proof));
        }
        let before = if old_size == 0 { empty_root() } else { *root };
        return expect_root("consistency", old_root, before);
    }
    // The old root itself is the first step where the old tree is complete.
    let known = old_size.is_power_of_two().then_some(*old_root);
    let mut steps = known.into_iter().chain(proof.iter().copied());
    let start = steps.next().ok_or_else(|| wrong_length("consistency proof", proof))?;
    let (mut first, mut second) = (old_size - 1, size - 1);
    let shift = first.trailing_ones();
    (first, second) = (first >> shift, second >> shift);
    let (mut old, mut new) = (start, start);
    for step in steps {
        if second == 0 {
            return Err(wrong_length("consistency proof", proof));
        }
        if first & 1 == 1 || first == second {
            (old, new) = (node_hash(&step, &old), node_hash(&step, &new));
            while first & 1 == 0 && first != 0 {
                (first, second) = (first >> 1, second >> 1);
            }
        } else {
            new = node_hash(&new, &step);
        }
        (first, second) = (first >> 1, second >> 1);
    }
    if second != 0 {
        return Err(wrong_length("consistency proof", proof));
    }
    expect_root("consistency", old_root, old)?;
    expect_root("consistency", root, new)
}

fn wrong_length(what: &str, proof: &[Hash]) -> LogError {
    LogError::malformed(what, "as many hashes as the tree has levels there", proof.len())
}

fn expect_root(what: &'static str, expected: &Hash, found: Hash) -> Result<()> {
    if *expected == found {
        return Ok(());
    }
    Err(LogError::NotProven { what, expected: *expected, found })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The root as the RFC defines it, for comparison.
    pub(crate) fn root_of(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let at = usize::try_from(split(leaves.len() as u64)).unwrap();
                node_hash(&root_of(&leaves[..at]), &root_of(&leaves[at..]))
            }
        }
    }

    #[test]
    fn the_rfc_s_hashes() {
        // RFC 6962's well-known values, as in its reference implementation.
        let hex = |hash: Hash| hex::encode(hash.0);
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(empty_root()), empty);
        let leaf = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        assert_eq!(hex(leaf_hash(b"")), leaf);
        let leaves: Vec<_> = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
            .iter()
            .map(|text| leaf_hash(&hex::decode(text).unwrap()))
            .collect();
        let three = "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77";
        assert_eq!(hex(root_of(&leaves[..3])), three);
        let seven = "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c";
        assert_eq!(hex(root_of(&leaves)), seven);
    }

    #[test]
    fn base64_comes_back() {
        let hash = leaf_hash(b"x");
        assert_eq!(Hash::from_base64(&hash.to_string()), Some(hash));
        assert_eq!(Hash::from_base64("AAAA"), None);
    }
}
