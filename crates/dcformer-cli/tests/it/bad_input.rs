//! What cannot be done: the message names file and cure, the status is 1, nothing half-written is left.

use std::fs;
use std::path::{Path, PathBuf};

use dcformer_volume::nifti::{WriteOptions, read_nifti, write_nifti};
use dcformer_volume::volume::Voxels;

use dcformer::tensors::{Values, write};

use crate::{Ran, arguments, repository, run};

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

/// A place to put a bad scan in, and what `preprocess` says to it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Preprocesses `input`, which must fail with a message that names it and has these parts, and leave nothing.
    #[track_caller]
    fn refuses(&self, input: &Path, parts: &[&str]) -> Ran {
        let before = files(self.0.path());
        let out = self.path("out.safetensors");
        let ran = run(arguments![
            "preprocess",
            input,
            "--shape",
            "8,16,16",
            "--out",
            &out,
        ]);
        let name = input.file_name().unwrap().to_str().unwrap();
        let ran = ran.failed(&[&[name], parts].concat());
        assert_eq!(ran.stdout, "");
        assert_eq!(files(self.0.path()), before, "something is left");
        ran
    }
}

fn thorax() -> Vec<u8> {
    fs::read(repository("golden/ct/thorax_1.5mm.nii.gz")).unwrap()
}

#[test]
fn damaged_compression() {
    let place = Place::new();
    let whole = thorax();
    let cut = place.write("truncated.nii.gz", &whole[..whole.len() / 2]);
    place.refuses(&cut, &["copy or download it again"]);
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x10;
    let flipped = place.write("flipped.nii.gz", &flipped);
    place.refuses(&flipped, &["copy or download"]);
}

