//! Tiles: how the tree is cut into files ([tlog-tiles]).
//!
//! A tile of hashes holds up to 256 hashes of one level of the tree, every
//! eighth level being stored; an entry bundle holds up to 256 leaves. Full
//! tiles never change. The one at the right edge is *partial* and is named with
//! its width, so that a name has one content for ever.
//!
//! [tlog-tiles]: https://c2sp.org/tlog-tiles

use super::tree::{Hash, leaf_hash, node_hash};
use super::{LogError, Result};
use std::collections::BTreeMap;
use std::fmt;

/// The hashes or entries of a full tile.
pub const WIDTH: u64 = 256;
/// The levels of the tree that a tile spans.
pub const HEIGHT: u32 = 8;
/// The longest entry in bytes. The format allows 65,535; leaves are small, and
/// large things are named by their digests.
pub const MAX_ENTRY: usize = 4096;
/// The levels of tiles that a tree of 2^64 leaves has.
const LEVELS: u8 = 8;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Content {
    /// Hashes of the tree's level 8 times this.
    Hashes(u8),
    /// Leaves.
    Entries,
}

/// The name of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    content: Content,
    index: u64,
    width: u16,
}

impl fmt::Display for Tile {
    /// Its path in the log, such as `tile/0/x001/234.p/7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content {
            Content::Hashes(level) => write!(f, "tile/{level}/")?,
            Content::Entries => f.write_str("tile/entries/")?,
        }
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        for group in groups[1..].iter().rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{:03}", groups[0])?;
        if u64::from(self.width) < WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

impl Tile {
    /// The tile `index` of a content, in a tree of `size` leaves; `None` if that
    /// tree has nothing there.
    #[must_use]
    pub fn of(content: Content, index: u64, size: u64) -> Option<Self> {
        let level = match content {
            Content::Hashes(level) => level.min(LEVELS),
            Content::Entries => 0,
        };
        let nodes = size.checked_shr(HEIGHT * u32::from(level)).unwrap_or(0);
        let left = nodes.checked_sub(index.checked_mul(WIDTH)?)?.min(WIDTH);
        let width = u16::try_from(left).ok().filter(|width| *width > 0)?;
        Some(Self { content, index, width })
    }

    /// The names of all partial tiles of a tree of `size` leaves: its right
    /// edge.
    #[must_use]
    pub fn edge(size: u64) -> Vec<Self> {
        let hashes = (0..LEVELS).map(Content::Hashes);
        std::iter::once(Content::Entries)
            .chain(hashes)
            .filter_map(|content| {
                let level = match content {
                    Content::Hashes(level) => level,
                    Content::Entries => 0,
                };
                let index = size.checked_shr(HEIGHT * (u32::from(level) + 1)).unwrap_or(0);
                Self::of(content, index, size)
            })
            .collect()
    }

    /// Reads a path; there is one for each tile.
    ///
    /// # Errors
    /// [`LogError::Malformed`].
    pub fn parse(path: &str) -> Result<Self> {
        let wrong = || {
            let shown: String = path.chars().take(80).collect();
            LogError::malformed("path of a tile", "such as tile/0/x001/234.p/7", shown)
        };
        let rest = path.strip_prefix("tile/").ok_or_else(wrong)?;
        let (content, rest) = rest.split_once('/').ok_or_else(wrong)?;
        let content = match content {
            "entries" => Content::Entries,
            level => Content::Hashes(
                level.parse().ok().filter(|level| *level < LEVELS).ok_or_else(wrong)?,
            ),
        };
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, width.parse().map_err(|_| wrong())?),
            None => (rest, 256),
        };
        let mut index = 0u64;
        for group in number.split('/') {
            let group = group.strip_prefix('x').unwrap_or(group);
            let digits: u64 = group.parse().map_err(|_| wrong())?;
            index = index
                .checked_mul(1000)
                .and_then(|index| index.checked_add(digits))
                .ok_or_else(wrong)?;
        }
        let tile = Self { content, index, width };
        // Whatever is not spelled as we would spell it is another name.
        if tile.to_string() == path && width > 0 && u64::from(width) <= WIDTH {
            return Ok(tile);
        }
        Err(wrong())
    }

    /// What it holds.
    #[must_use]
    pub fn content(&self) -> Content {
        self.content
    }

    /// Its place among the tiles of its level.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries it holds.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Whether it is the full one, which never changes.
    #[must_use]
    pub fn is_full(&self) -> bool {
        u64::from(self.width) == WIDTH
    }

    /// The full tile at the same place.
    #[must_use]
    pub fn filled(&self) -> Self {
        Self { width: 256, ..*self }
    }

    /// The most bytes that it can have: nobody needs to read more.
    #[must_use]
    pub fn longest(&self) -> usize {
        let width = usize::from(self.width);
        match self.content {
            Content::Hashes(_) => width * 32,
            Content::Entries => width * (2 + MAX_ENTRY),
        }
    }
}

