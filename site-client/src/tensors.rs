//! Updates and models on disk: safetensors and npz in, safetensors out.
//!
//! Files of any size are read and written in constant memory; only an array of an
//! npz archive that lies in another order than the manifest's takes its own.

use crate::error::SiteRefusal;
use crate::home::sync_folder;
use crate::{Error, Result};
use safetensors::tensor::Metadata;
use sealfold_aggregation::format::Codec;
use sealfold_protocol::Digest;
use sealfold_protocol::content::ContentHasher;
use sealfold_protocol::terms::{Dtype, Model, Tensor};
use std::cmp::Ordering;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

mod npz;
mod update;
use npz::Archive;
pub use update::read_update;

/// The longest header that is read: 16 MiB, for 10,000 tensors and more.
const MAX_HEADER: u64 = 16 << 20;
/// The piece in which tensors are copied.
const PIECE: usize = 1 << 20;

/// Copies the content of a file (these tensors in this order, little-endian)
/// into a writer, checking layout and values. The file holds no others.
///
/// # Errors
/// A refusal by `layout` or `finite` naming the tensor; [`Error::File`].
pub fn copy_content(path: &Path, tensors: &[Tensor], out: &mut impl Write) -> Result<()> {
    if is_zip(path)? { copy_npz(path, tensors, out) } else { copy_safetensors(path, tensors, out) }
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

/// The content digest of a model's file.
///
/// # Errors
/// As [`copy_content`].
pub fn digest(path: &Path, model: &Model) -> Result<Digest> {
    let mut hashing = Hashing::new(std::io::sink());
    copy_content(path, &model.tensors, &mut hashing)?;
    Ok(hashing.finish())
}

fn layout(expected: impl ToString, found: impl ToString) -> Error {
    let next = "the file must hold exactly the tensors of the manifest's [[model.tensor]]";
    SiteRefusal::new("layout", expected, found).next(next).into()
}

/// A tensor that is expected, in words.
fn offered(tensor: &Tensor) -> String {
    format!("{:?} as {} {:?}", tensor.name, dtype_name(tensor.dtype), tensor.shape)
}

/// The header of a safetensors file, and where its data begins.
fn read_header(path: &Path, file: &File) -> Result<(Metadata, u64)> {
    let wrong = |error: &dyn std::fmt::Display| Error::file(path, error);
    let total = file.metadata().map_err(|e| wrong(&e))?.len();
    let mut prefix = [0; 8];
    file.read_exact_at(&mut prefix, 0).map_err(|_| wrong(&"no safetensors file"))?;
    let length = u64::from_le_bytes(prefix);
    if length > MAX_HEADER {
        return Err(wrong(&"no safetensors file, or a header above 16 MiB"));
    }
    let mut header = vec![0; usize::try_from(length).map_err(|e| wrong(&e))?];
    file.read_exact_at(&mut header, 8).map_err(|_| wrong(&"cut short"))?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| wrong(&format!("no safetensors file: {error}")))?;
    // The tensors lie one after the other and fill the file: it says so.
    let end = (metadata.data_len() as u64).saturating_add(8 + length);
    match total.cmp(&end) {
        Ordering::Less => Err(wrong(&"cut short")),
        Ordering::Greater => Err(wrong(&"bytes behind the last tensor")),
        Ordering::Equal => Ok((metadata, 8 + length)),
    }
}

fn copy_safetensors(path: &Path, tensors: &[Tensor], out: &mut impl Write) -> Result<()> {
    let wrong = |error: &dyn std::fmt::Display| Error::file(path, error);
    let file = File::open(path).map_err(|e| wrong(&e))?;
    let (metadata, data) = read_header(path, &file)?;
    let count = metadata.offset_keys().len();
    if count != tensors.len() {
        return Err(layout(format!("{} tensors", tensors.len()), count));
    }
    let mut reader = BufReader::with_capacity(PIECE, file);
    for tensor in tensors {
        let info = metadata.info(&tensor.name);
        let info = info.ok_or_else(|| layout(format!("a tensor {:?}", tensor.name), "none"))?;
        let shape: Vec<u64> = info.shape.iter().map(|side| *side as u64).collect();
        let dtype = dtype_name(tensor.dtype);
        if format!("{:?}", info.dtype) != dtype || shape != tensor.shape {
            let found = format!("{:?} {:?}", info.dtype, info.shape);
            return Err(layout(offered(tensor), found));
        }
        let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        reader.seek(SeekFrom::Start(data + start)).map_err(|e| wrong(&e))?;
        copy_values(path, tensor, &mut (&mut reader).take(end - start), out)?;
    }
    Ok(())
}

/// A floating-point tensor in a file, of any shape, read piece by piece as float32.
pub struct Stored {
    shape: Vec<u64>,
    codec: Codec,
    file: File,
    /// Where its elements begin.
    begin: u64,
}

