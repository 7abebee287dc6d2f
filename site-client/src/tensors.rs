//! Updates and models on disk: safetensors and npz in, safetensors out.
//!
//! A safetensors file of any size is read and written in constant memory; an
//! npz archive is compressed, so its tensors are read one by one.

use crate::error::SiteRefusal;
use crate::home::sync_folder;
use crate::{Error, Result};
use ndarray_npy::NpzReader;
use safetensors::tensor::Metadata;
use sealfold_protocol::Digest;
use sealfold_protocol::content::ContentHasher;
use sealfold_protocol::manifest::{Model, Tensor};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// The longest header that is read: 16 MiB, for 10,000 tensors and more.
const MAX_HEADER: u64 = 16 << 20;
/// The piece in which tensors are copied.
const PIECE: usize = 1 << 20;

/// Copies the content of a file (its tensors in the manifest's order,
/// little-endian float32) into a writer, checking layout and values.
///
/// # Errors
/// A refusal by `layout` or `finite` naming the tensor; [`Error::File`].
pub fn copy_content(path: &Path, model: &Model, out: &mut impl Write) -> Result<()> {
    if is_zip(path)? { copy_npz(path, model, out) } else { copy_safetensors(path, model, out) }
}

/// Whether a file is a zip archive, as an npz is; its name does not matter. A
/// safetensors file begins with the length of its header, and one that begins
/// like this would have a header of 64 MiB and more.
fn is_zip(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    file.take(4).read_to_end(&mut start).map_err(|e| Error::file(path, e))?;
    Ok(start == b"PK\x03\x04" || start == b"PK\x05\x06")
}

/// A writer that computes the content digest of what it passes on.
pub struct Hashing<W> {
    content: ContentHasher,
    out: W,
}

impl<W: Write> Hashing<W> {
    /// Passes on to this writer.
    pub fn new(out: W) -> Self {
        Self { content: ContentHasher::new(), out }
    }

    /// The content digest of all that was written.
    #[must_use]
    pub fn finish(self) -> Digest {
        self.content.finish()
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.content.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// The content digest of a file.
///
/// # Errors
/// As [`copy_content`].
pub fn digest(path: &Path, model: &Model) -> Result<Digest> {
    let mut hashing = Hashing::new(std::io::sink());
    copy_content(path, model, &mut hashing)?;
    Ok(hashing.finish())
}

fn layout(expected: impl ToString, found: impl ToString) -> Error {
    let next = "the file must hold exactly the tensors of the manifest's [[model.tensor]]";
    SiteRefusal::new("layout", expected, found).next(next).into()
}

fn copy_safetensors(path: &Path, model: &Model, out: &mut impl Write) -> Result<()> {
    let wrong = |error: &dyn std::fmt::Display| Error::file(path, error);
    let file = File::open(path).map_err(|e| wrong(&e))?;
    let total = file.metadata().map_err(|e| wrong(&e))?.len();
    let mut reader = BufReader::with_capacity(PIECE, file);
    let mut prefix = [0; 8];
    reader.read_exact(&mut prefix).map_err(|_| wrong(&"no safetensors file"))?;
    let length = u64::from_le_bytes(prefix);
    let mut header = Vec::new();
    if length > MAX_HEADER {
        return Err(wrong(&"no safetensors file, or a header above 16 MiB"));
    }
    (&mut reader).take(length).read_to_end(&mut header).map_err(|e| wrong(&e))?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| wrong(&format!("no safetensors file: {error}")))?;
    let count = metadata.offset_keys().len();
    if count != model.tensors.len() {
        return Err(layout(format!("{} tensors", model.tensors.len()), count));
    }
    for tensor in &model.tensors {
        let info = metadata.info(&tensor.name);
        let info = info.ok_or_else(|| layout(format!("a tensor {:?}", tensor.name), "none"))?;
        let shape: Vec<u64> = info.shape.iter().map(|side| *side as u64).collect();
        if info.dtype != safetensors::Dtype::F32 || shape != tensor.shape {
            let found = format!("{:?} {:?}", info.dtype, info.shape);
            let expected = format!("{:?} as F32 {:?}", tensor.name, tensor.shape);
            return Err(layout(expected, found));
        }
        let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        if 8 + length + end > total {
            return Err(wrong(&"cut short"));
        }
        reader.seek(SeekFrom::Start(8 + length + start)).map_err(|e| wrong(&e))?;
        copy_values(path, tensor, &mut (&mut reader).take(end - start), out)?;
    }
    Ok(())
}

fn copy_values(
    path: &Path,
    tensor: &Tensor,
    reader: &mut impl Read,
    out: &mut impl Write,
) -> Result<()> {
    let mut left = tensor.elements().unwrap_or(0).saturating_mul(4);
    let mut index = 0;
    let mut piece = vec![0; PIECE];
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let piece = &mut piece[..take];
        reader.read_exact(piece).map_err(|_| Error::file(path, "cut short"))?;
        let (values, _) = piece.as_chunks::<4>();
        if let Some(place) = values.iter().position(|v| !f32::from_le_bytes(*v).is_finite()) {
            let found = format!("{} at {}", f32::from_le_bytes(values[place]), index + place);
            let expected = format!("finite values in {:?}", tensor.name);
            return Err(SiteRefusal::new("finite", expected, found)
                .next("look at the training: it has diverged")
                .into());
        }
        out.write_all(piece).map_err(|e| Error::file(path, e))?;
        index += values.len();
        left -= take as u64;
    }
    Ok(())
}

