//! The gradients of single patients, as a trainer hands them over: a file as an
//! update's, with one more axis in front of each tensor, over the patients.

use crate::error::SiteRefusal;
use crate::tensors::{self, Stored};
use crate::{Error, Result};
use sealfold_protocol::terms::Tensor;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The bytes that are gathered before they are written.
const BLOCK: usize = 4 << 20;

/// Patients, one after the other, in constant memory.
pub struct Patients {
    path: PathBuf,
    stored: Vec<Stored>,
    widths: Vec<usize>,
    count: u64,
    next: u64,
    values: Vec<f32>,
}

impl Patients {
    /// Opens a file of gradients, safetensors or npz, whose tensors have these
    /// names, types and shapes behind an axis over the patients. It may hold `spare`
    /// tensors as well.
    ///
    /// # Errors
    /// A refusal by `layout`, or [`Error::File`].
    pub fn open(path: &Path, wanted: &[Tensor], spare: &[Tensor]) -> Result<Self> {
        let stored = tensors::open_all(path, wanted, spare)?;
        let mut count: Option<u64> = None;
        let mut widths = Vec::new();
        for (tensor, stored) in wanted.iter().zip(&stored) {
            let (patients, shape) = stored.shape().split_first().unwrap_or((&0, &[]));
            let same = count.is_none_or(|count| count == *patients);
            if shape != tensor.shape || stored.shape().is_empty() || !same {
                let axis = count.map_or("patients".to_owned(), |count| count.to_string());
                let expected =
                    format!("{:?} of shape [{axis}, then {:?}]", tensor.name, tensor.shape);
                let found = format!("{:?}", stored.shape());
                return Err(SiteRefusal::new("layout", expected, found)
                    .next("write the gradient of each patient, not their sum: docs/site.md")
                    .into());
            }
            count = Some(*patients);
            let width = tensor.elements().and_then(|elements| usize::try_from(elements).ok());
            widths.push(width.ok_or_else(|| Error::file(path, "beyond this machine's memory"))?);
        }
        let values = vec![0.0; widths.iter().sum()];
        let count = count.unwrap_or(0);
        Ok(Self { path: path.to_owned(), stored, widths, count, next: 0, values })
    }

    /// The next patient's gradient, all tensors one after the other.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn read_next(&mut self) -> Result<Option<&[f32]>> {
        if self.next == self.count {
            return Ok(None);
        }
        let mut rest = self.values.as_mut_slice();
        for (stored, width) in self.stored.iter().zip(&self.widths) {
            let (values, behind) = rest.split_at_mut(*width);
            stored
                .read(self.next * *width as u64, values)
                .map_err(|error| Error::file(&self.path, error))?;
            rest = behind;
        }
        self.next += 1;
        Ok(Some(&self.values))
    }
}

/// Writes such a file, one patient after the other, in constant memory.
pub struct PatientsWriter {
    path: PathBuf,
    file: File,
    /// Where the next block of each tensor goes, and the block.
    tensors: Vec<(u64, Vec<u8>)>,
    expected: u64,
    patients: u64,
}

