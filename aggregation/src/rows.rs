//! The same places of all sites, side by side.

use crate::{Error, Result};

/// Each site's bytes as values, if there is one run for each site and all have
/// the same number of whole values.
pub(crate) fn whole_values<'a>(
    what: &'static str,
    sites: usize,
    rows: &[&'a [u8]],
) -> Result<Vec<&'a [[u8; 4]]>> {
    if rows.len() != sites {
        return Err(Error::Length { what, expected: sites, found: rows.len() });
    }
    let length = rows.first().map_or(0, |row| row.len() / 4 * 4);
    let whole = |row: &&'a [u8]| {
        if row.len() != length {
            return Err(Error::Length {
                what: "bytes of a site's values",
                expected: length,
                found: row.len(),
            });
        }
        Ok(row.as_chunks::<4>().0)
    };
    rows.iter().map(whole).collect()
}
