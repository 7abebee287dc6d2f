//! Proofs, made from tiles.
//!
//! Whoever needs a proof makes it from the log's static files and verifies it
//! against a checkpoint; tiles that lie make a proof that fails.

use super::tile::{self, Content, HEIGHT, Tile, TileReader, WIDTH};
use super::tree::{Hash, node_hash, split};
use super::{LogError, Result};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A tree of tiles, of a size that a checkpoint gives.
pub struct Tree<'a, R> {
    reader: &'a R,
    size: u64,
    /// A proof meets two tiles a level at most, some of them often.
    read: RefCell<BTreeMap<Tile, Vec<Hash>>>,
}

impl<'a, R: TileReader> Tree<'a, R> {
    /// A tree of `size` leaves.
    #[must_use]
    pub fn new(reader: &'a R, size: u64) -> Self {
        Self { reader, size, read: RefCell::default() }
    }

    /// The root.
    ///
    /// # Errors
    /// As the reader; [`LogError::Malformed`] if a tile does not decode.
    pub fn root(&self) -> Result<Hash> {
        if self.size == 0 { Ok(super::tree::empty_root()) } else { self.range(0, self.size) }
    }

    /// The hash of a leaf, as the tiles say.
    ///
    /// # Errors
    /// As [`Tree::root`]; [`LogError::Malformed`] beyond the tree.
    pub fn leaf(&self, index: u64) -> Result<Hash> {
        self.inside(index)?;
        self.node(0, index)
    }

