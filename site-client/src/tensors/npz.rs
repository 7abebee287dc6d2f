//! Arrays of an npz archive, as `numpy.savez` writes it: a zip archive with an
//! npy file for each array (NumPy Enhancement Proposal 1).
//!
//! A small archive can say that it holds an array of terabytes, and compressed
//! zeros can hold one of gigabytes. So an array's header, capped itself, is
//! compared with what is expected before memory is taken for anything behind it,
//! and no more is read than that. An array in the order of C and little-endian,
//! as nearly all are, is read as it streams by.
//!
//! `ndarray-npy` understands the headers, and puts other arrays in order; its own
//! reader of archives takes what a header says before it can be looked at, so the
//! archive is opened here, with the `zip` that it uses.

use super::{layout, offered};
use crate::{Error, Result};
use ndarray::ArrayD;
use ndarray_npy::npy::header::{Header, Layout};
use ndarray_npy::{ReadNpyExt, ReadableElement};
use sealfold_protocol::terms::{Dtype, Tensor};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use zip::ZipArchive;
use zip::read::ZipFile;

/// What an npy file begins with: a magic string, the version, and, in version 1,
/// the header's length in two bytes.
const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The longest header of an array: one of eight dimensions has 250 bytes at most,
/// and the parser follows every bracket.
const MAX_NPY_HEADER: usize = 512;

/// An archive of arrays.
pub struct Archive {
    path: PathBuf,
    zip: ZipArchive<BufReader<File>>,
}

impl Archive {
    /// Opens an archive that holds so many arrays.
    ///
    /// # Errors
    /// A refusal by `layout`; [`Error::File`].
    pub fn open(path: &Path, arrays: usize) -> Result<Self> {
        let archive = Self::open_any(path)?;
        if archive.zip.len() != arrays {
            return Err(layout(format!("{arrays} tensors"), archive.zip.len()));
        }
        Ok(archive)
    }

    /// Opens an archive of any arrays.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open_any(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::file(path, e))?;
        let zip = ZipArchive::new(BufReader::new(file)).map_err(|e| Error::file(path, e))?;
        Ok(Self { path: path.to_owned(), zip })
    }

    /// The names of its arrays, without the suffix that NumPy appends.
    pub fn names(&self) -> Vec<String> {
        let names = self.zip.file_names();
        names.map(|name| name.strip_suffix(".npy").unwrap_or(name).to_owned()).collect()
    }

    /// The floating-point type of a tensor's array.
    ///
    /// # Errors
    /// A refusal by `layout` if it has another type; [`Error::File`].
    pub fn float(&mut self, tensor: &Tensor) -> Result<Dtype> {
        let array = self.array(&tensor.name)?;
        match array.type_name() {
            "" => super::update::float(tensor, &array.header.type_descriptor.to_string()),
            name => super::update::float(tensor, name),
        }
    }

    /// An array under its name, with or without the suffix that NumPy appends.
    fn array(&mut self, name: &str) -> Result<Array<'_>> {
        let suffixed = format!("{name}.npy");
        let place = [name, &suffixed].into_iter().find_map(|name| self.zip.index_for_name(name));
        let place = place.ok_or_else(|| layout(format!("a tensor {name:?}"), "none"))?;
        let wrong = |error: &dyn std::fmt::Display| Error::file(&self.path, error);
        let mut entry = self.zip.by_index(place).map_err(|e| wrong(&e))?;
        let mut head = vec![0; MAGIC.len() + 4];
        entry.read_exact(&mut head).map_err(|_| wrong(&"cut short"))?;
        if !head.starts_with(MAGIC) {
            return Err(layout(format!("an array {name:?}"), "no npy file"));
        }
        let mut length = usize::from(u16::from_le_bytes([head[8], head[9]]));
        if head[6] != 1 {
            let mut more = [0; 2];
            entry.read_exact(&mut more).map_err(|_| wrong(&"cut short"))?;
            head.extend(more);
            length |= usize::from(u16::from_le_bytes(more)) << 16;
        }
        if length > MAX_NPY_HEADER {
            let expected = format!("an npy header of at most {MAX_NPY_HEADER} bytes in {name:?}");
            return Err(layout(expected, length));
        }
        let begin = head.len();
        head.resize(begin + length, 0);
        entry.read_exact(&mut head[begin..]).map_err(|_| wrong(&"cut short"))?;
        let header = Header::from_reader(&mut head.as_slice())
            .map_err(|error| layout(format!("an array {name:?}"), error))?;
        Ok(Array { path: &self.path, head, header, entry })
    }

    /// Passes the bytes of a tensor's elements on, little-endian and in the order
    /// of C.
    ///
    /// # Errors
    /// A refusal by `layout`; [`Error::File`]; whatever the reader of it gives.
    pub fn read(
        &mut self,
        tensor: &Tensor,
        read: impl FnOnce(&mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let mut array = self.array(&tensor.name)?;
        array.expect(tensor)?;
        if array.is_plain() {
            read(&mut (&mut array.entry).take(bytes(tensor)))?;
            return array.expect_end();
        }
        let elements = match tensor.dtype {
            Dtype::Int32 => array.ordered(tensor, i32::to_le_bytes)?,
            Dtype::Int64 => array.ordered(tensor, i64::to_le_bytes)?,
            Dtype::Float16 => {
                let expected = format!("{:?} little-endian and in the order of C", tensor.name);
                return Err(layout(expected, "another order: numpy.ascontiguousarray"));
            }
            _ => array.ordered(tensor, f32::to_le_bytes)?,
        };
        read(&mut elements.as_slice())
    }

    /// Unpacks a tensor that has one more axis in front, of any length, into a
    /// file without a name beside the archive; that file and the whole shape.
    ///
    /// # Errors
    /// A refusal by `layout`; [`Error::File`].
    pub fn unpack(&mut self, tensor: &Tensor) -> Result<(File, Vec<u64>)> {
        let path = self.path.clone();
        let wrong = |error: std::io::Error| Error::file(&path, error);
        let mut array = self.array(&tensor.name)?;
        let shape = array.shape();
        let whole = Tensor {
            shape: [&shape[..shape.len().min(1)], &tensor.shape].concat(),
            ..tensor.clone()
        };
        array.expect(&whole)?;
        if !array.is_plain() {
            let expected = format!("{:?} little-endian and in the order of C", tensor.name);
            return Err(layout(expected, "another order: numpy.ascontiguousarray"));
        }
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let mut file = tempfile::tempfile_in(folder.unwrap_or(Path::new("."))).map_err(wrong)?;
        let copied = std::io::copy(&mut (&mut array.entry).take(bytes(&whole)), &mut file);
        if copied.map_err(wrong)? != bytes(&whole) {
            return Err(Error::file(&path, "cut short"));
        }
        array.expect_end()?;
        file.flush().and_then(|()| file.seek(SeekFrom::Start(0))).map_err(wrong)?;
        Ok((file, shape))
    }
}

