//! The gradients of single patients, as a trainer hands them over: a file as an
//! update's, with one more axis in front of each tensor, over the patients.

use crate::error::SiteRefusal;
use crate::tensors::{self, Stored};
use crate::{Error, Result};
use sealfold_protocol::manifest::Tensor;
use std::path::{Path, PathBuf};

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
    /// names, types and shapes behind an axis over the patients.
    ///
    /// # Errors
    /// A refusal by `layout`, or [`Error::File`].
    pub fn open(path: &Path, wanted: &[Tensor]) -> Result<Self> {
        let stored = tensors::open_all(path, wanted.iter().map(|tensor| tensor.name.as_str()))?;
        let mut count: Option<u64> = None;
        let mut widths = Vec::new();
        for (tensor, stored) in wanted.iter().zip(&stored) {
            let (patients, shape) = stored.shape().split_first().unwrap_or((&0, &[]));
            let same = count.is_none_or(|count| count == *patients);
            if shape != tensor.shape || stored.shape().is_empty() || !same {
                let axis = count.map_or("patients".to_owned(), |count| count.to_string());
                let expected =
                    format!("{:?} as F32 [{axis}, then {:?}]", tensor.name, tensor.shape);
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
        for (stored, width) in self.stored.iter_mut().zip(&self.widths) {
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