fn copy_npz(path: &Path, model: &Model, out: &mut impl Write) -> Result<()> {
    let wrong = |error: &dyn std::fmt::Display| Error::file(path, error);
    let file = File::open(path).map_err(|e| wrong(&e))?;
    let mut archive = NpzReader::new(BufReader::new(file)).map_err(|e| wrong(&e))?;
    let names = archive.names().map_err(|e| wrong(&e))?;
    if names.len() != model.tensors.len() {
        return Err(layout(format!("{} tensors", model.tensors.len()), names.len()));
    }
    for tensor in &model.tensors {
        // The header says the size; the manifest's is compared before more
        // than that is taken into memory by the archive's own length check.
        let array: ndarray::ArrayD<f32> = archive.by_name(&tensor.name).map_err(|error| {
            layout(format!("{:?} as float32 {:?}", tensor.name, tensor.shape), error)
        })?;
        let shape: Vec<u64> = array.shape().iter().map(|side| *side as u64).collect();
        if shape != tensor.shape {
            let expected = format!("{:?} as float32 {:?}", tensor.name, tensor.shape);
            return Err(layout(expected, format!("{shape:?}")));
        }
        let bytes: Vec<u8> = array.iter().flat_map(|value| value.to_le_bytes()).collect();
        copy_values(path, tensor, &mut bytes.as_slice(), out)?;
    }
    Ok(())
}

/// Writes a safetensors file from a content reader, whole and synced.
///
/// # Errors
/// [`Error::File`]; if the reader ends early or holds a value that is not finite.
pub fn write_content(path: &Path, model: &Model, reader: &mut impl Read) -> Result<()> {
    let wrong = |error: std::io::Error| Error::file(path, error);
    let folder = path.parent().unwrap_or(Path::new("."));
    crate::home::make_folder(folder)?;
    let new = path.with_extension("new");
    let mut out = BufWriter::with_capacity(PIECE, File::create(&new).map_err(wrong)?);
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for tensor in &model.tensors {
        let end = offset + tensor.elements().unwrap_or(0) * 4;
        let entry = serde_json::json!({
            "dtype": "F32", "shape": tensor.shape, "data_offsets": [offset, end],
        });
        header.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut header = serde_json::to_vec(&header).map_err(|e| Error::file(path, e))?;
    // The format wants the data aligned; spaces after the JSON are allowed.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(wrong)?;
    out.write_all(&header).map_err(wrong)?;
    for tensor in &model.tensors {
        copy_values(path, tensor, reader, &mut out)?;
    }
    let file = out.into_inner().map_err(|e| Error::file(path, e.error()))?;
    file.sync_all().map_err(wrong)?;
    std::fs::rename(&new, path).map_err(wrong)?;
    sync_folder(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;
    use sealfold_protocol::manifest::Dtype;
    use std::collections::HashMap;

    fn model() -> Model {
        let tensor = |name: &str, shape: &[u64]| Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            dtype: Dtype::Float32,
        };
        Model {
            initial: Digest::new([0; 32]),
            learning_rate: 1.0,
            tensors: vec![tensor("weights", &[2, 3]), tensor("bias", &[])],
        }
    }

    fn content(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn what_is_written_is_read_by_us_and_by_the_format_s_own_library() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let values = content(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        write_content(&path, &model(), &mut values.as_slice()).unwrap();
        let mut read = Vec::new();
        copy_content(&path, &model(), &mut read).unwrap();
        assert_eq!(read, values);
        let bytes = std::fs::read(&path).unwrap();
        let theirs = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(theirs.tensor("bias").unwrap().data(), 7f32.to_le_bytes());
        assert_eq!(digest(&path, &model()).unwrap(), sealfold_protocol::content::digest(&values));
    }

    #[test]
    fn files_of_other_writers_are_read_in_the_manifests_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("update.safetensors");
        let (weights, bias) = (content(&[1.0; 6]), content(&[9.0]));
        let view = |shape: &[usize], data| {
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), data)
                .unwrap()
        };
        let tensors =
            HashMap::from([("bias", view(&[], &bias)), ("weights", view(&[2, 3], &weights))]);
        safetensors::serialize_to_file(tensors, None, &path).unwrap();
        let mut read = Vec::new();
        copy_content(&path, &model(), &mut read).unwrap();
        assert_eq!(read, [weights, bias].concat());
    }

    #[test]
    fn npz_is_read_as_well_whatever_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("update.safetensors");
        let mut archive = ndarray_npy::NpzWriter::new(File::create(&path).unwrap());
        archive.add_array("weights", &ndarray::array![[1f32, 2., 3.], [4., 5., 6.]]).unwrap();
        archive.add_array("bias", &ndarray::arr0(7f32)).unwrap();
        archive.finish().unwrap();
        let mut read = Vec::new();
        copy_content(&path, &model(), &mut read).unwrap();
        assert_eq!(read, content(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]));
    }

    #[test]
    fn wrong_layouts_and_values_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("update.safetensors");
        let mut other = model();
        other.tensors[0].shape = vec![3, 2];
        write_content(&path, &other, &mut [0; 28].as_slice()).unwrap();
        let error = copy_content(&path, &model(), &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("check layout") && error.contains("weights"), "{error}");
        let nan = content(&[0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0]);
        let error = write_content(&path, &model(), &mut nan.as_slice()).unwrap_err().to_string();
        assert!(error.contains("check finite") && error.contains("at 4"), "{error}");
        std::fs::write(&path, b"nonsense").unwrap();
        assert!(copy_content(&path, &model(), &mut Vec::new()).is_err());
        std::fs::write(&path, [0xff; 64]).unwrap();
        assert!(copy_content(&path, &model(), &mut Vec::new()).is_err());
    }
}