    /// The proof that leaf `index` is in the tree.
    ///
    /// # Errors
    /// As [`Tree::leaf`].
    pub fn inclusion(&self, index: u64) -> Result<Vec<Hash>> {
        self.inside(index)?;
        let mut proof = Vec::new();
        let (mut start, mut end) = (0, self.size);
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                proof.push(self.range(middle, end)?);
                end = middle;
            } else {
                proof.push(self.range(start, middle)?);
                start = middle;
            }
        }
        proof.reverse();
        Ok(proof)
    }

    /// The proof that the tree begins with the tree of `old` leaves.
    ///
    /// # Errors
    /// As [`Tree::root`]; [`LogError::Malformed`] if the old tree is larger.
    pub fn consistency(&self, old: u64) -> Result<Vec<Hash>> {
        if old > self.size {
            let expected = format!("at most {} leaves", self.size);
            return Err(LogError::malformed("old tree", expected, old));
        }
        let mut proof = Vec::new();
        if old == 0 || old == self.size {
            return Ok(proof);
        }
        // RFC 9162, section 2.1.4.1: SUBPROOF, without its recursion.
        let (mut start, mut end, mut is_known) = (0, self.size, true);
        while end != old {
            let middle = start + split(end - start);
            if old <= middle {
                proof.push(self.range(middle, end)?);
                end = middle;
            } else {
                proof.push(self.range(start, middle)?);
                (start, is_known) = (middle, false);
            }
        }
        if !is_known {
            proof.push(self.range(start, end)?);
        }
        proof.reverse();
        Ok(proof)
    }

    fn inside(&self, index: u64) -> Result<()> {
        if index < self.size {
            return Ok(());
        }
        Err(LogError::malformed("leaf", format!("a number below {}", self.size), index))
    }

    /// The root over the leaves from `start` to `end`, where `start` is a
    /// multiple of the power of two that is not below their number.
    fn range(&self, start: u64, end: u64) -> Result<Hash> {
        let count = end - start;
        if count.is_power_of_two() {
            let level = count.trailing_zeros();
            return self.node(level, start >> level);
        }
        let middle = start + split(count);
        Ok(node_hash(&self.range(start, middle)?, &self.range(middle, end)?))
    }

    /// The root of the complete subtree number `index` of a level.
    fn node(&self, level: u32, index: u64) -> Result<Hash> {
        let stored = level / HEIGHT;
        let count = 1u64 << (level % HEIGHT);
        let first = index * count;
        let (place, offset) = (first / WIDTH, first % WIDTH);
        let content = Content::Hashes(u8::try_from(stored).unwrap_or(u8::MAX));
        let tile = Tile::of(content, place, self.size).ok_or_else(|| {
            LogError::malformed("tree", format!("a node {index} at level {level}"), "none")
        })?;
        let mut read = self.read.borrow_mut();
        let hashes = match read.entry(tile) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                new.insert(tile::decode_hashes(&tile, &self.reader.read(&tile)?)?)
            }
        };
        let range = usize::try_from(offset).ok().zip(usize::try_from(offset + count).ok());
        let found = range.and_then(|(from, to)| hashes.get(from..to));
        found.map(tile::subtree).ok_or_else(|| {
            LogError::malformed(
                tile.to_string(),
                format!("{} hashes", offset + count),
                hashes.len(),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::edge::tests::{entry, log};
    use super::super::tree::{leaf_hash, verify_consistency, verify_inclusion};
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    type Tiles = BTreeMap<String, Vec<u8>>;
    static LOG: LazyLock<Tiles> = LazyLock::new(|| log(600).1);

    fn changed(proof: &[Hash], place: usize) -> Vec<Hash> {
        let mut proof = proof.to_vec();
        proof[place].0[place % 32] ^= 4;
        proof
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn inclusion_is_proven_and_nothing_else(size in 1u64..=600, of in any::<u64>(),
                                                other in any::<u64>(), place in any::<usize>()) {
            let tree = Tree::new(&*LOG, size);
            let (index, root) = (of % size, tree.root().unwrap());
            let (leaf, proof) = (leaf_hash(&entry(index)), tree.inclusion(index).unwrap());
            prop_assert_eq!(tree.leaf(index).unwrap(), leaf);
            verify_inclusion(index, &leaf, size, &root, &proof).unwrap();
            let other = other % 700;
            if other != index {
                let foreign = leaf_hash(&entry(other));
                prop_assert!(verify_inclusion(index, &foreign, size, &root, &proof).is_err());
                prop_assert!(verify_inclusion(other, &leaf, size, &root, &proof).is_err());
            }
            if !proof.is_empty() {
                let place = place % proof.len();
                let bad = changed(&proof, place);
                prop_assert!(verify_inclusion(index, &leaf, size, &root, &bad).is_err());
                let cut = &proof[..place];
                prop_assert!(verify_inclusion(index, &leaf, size, &root, cut).is_err());
            }
            let long = [&proof[..], &[root]].concat();
            prop_assert!(verify_inclusion(index, &leaf, size, &root, &long).is_err());
        }

        #[test]
        fn consistency_is_proven_and_nothing_else(size in 1u64..=600, of in any::<u64>(),
                                                  place in any::<usize>()) {
            let (old, tree) = (of % (size + 1), Tree::new(&*LOG, size));
            let (old_root, root) = (Tree::new(&*LOG, old).root().unwrap(), tree.root().unwrap());
            let proof = tree.consistency(old).unwrap();
            verify_consistency(old, &old_root, size, &root, &proof).unwrap();
            let foreign = leaf_hash(b"foreign");
            prop_assert!(verify_consistency(old, &foreign, size, &root, &proof).is_err());
            if old != 0 {
                prop_assert!(verify_consistency(old, &old_root, size, &foreign, &proof).is_err());
            }
            if !proof.is_empty() {
                let place = place % proof.len();
                let bad = changed(&proof, place);
                prop_assert!(verify_consistency(old, &old_root, size, &root, &bad).is_err());
                let cut = &proof[..place];
                prop_assert!(verify_consistency(old, &old_root, size, &root, cut).is_err());
            }
            let long = [&proof[..], &[root]].concat();
            prop_assert!(verify_consistency(old, &old_root, size, &root, &long).is_err());
        }

        #[test]
        fn arbitrary_proofs_prove_nothing(index in any::<u64>(), old in any::<u64>(),
                                          size in any::<u64>(), n in 0usize..70) {
            let hashes: Vec<_> = (0..n as u64).map(|i| leaf_hash(&i.to_be_bytes())).collect();
            let root = leaf_hash(b"root");
            let leaf = leaf_hash(b"leaf");
            prop_assert!(verify_inclusion(index, &leaf, size, &root, &hashes).is_err());
            prop_assert!(verify_consistency(old, &leaf, size, &root, &hashes).is_err());
        }
    }

    #[test]
    fn every_pair_of_small_trees() {
        for size in 1..=70u64 {
            let tree = Tree::new(&*LOG, size);
            let root = tree.root().unwrap();
            for old in 0..=size {
                let old_root = Tree::new(&*LOG, old).root().unwrap();
                let proof = tree.consistency(old).unwrap();
                verify_consistency(old, &old_root, size, &root, &proof).unwrap();
            }
            for index in 0..size {
                let proof = tree.inclusion(index).unwrap();
                verify_inclusion(index, &leaf_hash(&entry(index)), size, &root, &proof).unwrap();
            }
            assert!(tree.inclusion(size).is_err() && tree.consistency(size + 1).is_err());
        }
    }
}