impl PatientsWriter {
    /// Begins a safetensors file of so many patients.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn create(path: &Path, tensors: &[Tensor], patients: u64) -> Result<Self> {
        let wrong = |error: std::io::Error| Error::file(path, error);
        let with_patients = |tensor: &Tensor| {
            let shape = [&[patients], tensor.shape.as_slice()].concat();
            Tensor { shape, ..tensor.clone() }
        };
        let tensors: Vec<_> = tensors.iter().map(with_patients).collect();
        let header = tensors::header(&tensors).map_err(|e| Error::file(path, e))?;
        let file = File::create(path).map_err(wrong)?;
        file.write_all_at(&header, 0).map_err(wrong)?;
        let mut begin = header.len() as u64;
        let mut places = Vec::new();
        for tensor in &tensors {
            places.push((begin, Vec::new()));
            begin += tensor.elements().unwrap_or(0) * tensor.dtype.width();
        }
        let path = path.to_owned();
        Ok(Self { path, file, tensors: places, expected: patients, patients: 0 })
    }

    /// The values of the current patient in one of the tensors.
    pub fn add(&mut self, tensor: usize, values: impl Iterator<Item = f32>) {
        if let Some((_, block)) = self.tensors.get_mut(tensor) {
            values.for_each(|value| block.extend_from_slice(&value.to_le_bytes()));
        }
    }

    /// The current patient has values in every tensor.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn end_patient(&mut self) -> Result<()> {
        self.patients += 1;
        let gathered: usize = self.tensors.iter().map(|(_, block)| block.len()).sum();
        if gathered >= BLOCK { self.write_blocks() } else { Ok(()) }
    }

    fn write_blocks(&mut self) -> Result<()> {
        for (place, block) in &mut self.tensors {
            let written = self.file.write_all_at(block, *place);
            written.map_err(|e| Error::file(&self.path, e))?;
            *place += block.len() as u64;
            block.clear();
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`Error::File`], also if the number of patients is not that of the
    /// beginning.
    pub fn finish(mut self) -> Result<()> {
        self.write_blocks()?;
        if self.patients != self.expected {
            let (expected, found) = (self.expected, self.patients);
            let reason = format!("{found} patients where {expected} were announced");
            return Err(Error::file(&self.path, reason));
        }
        self.file.sync_all().map_err(|e| Error::file(&self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealfold_protocol::terms::{Dtype, TensorRole};

    #[test]
    fn what_is_written_is_read_patient_by_patient() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("patients.safetensors");
        let tensor = |name: &str, shape: &[u64]| Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            dtype: Dtype::Float32,
            step: None,
            role: TensorRole::default(),
        };
        // More than one block.
        let (wide, patients) = (100_000, 25u8);
        let tensors = [tensor("a", &[2]), tensor("b", &[wide as u64])];
        let mut writer = PatientsWriter::create(&path, &tensors, patients.into()).unwrap();
        for patient in 0..patients {
            let value = f32::from(patient);
            writer.add(0, [value, -value].into_iter());
            writer.add(1, std::iter::repeat_n(value + 0.5, wide));
            writer.end_patient().unwrap();
        }
        writer.finish().unwrap();
        let mut read = Patients::open(&path, &tensors, &[]).unwrap();
        for patient in 0..patients {
            let value = f32::from(patient);
            let values = read.read_next().unwrap().unwrap();
            assert_eq!(values[..2], [value, -value]);
            assert!(values[2..].iter().all(|v| v.to_bits() == (value + 0.5).to_bits()));
        }
        assert!(read.read_next().unwrap().is_none());
        let short = PatientsWriter::create(&path, &tensors, 2).unwrap();
        assert!(short.finish().unwrap_err().to_string().contains("0 patients where 2"));
    }

    #[test]
    fn gradients_may_be_half_as_wide() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("patients.safetensors");
        let wanted = Tensor {
            name: "a".to_owned(),
            shape: vec![2],
            dtype: Dtype::Float32,
            step: None,
            role: TensorRole::default(),
        };
        // 1, -2 and 0.5, 3, of two patients.
        for (dtype, bits) in [
            (safetensors::Dtype::F16, [0x3c00u16, 0xc000, 0x3800, 0x4200]),
            (safetensors::Dtype::BF16, [0x3f80, 0xc000, 0x3f00, 0x4040]),
        ] {
            let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
            let view = safetensors::tensor::TensorView::new(dtype, vec![2, 2], &bytes).unwrap();
            safetensors::serialize_to_file([("a", view)], None, &path).unwrap();
            let mut read = Patients::open(&path, std::slice::from_ref(&wanted), &[]).unwrap();
            assert_eq!(read.read_next().unwrap().unwrap(), [1.0, -2.0]);
            assert_eq!(read.read_next().unwrap().unwrap(), [0.5, 3.0]);
        }
        let bytes = [0; 16];
        let wide =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F64, vec![1, 2], &bytes);
        safetensors::serialize_to_file([("a", wide.unwrap())], None, &path).unwrap();
        let said = Patients::open(&path, &[wanted], &[]).err().unwrap().to_string();
        assert!(said.contains("found F64; cast the tensor"), "{said}");
    }
}
