//! The file that a training command writes: float32, bfloat16 or float16 tensors,
//! read as float32.

use super::npz::Archive;
use super::{PIECE, copy_values, is_zip, layout, read_header};
use crate::error::SiteRefusal;
use crate::{Error, Result};
use sealfold_aggregation::format::{Codec, Format};
use sealfold_protocol::terms::{Dtype, Tensor};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Reads these tensors in this order, as float32, piece by piece: the number of the
/// tensor, and values of it. The file may hold `spare` tensors as well, which are
/// passed over, and no others.
///
/// # Errors
/// A refusal by `layout` or `finite` naming the tensor; [`Error::File`]; what
/// `each` gives.
pub fn read_update(
    path: &Path,
    tensors: &[Tensor],
    spare: &[Tensor],
    mut each: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    if is_zip(path)? {
        let mut archive = Archive::open_any(path)?;
        expect_known(&archive.names(), tensors, spare)?;
        for (number, tensor) in tensors.iter().enumerate() {
            let stored = Tensor { dtype: archive.float(tensor)?, ..tensor.clone() };
            archive.read(&stored, |mut elements| {
                let mut widening = Widening::new(stored.dtype, |values| each(number, values))?;
                let copied = copy_values(path, &stored, &mut elements, &mut widening);
                widening.ended(copied)
            })?;
        }
        return Ok(());
    }
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    let (metadata, data) = read_header(path, &file)?;
    expect_known(&metadata.offset_keys(), tensors, spare)?;
    let mut reader = BufReader::with_capacity(PIECE, file);
    for (number, tensor) in tensors.iter().enumerate() {
        let info = metadata.info(&tensor.name);
        let info = info.ok_or_else(|| layout(format!("a tensor {:?}", tensor.name), "none"))?;
        let dtype = float(tensor, &format!("{:?}", info.dtype))?;
        let shape: Vec<u64> = info.shape.iter().map(|side| *side as u64).collect();
        if shape != tensor.shape {
            let expected = format!("{:?} of shape {:?}", tensor.name, tensor.shape);
            return Err(layout(expected, format!("shape {shape:?}")));
        }
        let stored = Tensor { dtype, ..tensor.clone() };
        let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        reader.seek(SeekFrom::Start(data + start)).map_err(|e| Error::file(path, e))?;
        let mut widening = Widening::new(dtype, |values| each(number, values))?;
        let mut elements = (&mut reader).take(end - start);
        let copied = copy_values(path, &stored, &mut elements, &mut widening);
        widening.ended(copied)?;
    }
    Ok(())
}

/// The floating-point type of a tensor, by the name that its file has for it.
///
/// # Errors
/// A refusal by `layout` for another type, saying what to do.
pub(super) fn float(tensor: &Tensor, name: &str) -> Result<Dtype> {
    match name {
        "F32" | "f4" => Ok(Dtype::Float32),
        "F16" | "f2" => Ok(Dtype::Float16),
        "BF16" => Ok(Dtype::Bfloat16),
        other => {
            let (name, shape) = (&tensor.name, &tensor.shape);
            let expected = format!("{name:?} {shape:?} as float32, bfloat16 or float16");
            Err(SiteRefusal::new("layout", expected, other)
                .next(
                    "cast the tensor before it is written: tensor.float() in PyTorch, \
                     array.astype(\"float32\") in NumPy",
                )
                .into())
        }
    }
}

/// What widens elements of a floating-point type to float32.
///
/// # Errors
/// A refusal by `layout` for integers.
pub(super) fn codec(dtype: Dtype) -> Result<Codec> {
    let format = match dtype {
        Dtype::Float16 => Format::Float16,
        Dtype::Bfloat16 => Format::Bfloat16,
        Dtype::Float32 => Format::Float32,
        Dtype::Int32 | Dtype::Int64 => {
            return Err(layout("a floating-point type", dtype.name()));
        }
    };
    Codec::new(format).map_err(|e| layout("a floating-point type", e))
}

/// Whether a file's tensors are all ones that are expected, and none is missing.
pub(super) fn expect_known(found: &[String], tensors: &[Tensor], spare: &[Tensor]) -> Result<()> {
    let known = |name: &&String| tensors.iter().chain(spare).any(|tensor| tensor.name == **name);
    if let Some(unknown) = found.iter().find(|name| !known(name)) {
        let names: Vec<_> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        return Err(layout(format!("tensors {names:?} only"), format!("{unknown:?} as well")));
    }
    match tensors.iter().find(|tensor| !found.contains(&tensor.name)) {
        Some(missing) => Err(layout(format!("a tensor {:?}", missing.name), "none")),
        None => Ok(()),
    }
}

/// Takes the elements of a tensor and hands them on as float32.
struct Widening<F> {
    codec: Codec,
    bytes: Vec<u8>,
    values: Vec<f32>,
    each: F,
    failed: Option<Error>,
}

