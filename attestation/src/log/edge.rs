//! The right edge of the tree: all that is needed to append.
//!
//! At most 255 hashes a level, and the leaves of the bundle that is not full:
//! a log of any size is extended, and its root computed, in constant memory.

use super::tile::{self, Content, HEIGHT, Tile, TileReader, WIDTH};
use super::tree::{Hash, empty_root, leaf_hash, node_hash};
use super::{LogError, Result};

/// A tile and its bytes.
pub type Written = (Tile, Vec<u8>);

/// The edge of a tree.
#[derive(Debug, Clone, Default)]
pub struct Edge {
    size: u64,
    /// By level of tiles: the hashes of the tile that is not full.
    hashes: Vec<Vec<Hash>>,
    /// The bundle that is not full.
    bundle: Vec<u8>,
}

impl Edge {
    /// The edge of a tree without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The edge of a stored tree, from the tiles that [`Tile::edge`] names.
    ///
    /// # Errors
    /// As the reader; [`LogError::Malformed`] if a tile does not decode or the
    /// leaves are not those that the lowest tile says.
    pub fn restore(size: u64, reader: &impl TileReader) -> Result<Self> {
        let mut edge = Self { size, ..Self::default() };
        for tile in Tile::edge(size) {
            let bytes = reader.read(&tile)?;
            match tile.content() {
                Content::Entries => {
                    tile::decode_entries(&tile, &bytes)?;
                    edge.bundle = bytes;
                }
                Content::Hashes(level) => {
                    let level = usize::from(level);
                    edge.hashes.resize(level, Vec::new());
                    edge.hashes.push(tile::decode_hashes(&tile, &bytes)?);
                }
            }
        }
        if let Some(bundle) = Tile::of(Content::Entries, size / WIDTH, size) {
            let leaves = tile::leaf_hashes(&tile::decode_entries(&bundle, &edge.bundle)?);
            if edge.hashes.first() != Some(&leaves) {
                return Err(LogError::malformed(
                    bundle.to_string(),
                    "the leaves that tile/0 has the hashes of",
                    "others",
                ));
            }
        }
        Ok(edge)
    }

    /// The number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf, and gives out the tiles that it completes. Its hash.
    ///
    /// # Errors
    /// [`LogError::Malformed`] if it is too long; nothing has changed then.
    pub fn push(&mut self, entry: &[u8], full: &mut Vec<Written>) -> Result<Hash> {
        tile::encode_entry(entry, &mut self.bundle)?;
        let leaf = leaf_hash(entry);
        self.size += 1;
        let mut carry = leaf;
        for level in 0u8.. {
            if self.hashes.len() <= usize::from(level) {
                self.hashes.push(Vec::new());
            }
            let hashes = &mut self.hashes[usize::from(level)];
            hashes.push(carry);
            if (hashes.len() as u64) < WIDTH {
                break;
            }
            let hashes = std::mem::take(hashes);
            let index = (self.size >> (HEIGHT * (u32::from(level) + 1))) - 1;
            if level == 0 {
                let bundle = std::mem::take(&mut self.bundle);
                full.extend(Tile::of(Content::Entries, index, self.size).map(|t| (t, bundle)));
            }
            let written = Tile::of(Content::Hashes(level), index, self.size);
            full.extend(written.map(|tile| (tile, tile::encode_hashes(&hashes))));
            carry = tile::subtree(&hashes);
        }
        Ok(leaf)
    }