/// What a wider tile at the same place begins with: a log that has grown keeps
/// no narrow tile for ever.
///
/// # Errors
/// [`LogError::Malformed`] if `bytes` are not those of the wider tile, or it is
/// at another place.
pub fn narrow(tile: &Tile, wider: &Tile, bytes: &[u8]) -> Result<Vec<u8>> {
    let same = (tile.content, tile.index) == (wider.content, wider.index);
    if !same || tile.width > wider.width {
        return Err(LogError::malformed(
            wider.to_string(),
            format!("one that holds {tile}"),
            "less",
        ));
    }
    let width = usize::from(tile.width);
    match tile.content {
        Content::Hashes(_) => {
            decode_hashes(wider, bytes)?;
            Ok(bytes[..width * 32].to_vec())
        }
        Content::Entries => {
            let mut narrow = Vec::new();
            for entry in &decode_entries(wider, bytes)?[..width] {
                encode_entry(entry, &mut narrow)?;
            }
            Ok(narrow)
        }
    }
}

/// Where the tiles of a log are read.
pub trait TileReader {
    /// The bytes of a tile, of which no more than [`Tile::longest`] need to be
    /// read.
    ///
    /// # Errors
    /// [`LogError::Unreadable`].
    fn read(&self, tile: &Tile) -> Result<Vec<u8>>;
}

/// Tiles in memory, by path.
impl TileReader for BTreeMap<String, Vec<u8>> {
    fn read(&self, tile: &Tile) -> Result<Vec<u8>> {
        let path = tile.to_string();
        self.get(&path)
            .cloned()
            .ok_or(LogError::Unreadable { path, reason: "it is not there".to_owned() })
    }
}

/// The hashes of a tile of hashes.
///
/// # Errors
/// [`LogError::Malformed`] if the length is not the tile's.
pub fn decode_hashes(tile: &Tile, bytes: &[u8]) -> Result<Vec<Hash>> {
    let expected = usize::from(tile.width) * 32;
    if bytes.len() != expected {
        return Err(LogError::malformed(
            tile.to_string(),
            format!("{expected} bytes"),
            format!("{} bytes", bytes.len()),
        ));
    }
    let (hashes, _) = bytes.as_chunks::<32>();
    Ok(hashes.iter().map(|hash| Hash(*hash)).collect())
}

/// The bytes of a tile of hashes.
#[must_use]
pub fn encode_hashes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// Adds an entry to a bundle: its length in two bytes, big-endian, and itself.
///
/// # Errors
/// [`LogError::Malformed`] if it is longer than [`MAX_ENTRY`].
pub fn encode_entry(entry: &[u8], bundle: &mut Vec<u8>) -> Result<()> {
    let length = u16::try_from(entry.len()).ok().filter(|_| entry.len() <= MAX_ENTRY);
    let length = length.ok_or_else(|| {
        let found = format!("{} bytes", entry.len());
        LogError::malformed("entry", format!("at most {MAX_ENTRY} bytes"), found)
    })?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// The entries of a bundle.
///
/// # Errors
/// [`LogError::Malformed`] if the bytes do not hold exactly as many entries as
/// the tile has, or one is too long.
pub fn decode_entries<'a>(tile: &Tile, bytes: &'a [u8]) -> Result<Vec<&'a [u8]>> {
    let wrong = |found: String| {
        LogError::malformed(tile.to_string(), format!("{} entries", tile.width), found)
    };
    let mut entries = Vec::with_capacity(usize::from(tile.width));
    let mut rest = bytes;
    while entries.len() < usize::from(tile.width) {
        let (length, behind) = rest
            .split_first_chunk::<2>()
            .ok_or_else(|| wrong(format!("{} and a cut one", entries.len())))?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length > MAX_ENTRY {
            return Err(wrong(format!("one of {length} bytes, longer than {MAX_ENTRY}")));
        }
        let (entry, behind) = behind
            .split_at_checked(length)
            .ok_or_else(|| wrong(format!("{} and a cut one", entries.len())))?;
        entries.push(entry);
        rest = behind;
    }
    if rest.is_empty() { Ok(entries) } else { Err(wrong(format!("{} bytes more", rest.len()))) }
}