impl<F: FnMut(&[f32]) -> Result<()>> Widening<F> {
    fn new(dtype: Dtype, each: F) -> Result<Self> {
        let codec = codec(dtype)?;
        Ok(Self { codec, bytes: Vec::new(), values: Vec::new(), each, failed: None })
    }

    /// How it ended: what the taker of the values said goes before what the copy
    /// says.
    fn ended(self, copied: Result<()>) -> Result<()> {
        self.failed.map_or(copied, Err)
    }
}

impl<F: FnMut(&[f32]) -> Result<()>> Write for Widening<F> {
    fn write(&mut self, elements: &[u8]) -> std::io::Result<usize> {
        // Tensors come in pieces of whole values.
        self.bytes.resize(elements.len() / self.codec.format().width() * 4, 0);
        self.codec.decode(elements, &mut self.bytes).map_err(std::io::Error::other)?;
        let fours = self.bytes.as_chunks::<4>().0;
        self.values.clear();
        self.values.extend(fours.iter().map(|four| f32::from_le_bytes(*four)));
        if let Err(error) = (self.each)(&self.values) {
            self.failed = Some(error);
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        Ok(elements.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;
    use sealfold_protocol::terms::TensorRole;

    fn tensor(name: &str, shape: &[u64]) -> Tensor {
        let (name, shape, dtype) = (name.to_owned(), shape.to_vec(), Dtype::Float32);
        Tensor { name, shape, dtype, step: None, role: TensorRole::default() }
    }

    fn read(path: &Path, spare: &[Tensor]) -> Result<Vec<Vec<f32>>> {
        let tensors = [tensor("a", &[3]), tensor("b", &[])];
        let mut found = vec![Vec::new(); 2];
        read_update(path, &tensors, spare, |number, values| {
            found[number].extend(values);
            Ok(())
        })?;
        Ok(found)
    }

    fn halves(bits: &[u16]) -> Vec<u8> {
        bits.iter().flat_map(|bits| bits.to_le_bytes()).collect()
    }

    #[test]
    fn every_floating_point_type_is_read_as_float32() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("update");
        let one = 1f32.to_le_bytes();
        // 1, -2, 0.5.
        let sixteen = [0x3c00, 0xc000, 0x3800];
        for (dtype, a) in [
            (safetensors::Dtype::F16, halves(&sixteen)),
            (safetensors::Dtype::BF16, halves(&[0x3f80, 0xc000, 0x3f00])),
            (
                safetensors::Dtype::F32,
                [1f32, -2.0, 0.5].iter().flat_map(|v| v.to_le_bytes()).collect(),
            ),
        ] {
            let view =
                |dtype, shape: Vec<usize>, data| TensorView::new(dtype, shape, data).unwrap();
            let b = view(safetensors::Dtype::F32, vec![], &one[..]);
            let tensors = [("a", view(dtype, vec![3], &a[..])), ("b", b)];
            safetensors::serialize_to_file(tensors, None, &path).unwrap();
            assert_eq!(read(&path, &[]).unwrap(), [vec![1.0, -2.0, 0.5], vec![1.0]]);
        }
        // As numpy.savez writes float16, in a version 1 header of 118 bytes.
        let mut head = b"{'descr': '<f2', 'fortran_order': False, 'shape': (3,), }".to_vec();
        head.resize(117, b' ');
        head.push(b'\n');
        let npy = [b"\x93NUMPY\x01\x00\x76\x00".as_slice(), &head, &halves(&sixteen)].concat();
        let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file("a.npy", options).unwrap();
        zip.write_all(&npy).unwrap();
        let mut head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (), }".to_vec();
        head.resize(117, b' ');
        head.push(b'\n');
        zip.start_file("b.npy", options).unwrap();
        let npy = [b"\x93NUMPY\x01\x00\x76\x00".as_slice(), &head, &one].concat();
        zip.write_all(&npy).unwrap();
        zip.finish().unwrap();
        assert_eq!(read(&path, &[]).unwrap(), [vec![1.0, -2.0, 0.5], vec![1.0]]);
    }

    #[test]
    fn other_types_and_tensors_are_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("update");
        let (wide, one) = ([0; 24], 1f32.to_le_bytes());
        let write = |name: &str, dtype, shape: Vec<usize>, data: &[u8]| {
            let more = TensorView::new(dtype, shape, data).unwrap();
            let b = TensorView::new(safetensors::Dtype::F32, vec![], &one[..]).unwrap();
            safetensors::serialize_to_file([(name, more), ("b", b)], None, &path).unwrap();
        };
        write("a", safetensors::Dtype::F64, vec![3], &wide);
        let said = read(&path, &[]).unwrap_err().to_string();
        assert!(said.contains("float16, found F64; cast the tensor"), "{said}");
        write("c", safetensors::Dtype::F32, vec![6], &wide);
        let said = read(&path, &[]).unwrap_err().to_string();
        assert!(said.contains("\"c\" as well"), "{said}");
        let said = read(&path, &[tensor("c", &[6])]).unwrap_err().to_string();
        assert!(said.contains("a tensor \"a\", found none"), "{said}");
    }
}