impl Stored {
    /// Its dimensions.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Reads values from an element on.
    ///
    /// # Errors
    /// If the file does not have them.
    pub fn read(&self, from: u64, values: &mut [f32]) -> std::io::Result<()> {
        let width = self.codec.format().width();
        let mut elements = vec![0; values.len() * width];
        self.file.read_exact_at(&mut elements, self.begin + width as u64 * from)?;
        let mut bytes = vec![0; values.len() * 4];
        self.codec.decode(&elements, &mut bytes).map_err(std::io::Error::other)?;
        let fours = bytes.as_chunks::<4>().0;
        values.iter_mut().zip(fours).for_each(|(v, four)| *v = f32::from_le_bytes(*four));
        Ok(())
    }
}

/// Opens the tensors of these names, float32, bfloat16 or float16; the file may hold
/// `spare` tensors as well, and no others. In an npz archive each has its shape behind
/// one more axis.
///
/// # Errors
/// A refusal by `layout`; [`Error::File`].
pub fn open_all(path: &Path, tensors: &[Tensor], spare: &[Tensor]) -> Result<Vec<Stored>> {
    if is_zip(path)? {
        let mut archive = Archive::open_any(path)?;
        update::expect_known(&archive.names(), tensors, spare)?;
        let unpack = |tensor: &Tensor| {
            let dtype = archive.float(tensor)?;
            let (file, shape) = archive.unpack(&Tensor { dtype, ..tensor.clone() })?;
            Ok(Stored { shape, codec: update::codec(dtype)?, file, begin: 0 })
        };
        return tensors.iter().map(unpack).collect();
    }
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    let (metadata, data) = read_header(path, &file)?;
    update::expect_known(&metadata.offset_keys(), tensors, spare)?;
    let open = |tensor: &Tensor| {
        let name = &tensor.name;
        let info = metadata.info(name);
        let info = info.ok_or_else(|| layout(format!("a tensor {name:?}"), "none"))?;
        let codec = update::codec(update::float(tensor, &format!("{:?}", info.dtype))?)?;
        let begin = data + info.data_offsets.0 as u64;
        let file = file.try_clone().map_err(|e| Error::file(path, e))?;
        let shape = info.shape.iter().map(|side| *side as u64).collect();
        Ok(Stored { shape, codec, file, begin })
    };
    tensors.iter().map(open).collect()
}

/// The format's name of a type of elements.
fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Float32 => "F32",
        Dtype::Float16 => "F16",
        Dtype::Bfloat16 => "BF16",
        Dtype::Int64 => "I64",
        Dtype::Int32 => "I32",
    }
}

/// The place of the first element that is NaN or infinite: one whose exponent
/// is all ones.
fn not_finite(dtype: Dtype, elements: &[u8]) -> Option<usize> {
    let half = |exponent: u16| {
        let has = |bytes: &[u8; 2]| u16::from_le_bytes(*bytes) & exponent == exponent;
        elements.as_chunks().0.iter().position(has)
    };
    match dtype {
        Dtype::Int32 | Dtype::Int64 => None,
        Dtype::Float16 => half(0x7c00),
        Dtype::Bfloat16 => half(0x7f80),
        Dtype::Float32 => {
            let is_finite = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes).is_finite();
            elements.as_chunks().0.iter().position(|bytes| !is_finite(bytes))
        }
    }
}

fn copy_values(
    path: &Path,
    tensor: &Tensor,
    reader: &mut impl Read,
    out: &mut impl Write,
) -> Result<()> {
    let width = tensor.dtype.width();
    let mut left = tensor.elements().unwrap_or(0).saturating_mul(width);
    let mut index = 0;
    let mut piece = vec![0; PIECE];
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let piece = &mut piece[..take];
        reader.read_exact(piece).map_err(|_| Error::file(path, "cut short"))?;
        if let Some(place) = not_finite(tensor.dtype, piece) {
            let found = format!("NaN or an infinity at {}", index + place as u64);
            let expected = format!("finite values in {:?}", tensor.name);
            return Err(SiteRefusal::new("finite", expected, found)
                .next("look at the training: it has diverged")
                .into());
        }
        out.write_all(piece).map_err(|e| Error::file(path, e))?;
        index += take as u64 / width;
        left -= take as u64;
    }
    Ok(())
}

fn copy_npz(path: &Path, tensors: &[Tensor], out: &mut impl Write) -> Result<()> {
    let mut archive = Archive::open(path, tensors.len())?;
    tensors.iter().try_for_each(|tensor| {
        archive.read(tensor, |mut elements| copy_values(path, tensor, &mut elements, out))
    })
}

/// What a safetensors file of these tensors begins with: the length of the
/// header, and the header.
pub(crate) fn header(tensors: &[Tensor]) -> serde_json::Result<Vec<u8>> {
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.elements().unwrap_or(0) * tensor.dtype.width();
        let dtype = dtype_name(tensor.dtype);
        let entry = serde_json::json!({
            "dtype": dtype, "shape": tensor.shape, "data_offsets": [offset, end],
        });
        header.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    // The format wants the data aligned; spaces after the JSON are allowed.
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok([&(header.len() as u64).to_le_bytes()[..], &header].concat())
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
    let header = header(&model.tensors).map_err(|e| Error::file(path, e))?;
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
mod tests;