    /// The tiles that are not full.
    #[must_use]
    pub fn partial(&self) -> Vec<Written> {
        let bytes = |tile: &Tile| match tile.content() {
            Content::Entries => self.bundle.clone(),
            Content::Hashes(level) => tile::encode_hashes(&self.hashes[usize::from(level)]),
        };
        Tile::edge(self.size).into_iter().map(|tile| (tile, bytes(&tile))).collect()
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        // The complete subtrees from right to left: in each tile that is not
        // full, one for each bit of its width, the smallest last.
        let mut root = None;
        for hashes in &self.hashes {
            let mut end = hashes.len();
            while end > 0 {
                let start = end - (1 << end.trailing_zeros());
                let subtree = tile::subtree(&hashes[start..end]);
                root = Some(root.map_or(subtree, |right| node_hash(&subtree, &right)));
                end = start;
            }
        }
        root.unwrap_or_else(empty_root)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::tree::tests::root_of;
    use super::*;
    use std::collections::BTreeMap;

    pub(crate) fn entry(i: u64) -> Vec<u8> {
        format!("leaf {i}").into_bytes()
    }

    /// A log of that many leaves with every tile that it ever had.
    pub(crate) fn log(size: u64) -> (Edge, BTreeMap<String, Vec<u8>>) {
        let (mut edge, mut tiles) = (Edge::new(), BTreeMap::new());
        for i in 0..size {
            let mut written = Vec::new();
            edge.push(&entry(i), &mut written).unwrap();
            written.extend(edge.partial());
            tiles.extend(written.into_iter().map(|(tile, bytes)| (tile.to_string(), bytes)));
        }
        (edge, tiles)
    }

    #[test]
    fn root_and_tiles_are_right_at_every_size() {
        let leaves: Vec<_> = (0..600).map(|i| leaf_hash(&entry(i))).collect();
        let (mut edge, mut tiles) = (Edge::new(), BTreeMap::new());
        for size in 0..=600u64 {
            assert_eq!(edge.size(), size);
            let known = &leaves[..usize::try_from(size).unwrap()];
            assert_eq!(edge.root(), root_of(known), "{size}");
            let restored = Edge::restore(size, &tiles).unwrap();
            assert_eq!(restored.root(), edge.root(), "{size}");
            assert_eq!(restored.partial(), edge.partial(), "{size}");
            let mut written = Vec::new();
            edge.push(&entry(size), &mut written).unwrap();
            written.extend(edge.partial());
            tiles.extend(written.into_iter().map(|(tile, bytes)| (tile.to_string(), bytes)));
        }
        // A name has one content: 600 partial tiles and bundles, and the full.
        assert!(tiles.contains_key("tile/0/000") && tiles.contains_key("tile/entries/001"));
        assert!(tiles.contains_key("tile/1/000.p/2"));
        assert_eq!(tiles.keys().filter(|path| Tile::parse(path).is_err()).count(), 0);
    }

    #[test]
    fn a_third_level_of_tiles() {
        let mut edge = Edge::new();
        let mut written = Vec::new();
        for i in 0..65_537u64 {
            edge.push(&entry(i), &mut written).unwrap();
        }
        let names: Vec<_> = written.iter().map(|(tile, _)| tile.to_string()).collect();
        assert!(names.contains(&"tile/1/000".to_owned()));
        assert_eq!(edge.partial().len(), 3);
        let leaves: Vec<_> = (0..65_537).map(|i| leaf_hash(&entry(i))).collect();
        assert_eq!(edge.root(), root_of(&leaves));
    }

    #[test]
    fn a_stored_edge_that_is_cut_or_changed_is_noticed() {
        let (edge, tiles) = log(300);
        for name in ["tile/entries/001.p/44", "tile/0/001.p/44", "tile/1/000.p/1"] {
            let mut missing = tiles.clone();
            missing.remove(name);
            assert!(matches!(Edge::restore(300, &missing), Err(LogError::Unreadable { .. })));
            let bytes = &tiles[name];
            for end in 0..bytes.len() {
                let mut cut = tiles.clone();
                cut.insert(name.to_owned(), bytes[..end].to_vec());
                assert!(Edge::restore(300, &cut).is_err(), "{name} {end}");
            }
            for place in 0..bytes.len() {
                let mut changed = tiles.clone();
                changed.get_mut(name).unwrap()[place] ^= 1;
                let holds = Edge::restore(300, &changed).is_ok_and(|e| e.root() == edge.root());
                assert!(!holds, "{name} {place}");
            }
        }
    }
}