/// The bytes of a tensor's elements.
fn bytes(tensor: &Tensor) -> u64 {
    tensor.elements().unwrap_or(u64::MAX).saturating_mul(tensor.dtype.width())
}

/// One array, of which the header is read.
struct Array<'a> {
    path: &'a Path,
    head: Vec<u8>,
    header: Header,
    entry: ZipFile<'a, BufReader<File>>,
}

impl Array<'_> {
    fn shape(&self) -> Vec<u64> {
        self.header.shape.iter().map(|side| *side as u64).collect()
    }

    /// NumPy's name of the elements' type, without the order of their bytes.
    fn type_name(&self) -> &str {
        let name = self.header.type_descriptor.as_string().map_or("", String::as_str);
        name.trim_start_matches(['<', '>', '='])
    }

    /// Whether type and shape are a tensor's.
    fn expect(&self, tensor: &Tensor) -> Result<()> {
        let expected = match tensor.dtype {
            Dtype::Float32 => "f4",
            Dtype::Int32 => "i4",
            Dtype::Int64 => "i8",
            Dtype::Float16 => "f2",
            Dtype::Bfloat16 => {
                let expected = format!("{:?} in a safetensors file", tensor.name);
                return Err(layout(expected, "an npz archive, which has no such type"));
            }
        };
        let shape = self.shape();
        if self.type_name() == expected && shape == tensor.shape {
            return Ok(());
        }
        Err(layout(offered(tensor), format!("{} {shape:?}", self.header.type_descriptor)))
    }

    /// Whether the elements lie as they are passed on.
    fn is_plain(&self) -> bool {
        let is_little =
            self.header.type_descriptor.as_string().is_some_and(|name| name.starts_with('<'));
        is_little && (self.header.layout == Layout::Standard || self.header.shape.len() < 2)
    }

    /// The elements in the order of C and little-endian; the expected number of
    /// them is in memory, twice.
    fn ordered<T: ReadableElement + Copy, const W: usize>(
        &mut self,
        tensor: &Tensor,
        to_bytes: impl Fn(T) -> [u8; W],
    ) -> Result<Vec<u8>> {
        let elements = (&mut self.entry).take(bytes(tensor).saturating_add(1));
        let array = ArrayD::<T>::read_npy(self.head.as_slice().chain(elements))
            .map_err(|error| layout(offered(tensor), error))?;
        Ok(array.iter().flat_map(|value| to_bytes(*value)).collect())
    }

    /// Whether the array ends here, with the checksum that the archive has of it.
    fn expect_end(&mut self) -> Result<()> {
        match self.entry.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Error::file(self.path, "bytes behind the last element of an array")),
            Err(error) => Err(Error::file(self.path, error)),
        }
    }
}
