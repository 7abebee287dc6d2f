//! Models and updates of one tensor, in safetensors files.

use std::io::Write;
use std::path::Path;

/// A safetensors file of one tensor, `weights`, of one value.
pub fn write_tensors(path: &Path, parameters: usize, value: f32) {
    let header = format!(
        "{{\"weights\":{{\"dtype\":\"F32\",\"shape\":[{parameters}],\"data_offsets\":[0,{}]}}}}",
        parameters * 4
    );
    let header = format!("{header:width$}", width = header.len().next_multiple_of(8));
    let mut out = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    out.write_all(header.as_bytes()).unwrap();
    let piece = value.to_le_bytes().repeat(1 << 16);
    let mut left = parameters * 4;
    while left > 0 {
        let take = left.min(piece.len());
        out.write_all(&piece[..take]).unwrap();
        left -= take;
    }
    out.flush().unwrap();
}

/// The first value of a model in a safetensors file.
#[must_use]
pub fn first_value(path: &Path) -> f32 {
    let bytes = std::fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    crate::site::floats(tensors.tensor("weights").unwrap().data())[0]
}
