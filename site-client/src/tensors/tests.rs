use super::*;
use safetensors::SafeTensors;
use sealfold_protocol::manifest::TensorRole;
use std::collections::HashMap;

fn model() -> Model {
    let tensor = |name: &str, shape: &[u64]| Tensor {
        name: name.to_owned(),
        shape: shape.to_vec(),
        dtype: Dtype::Float32,
        scale: None,
        role: TensorRole::default(),
    };
    Model {
        initial: Digest::new([0; 32]),
        learning_rate: 1.0,
        optimiser: None,
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