/// The thorax uncompressed, with some bytes replaced.
fn changed(place: &Place, name: &str, changes: &[(usize, &[u8])]) -> PathBuf {
    let path = place.path(name);
    let volume = read_nifti(&repository("golden/ct/thorax_1.5mm.nii.gz")).unwrap();
    write_nifti(&path, &volume, WriteOptions::default()).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    for (at, change) in changes {
        bytes[*at..at + change.len()].copy_from_slice(change);
    }
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn headers_that_no_scan_has() {
    let place = Place::new();
    // `dim` is at 40, `pixdim` at 76, `qform_code` and `sform_code` at 252.
    let huge = [3i16, 32767, 32767, 32767].map(i16::to_le_bytes).concat();
    let path = changed(&place, "huge.nii", &[(40, &huge)]);
    place.refuses(&path, &["copy or download it again"]);
    let negative = [3i16, -4].map(i16::to_le_bytes).concat();
    let path = changed(&place, "negative_size.nii", &[(40, &negative)]);
    place.refuses(&path, &["`dim[1]` is -4", "export the scan again"]);
    for (name, spacing) in [
        ("zero.nii", 0.0f32),
        ("negative.nii", -1.5),
        ("nan.nii", f32::NAN),
    ] {
        let spacing = spacing.to_le_bytes();
        // Only `pixdim` says the spacing.
        let path = changed(&place, name, &[(80, &spacing), (252, &[0; 4])]);
        place.refuses(&path, &["`pixdim[1]` is", "expected a distance above 0"]);
    }
}

#[test]
fn spacing_that_is_no_length() {
    let place = Place::new();
    let input = repository("golden/ct/thorax_1.5mm.nii.gz");
    for spacing in ["0,1,1", "1,-2,1", "1,1,nan"] {
        let out = place.path("out.safetensors");
        run(arguments![
            "preprocess",
            &input,
            "--out",
            &out,
            "--spacing",
            spacing,
        ])
        .failed(&["thorax_1.5mm.nii.gz", "--spacing X,Y,Z"]);
        assert!(!out.exists());
    }
}

#[test]
fn voxels_that_are_not_numbers() {
    let place = Place::new();
    let mut volume = read_nifti(&repository("golden/ct/thorax_1.5mm.nii.gz")).unwrap();
    let mut values: Vec<f32> = match volume.voxels {
        Voxels::I16(values) => values.into_iter().map(f32::from).collect(),
        Voxels::F32(values) => values,
    };
    for value in values.iter_mut().step_by(10) {
        *value = f32::NAN;
    }
    volume.voxels = Voxels::F32(values);
    let some = place.path("some_nan.nii");
    write_nifti(&some, &volume, WriteOptions::default()).unwrap();
    let out = place.path("out.safetensors");
    let ran = run(arguments![
        "preprocess",
        &some,
        "--shape",
        "8,16,16",
        "--out",
        &out,
    ]);
    assert!(ran.succeeded().stderr.contains("NaN"), "said nothing");
    fs::remove_file(&out).unwrap();

    volume.voxels = Voxels::F32(vec![f32::NAN; volume.voxels.len()]);
    let all = place.path("all_nan.nii");
    write_nifti(&all, &volume, WriteOptions::default()).unwrap();
    place.refuses(&all, &["NaN or infinite", "make it again"]);
}

#[test]
fn files_that_are_no_scan() {
    let place = Place::new();
    let empty = place.path("empty_folder");
    fs::create_dir(&empty).unwrap();
    place.refuses(&empty, &["an empty folder", "expected a NIfTI file"]);
    let pdf = place.write("letter.nii.gz", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n");
    place.refuses(&pdf, &["PDF", "expected a NIfTI file"]);
    let prose = place.write("notes.nii", b"The heart is normal.");
    place.refuses(&prose, &["text", "expected a NIfTI file"]);
    let nothing = place.write("nothing.nii.gz", b"");
    place.refuses(&nothing, &["an empty file", "expected a NIfTI file"]);
    place.refuses(
        &place.path("absent.nii.gz"),
        &["cannot read", "No such file"],
    );
    let colour = repository("crates/dcformer-volume/tests/data/variants/m01_rgb24.nii.gz");
    place.refuses(&colour, &["RGB24", "one number per voxel"]);
}

/// The series of three slices with bytes replaced in each: `from` must be there.
fn changed_series(place: &Place, name: &str, from: &[u8], to: &[u8]) -> PathBuf {
    let series = "crates/dcformer-volume/tests/data/dicom/lungpetctdx_A0002_B70f_3slices";
    let folder = place.path(name);
    fs::create_dir(&folder).unwrap();
    for entry in fs::read_dir(repository(series)).unwrap() {
        let entry = entry.unwrap();
        let mut bytes = fs::read(entry.path()).unwrap();
        let at = bytes
            .windows(from.len())
            .position(|window| window == from)
            .expect("the element to change");
        bytes[at..at + to.len()].copy_from_slice(to);
        fs::write(folder.join(entry.file_name()), bytes).unwrap();
    }
    folder
}

#[test]
fn dicom_that_is_no_volume() {
    let place = Place::new();
    // (0020,0032), the position, under the number of a retired element.
    let lost = changed_series(&place, "no_positions", b"\x20\0\x32\0DS", b"\x20\0\x31\0DS");
    place.refuses(
        &lost,
        &["`ImagePositionPatient` is absent", "export the scan again"],
    );
    let rgb = changed_series(&place, "colour", b"MONOCHROME2 ", b"RGB         ");
    place.refuses(&rgb, &["colour", "pass a folder"]);
    let slice = "crates/dcformer-volume/tests/data/dicom/pydicom/CT_small.dcm";
    let slice = repository(slice);
    place.refuses(&slice, &["a single slice", "pass the folder"]);
}

#[test]
fn checkpoints_of_other_things() {
    let place = Place::new();
    let out = place.path("model");
    let import = |path: &Path, parts: &[&str]| {
        let before = files(place.0.path());
        run(arguments!["import", path, "--out", &out]).failed(parts);
        assert_eq!(files(place.0.path()), before, "something is left");
    };
    let resnet = place.path("resnet.safetensors");
    let weight = Values {
        shape: vec![2, 2],
        values: vec![0.0; 4],
    };
    write(&resnet, &[("layer1.0.conv1.weight", &weight)]).unwrap();
    import(
        &resnet,
        &[
            "resnet.safetensors",
            "not those of dcformer",
            "unknown: layer1.0.conv1.weight",
        ],
    );
    let nano = repository("golden/dcformer_nano_weights.safetensors");
    run(arguments![
        "import",
        &nano,
        "--out",
        &out,
        "--variant",
        "tiny"
    ])
    .failed(&["dcformer_nano_weights", "missing: ", "shape: "]);
    for name in ["runs_a_command.pth", "command_for_a_tensor.pth"] {
        let path = repository(&format!("crates/dcformer/tests/data/{name}"));
        let here = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dcformer"));
        command.args(arguments!["import", &path, "--out", &out]);
        command.current_dir(here.path());
        Ran::new(command.output().unwrap()).failed(&[name]);
        assert_eq!(
            files(here.path()),
            [] as [PathBuf; 0],
            "{name} ran its command"
        );
        assert!(!out.exists());
    }
    let document = place.write("notes.txt", b"weights");
    import(&document, &["notes.txt", "expected .pth"]);
}

#[test]
fn tables_without_a_column() {
    let place = Place::new();
    let table = place.write("labels.csv", b"scan,Emphysema\na.nii.gz,1\n");
    run(arguments!["evaluate", "--data", &table, "--model", "model"]).failed(&[
        "labels.csv",
        "`volume` is missing",
        "add or rename it",
    ]);
}

#[test]
fn places_that_cannot_be_written() {
    let place = Place::new();
    let file = place.write("file", b"in the way");
    let below = file.join("below.safetensors");
    let thorax = repository("golden/ct/thorax_1.5mm.nii.gz");
    let nano = repository("golden/dcformer_nano_weights.safetensors");
    let cure = ["below.safetensors", "name a place that may be written"];
    let steps = arguments!["preprocess", &thorax, "--shape", "8,8,8", "--out", &below];
    run(&steps).failed(&cure);
    run(arguments!["import", &nano, "--out", &below]).failed(&cure);
    run(arguments![
        "phantom", &below, "--train", "0", "--valid", "1"
    ])
    .failed(&["below.safetensors"]);
    // A folder that holds something else is nobody's to replace.
    let precious = place.path("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("thesis.txt"), "years").unwrap();
    run(arguments!["import", &nano, "--out", &precious])
        .failed(&["precious", "choose another place"]);
    assert_eq!(
        fs::read_to_string(precious.join("thesis.txt")).unwrap(),
        "years"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "in the way");
    assert_eq!(files(place.0.path()).len(), 3);
}

/// A limit on the size of files stands for a full disk: writing fails after some bytes went well.
#[cfg(unix)]
#[test]
fn a_disk_that_fills_up() {
    let place = Place::new();
    let out = place.path("out");
    let (thorax, nano) = (
        repository("golden/ct/thorax_1.5mm.nii.gz"),
        repository("golden/dcformer_nano_weights.safetensors"),
    );
    for arguments in [
        arguments!["preprocess", &thorax, "--shape", "64,64,64", "--out", &out],
        arguments!["import", &nano, "--out", &out, "--variant", "nano"],
    ] {
        let mut command = std::process::Command::new("sh");
        // Without the trap the signal of the limit would end the program.
        command.args(["-c", r#"trap "" XFSZ; ulimit -f 64; exec "$0" "$@""#]);
        command.arg(env!("CARGO_BIN_EXE_dcformer")).args(arguments);
        Ran::new(command.output().unwrap()).failed(&["cannot write", "out", "has room"]);
        assert_eq!(
            files(place.0.path()),
            [] as [PathBuf; 0],
            "something is left"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_device_is_written_to_and_not_replaced() {
    let nano = repository("golden/dcformer_nano_weights.safetensors");
    let place = Place::new();
    let model = place.path("model");
    run(arguments!["import", &nano, "--out", &model]).succeeded();
    run(arguments!["export", &model, "--out", "/dev/full"]).failed(&[
        "cannot write /dev/full",
        "has room",
        "No space left",
    ]);
    run(arguments!["export", &model, "--out", "/dev/null"]).succeeded();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn models_that_are_none() {
    let place = Place::new();
    let thorax = repository("golden/ct/thorax_1.5mm.nii.gz");
    let absent = place.path("absent_model");
    run(arguments!["detect", "--model", &absent, &thorax]).failed(&[
        "absent_model",
        "cannot detect with the model",
        "config.json",
    ]);
    // An encoder has no words.
    let encoder = place.path("encoder");
    let nano = repository("golden/dcformer_nano_weights.safetensors");
    run(arguments!["import", &nano, "--out", &encoder]).succeeded();
    run(arguments!["detect", "--model", &encoder, &thorax])
        .failed(&["encoder", "the model has no text encoder"]);
}
