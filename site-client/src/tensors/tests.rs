use super::*;
use safetensors::SafeTensors;
use sealfold_protocol::terms::TensorRole;
use std::collections::HashMap;

fn model() -> Model {
    let tensor = |name: &str, shape: &[u64]| Tensor {
        name: name.to_owned(),
        shape: shape.to_vec(),
        dtype: Dtype::Float32,
        step: None,
        role: TensorRole::default(),
    };
    Model {
        initial: Digest::new([0; 32]),
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
    copy_content(&path, &model().tensors, &mut read).unwrap();
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
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), data).unwrap()
    };
    let tensors = HashMap::from([("bias", view(&[], &bias)), ("weights", view(&[2, 3], &weights))]);
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
    let mut read = Vec::new();
    copy_content(&path, &model().tensors, &mut read).unwrap();
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
    copy_content(&path, &model().tensors, &mut read).unwrap();
    assert_eq!(read, content(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]));
}

#[test]
fn wrong_layouts_and_values_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("update.safetensors");
    let mut other = model();
    other.tensors[0].shape = vec![3, 2];
    write_content(&path, &other, &mut [0; 28].as_slice()).unwrap();
    let error = copy_content(&path, &model().tensors, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("check layout") && error.contains("weights"), "{error}");
    let nan = content(&[0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0]);
    let error = write_content(&path, &model(), &mut nan.as_slice()).unwrap_err().to_string();
    assert!(error.contains("check finite") && error.contains("at 4"), "{error}");
    std::fs::write(&path, b"nonsense").unwrap();
    assert!(copy_content(&path, &model().tensors, &mut Vec::new()).is_err());
    std::fs::write(&path, [0xff; 64]).unwrap();
    assert!(copy_content(&path, &model().tensors, &mut Vec::new()).is_err());
}

/// An archive with one entry `weights.npy`: a header of this dictionary, or of
/// these bytes, and elements behind it, compressed.
fn npz(path: &Path, header: &[u8], elements: impl Iterator<Item = u8>) {
    let mut zip = zip::ZipWriter::new(File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("weights.npy", options).unwrap();
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    zip.write_all(&[b"\x93NUMPY\x01\x00", &length[..], header].concat()).unwrap();
    let mut out = BufWriter::with_capacity(PIECE, &mut zip);
    elements.for_each(|byte| out.write_all(&[byte]).unwrap());
    drop(out);
    zip.finish().unwrap();
}

/// What such an archive comes to where a tensor `weights`, `[2, 3]`, is expected;
/// and how much was read of it.
fn read_npz(path: &Path) -> (Result<()>, usize) {
    let mut read = Vec::new();
    let outcome = copy_content(path, &model().tensors[..1], &mut read);
    (outcome, read.len())
}

#[test]
fn an_archive_that_says_it_is_huge_takes_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("update.npz");
    let tensors = &model().tensors[..1];
    for (header, expected) in [
        // 4 TiB; more than can be addressed; another type; no dictionary.
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }\n",
            "1099511627776",
        ),
        (
            "{'descr': '<f4', 'fortran_order': True, 'shape': (1099511627776,2), }\n",
            "1099511627776",
        ),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904,4), }\n",
            "[46116",
        ),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }\n", "f8"),
        ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3), }\n", "[2, 3]"),
        ("nonsense\n", "npy"),
    ] {
        npz(&path, header.as_bytes(), std::iter::empty());
        for error in [read_npz(&path).0.unwrap_err(), open_all(&path, tensors, &[]).err().unwrap()]
        {
            let error = error.to_string();
            assert!(error.contains("check layout") && error.contains("weights"), "{error}");
            assert!(error.contains(expected) || expected == "npy", "{error}");
        }
    }
    // Patients as many as the header likes, and none of them there.
    let many = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 2, 3), }\n";
    npz(&path, many.as_bytes(), std::iter::empty());
    assert!(open_all(&path, tensors, &[]).err().unwrap().to_string().contains("cut short"));
    // A header that is too long, and one that the parser would follow far down.
    for header in ["(".repeat(500), " ".repeat(60_000)] {
        npz(&path, header.as_bytes(), std::iter::empty());
        assert!(read_npz(&path).0.unwrap_err().to_string().contains("check layout"));
    }
}

#[test]
fn an_array_that_goes_on_or_ends_early_is_not_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("update.npz");
    let fits = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n";
    // Zeros without end, compressed a thousandfold.
    for (header, taken) in [(fits.to_owned(), 24), (fits.replace("False", "True"), 0)] {
        npz(&path, header.as_bytes(), std::iter::repeat_n(0, 64 << 20));
        assert!(std::fs::metadata(&path).unwrap().len() < 1 << 20);
        let (outcome, read) = read_npz(&path);
        assert!(outcome.is_err(), "{header}");
        assert_eq!(read, taken);
        npz(&path, header.as_bytes(), std::iter::repeat_n(0, 23));
        assert!(read_npz(&path).0.is_err(), "{header}");
    }
    // A value that is not the one that was written: there is a checksum.
    let mut archive = ndarray_npy::NpzWriter::new(File::create(&path).unwrap());
    archive.add_array("weights", &ndarray::Array2::from_elem((2, 3), 1.5f32)).unwrap();
    archive.finish().unwrap();
    assert!(read_npz(&path).0.is_ok());
    let mut bytes = std::fs::read(&path).unwrap();
    let values = content(&[1.5; 6]);
    let place = bytes.windows(24).position(|window| window == values).unwrap();
    bytes[place] = 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(read_npz(&path).0.is_err());
}

#[test]
fn arrays_in_other_orders_are_put_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("update.npz");
    let values = [1f32, 2., 3., 4., 5., 6.];
    let big: Vec<u8> = values.iter().flat_map(|value| value.to_be_bytes()).collect();
    let columns = content(&[1., 4., 2., 5., 3., 6.]);
    for (descr, fortran, bytes) in
        [("<f4", "False", content(&values)), (">f4", "False", big), ("<f4", "True", columns)]
    {
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': (2, 3)}}\n");
        npz(&path, header.as_bytes(), bytes.into_iter());
        let mut read = Vec::new();
        copy_content(&path, &model().tensors[..1], &mut read).unwrap();
        assert_eq!(read, content(&values), "{descr} {fortran}");
    }
    // Two patients, one after the other.
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2, 3), }\n";
    npz(&path, header.as_bytes(), content(&[values, values.map(|v| -v)].concat()).into_iter());
    let stored = &open_all(&path, &model().tensors[..1], &[]).unwrap()[0];
    let mut second = [0.0; 6];
    stored.read(6, &mut second).unwrap();
    assert_eq!((stored.shape(), second), (&[2, 2, 3][..], values.map(|v| -v)));
}

#[test]
fn bytes_behind_the_last_tensor_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("update.safetensors");
    write_content(&path, &model(), &mut [0; 28].as_slice()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    assert!(copy_content(&path, &model().tensors, &mut Vec::new()).is_ok());
    for (length, reason) in [(whole.len() + 1, "behind"), (whole.len() - 1, "cut short")] {
        let mut bytes = whole.clone();
        bytes.resize(length, 0);
        std::fs::write(&path, bytes).unwrap();
        for error in [
            copy_content(&path, &model().tensors, &mut Vec::new()).unwrap_err(),
            open_all(&path, &model().tensors, &[]).err().unwrap(),
        ] {
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