/// The root of a complete subtree whose lowest stored level has these hashes;
/// their number is a power of two.
pub(crate) fn subtree(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => super::tree::empty_root(),
        [one] => *one,
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            node_hash(&subtree(left), &subtree(right))
        }
    }
}

/// The leaf hashes of a bundle's entries.
#[must_use]
pub fn leaf_hashes(entries: &[&[u8]]) -> Vec<Hash> {
    entries.iter().map(|entry| leaf_hash(entry)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tile(content: Content, index: u64, width: u16) -> Tile {
        Tile { content, index, width }
    }

    #[test]
    fn paths_are_those_of_the_specification() {
        for (tile, path) in [
            (tile(Content::Hashes(0), 0, 256), "tile/0/000"),
            (tile(Content::Hashes(1), 234, 256), "tile/1/234"),
            (tile(Content::Hashes(0), 1_234_067, 256), "tile/0/x001/x234/067"),
            (tile(Content::Hashes(3), 1000, 7), "tile/3/x001/000.p/7"),
            (tile(Content::Entries, 1_234_067, 8), "tile/entries/x001/x234/067.p/8"),
        ] {
            assert_eq!(tile.to_string(), path);
            assert_eq!(Tile::parse(path).unwrap(), tile);
        }
        for odd in [
            "",
            "tile/0",
            "tile/0/0",
            "tile/0/x000/000",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/257",
            "tile/0/000.p/+1",
            "tile/00/000",
            "tile/8/000",
            "tile/9/000",
            "tile/0/001/x000",
            "tile/0/../000",
            "tile/data/000",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert!(Tile::parse(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_tree_has_the_tiles_that_its_size_says() {
        assert_eq!(Tile::edge(0), []);
        let paths = |size| Tile::edge(size).iter().map(Tile::to_string).collect::<Vec<_>>();
        assert_eq!(paths(1), ["tile/entries/000.p/1", "tile/0/000.p/1"]);
        assert_eq!(paths(256), ["tile/1/000.p/1"]);
        let both = ["tile/entries/256.p/5", "tile/0/256.p/5", "tile/2/000.p/1"];
        assert_eq!(paths(65_541), both);
        assert_eq!(Tile::of(Content::Hashes(0), 1, 256), None);
        assert!(Tile::of(Content::Hashes(0), 0, 256).unwrap().is_full());
        assert_eq!(Tile::of(Content::Hashes(0), u64::MAX, u64::MAX), None);
    }

    #[test]
    fn a_bundle_that_is_cut_anywhere_is_refused() {
        let mut bytes = Vec::new();
        for entry in [&b"one"[..], b"", b"three"] {
            encode_entry(entry, &mut bytes).unwrap();
        }
        let bundle = tile(Content::Entries, 0, 3);
        assert_eq!(decode_entries(&bundle, &bytes).unwrap(), [&b"one"[..], b"", b"three"]);
        for end in 0..bytes.len() {
            assert!(decode_entries(&bundle, &bytes[..end]).is_err(), "{end}");
        }
        bytes.push(0);
        assert!(decode_entries(&bundle, &bytes).is_err());
        assert!(encode_entry(&[0; MAX_ENTRY + 1], &mut bytes).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_path_that_comes_back_or_none(text in "(tile/)?[0-9x/.pentris]{0,40}") {
            if let Ok(tile) = Tile::parse(&text) {
                prop_assert_eq!(tile.to_string(), text);
            }
        }

        #[test]
        fn any_bytes_are_a_bundle_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..64),
                                          width in 1u16..5) {
            let _ = decode_entries(&tile(Content::Entries, 0, width), &bytes);
        }
    }
}
