use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;
use crate::random::Random;

const WIDTH: usize = 8;

fn provenance(width: usize) -> Provenance {
    Provenance {
        format: FORMAT,
        version: "1.2.3".to_owned(),
        model_sha256: "ab".repeat(32),
        width,
        preset: "dcformer".to_owned(),
        preprocess: Preprocess::dcformer(),
    }
}

fn labels() -> Vec<String> {
    ["Emphysema", "Pleural effusion; left.right"]
        .map(str::to_owned)
        .to_vec()
}

fn entry(row: usize) -> Entry {
    let is = |multiple: usize| row.is_multiple_of(multiple);
    Entry {
        volume: format!("v{row}.nii.gz"),
        patient: format!("p{}", row / 3),
        study: format!("s{}", row / 2),
        split: is(2).then(|| "train".to_owned()),
        report: (!is(5)).then(|| format!("Befund: {row} \u{b5}m.\nNo \"nodule\".")),
        labels: vec![Some(is(4)), (!is(3)).then(|| is(2))],
    }
}

fn latent(row: usize) -> Vec<f32> {
    let mut random = Random::new(1, "latent", row as u64);
    let values: Vec<f32> = (0..WIDTH).map(|_| random.normal() as f32).collect();
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.iter().map(|value| value / length).collect()
}

/// A file of so many rows in a folder that goes with it.
fn written(rows: usize) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("latents.parquet");
    let pushed = |writer: &mut LatentWriter| {
        for row in 0..rows {
            writer
                .push(entry(row), &latent(row))
                .expect("it can be written");
        }
        Ok(writer.rows())
    };
    let count = LatentWriter::create(&path, &provenance(WIDTH), &labels(), pushed);
    assert_eq!(count.expect("it can be written"), rows);
    (folder, path)
}

#[test]
fn what_is_written_is_read_back() {
    // Two whole row groups and a part of one.
    const ROWS: usize = 2500;
    let (_folder, path) = written(ROWS);
    let file = LatentFile::open(&path).unwrap();
    assert_eq!((file.rows(), file.provenance()), (ROWS, &provenance(WIDTH)));
    assert_eq!(file.labels().collect::<Vec<_>>(), labels());
    let expected: Vec<f32> = (0..ROWS).flat_map(latent).collect();
    assert_eq!(file.read_latents().unwrap(), expected);
    let studies: Vec<u32> = (0..ROWS as u32).map(|row| row / 2).collect();
    assert_eq!(file.read_studies().unwrap(), studies);
    let rows = [2499, 0, 1023, 1024, 30, 2048, 0];
    assert_eq!(file.read_entries(&rows).unwrap(), rows.map(entry));
    assert!(file.read_entries(&[]).unwrap().is_empty());
}

#[test]
fn a_failure_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latents.parquet");
    let failed = LatentWriter::create(&path, &provenance(WIDTH), &labels(), |writer| {
        writer
            .push(entry(0), &latent(0))
            .expect("it can be written");
        Err::<(), _>(Error::Stopped)
    });
    assert!(matches!(failed, Err(Error::Stopped)));
    let named = ["volume".to_owned()];
    let failed = LatentWriter::create(&path, &provenance(WIDTH), &named, |_| Ok(()));
    let message = failed.unwrap_err().to_string();
    assert!(message.contains("`volume`"), "{message}");
    let nowhere = folder.path().join("no/such/folder.parquet");
    let failed = LatentWriter::create(&nowhere, &provenance(WIDTH), &[], |_| Ok(()));
    assert!(matches!(failed, Err(Error::Write { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// All that a reader of the file does.
fn read_all(path: &Path) -> Result<()> {
    let file = LatentFile::open(path)?;
    file.read_latents()?;
    file.read_studies()?;
    file.read_entries(&(0..file.rows()).collect::<Vec<_>>())?;
    Ok(())
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused() {
    let (_folder, path) = written(3);
    let bytes = fs::read(&path).unwrap();
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        let message = read_all(&path).unwrap_err().to_string();
        assert!(message.contains("latents.parquet"), "{length}: {message}");
    }
}

#[test]
fn a_file_that_is_changed_anywhere_is_read_or_refused_but_never_believed_blindly() {
    let (_folder, path) = written(3);
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    for place in 0..whole.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[place] ^= change;
            fs::write(&path, &bytes).unwrap();
            refused += usize::from(read_all(&path).is_err());
        }
    }
    // Names and reports may be anything, the rest may not.
    assert!(refused > whole.len(), "{refused} of {}", 3 * whole.len());
}

/// What is said of a file.
fn said(path: &Path) -> String {
    read_all(path).unwrap_err().to_string()
}

#[test]
fn latents_that_are_no_directions_are_refused() {
    let (_folder, path) = written(0);
    for wrong in [f32::NAN, f32::INFINITY, 2.0, 0.0] {
        let create = LatentWriter::create(&path, &provenance(WIDTH), &labels(), |writer| {
            writer
                .push(entry(0), &latent(0))
                .expect("it can be written");
            let mut values = vec![0.0; WIDTH];
            values[3] = wrong;
            writer.push(entry(1), &values).expect("it can be written");
            Ok(())
        });
        create.unwrap();
        let message = said(&path);
        assert!(message.contains("the latent of row 1"), "{message}");
    }
}

/// An empty file of a stranger, with this schema and metadata.
fn strange(path: &Path, schema: &str, metadata: &str) {
    let schema = format!("message m {{ {schema} }}");
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let metadata = KeyValue::new(PROVENANCE.to_owned(), metadata.to_owned());
    let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![metadata]));
    let file = fs::File::create(path).unwrap();
    let writer = SerializedFileWriter::new(file, schema, Arc::new(properties.build()));
    writer.unwrap().close().unwrap();
}

#[test]
fn other_parquet_files_are_refused_by_what_they_lack() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latents.parquet");
    let json = serde_json::to_string(&provenance(WIDTH)).unwrap();
    let texts = "required binary volume (STRING); required binary patient (STRING); \
                 required binary study (STRING); optional binary split (STRING); optional binary report (STRING);";
    let list = "required group latent (LIST) { repeated group list { required float element; } }";
    let cases = [
        (
            "required int32 a;".to_owned(),
            json.clone(),
            "no column `volume`, but `a`",
        ),
        (texts.to_owned(), json.clone(), "no column `latent`"),
        (
            format!("{texts} required float latent;"),
            json.clone(),
            "not lists of float32",
        ),
        (
            format!("{texts} {list}").replace("float", "double"),
            json.clone(),
            "not lists of float32",
        ),
        (
            format!("{texts} {list}")
                .replace("required binary study (STRING)", "required int64 study"),
            json.clone(),
            "`study` is not text",
        ),
        (format!("{texts} {list}"), "{".to_owned(), "no JSON"),
        (
            format!("{texts} {list}"),
            "{\"format\": 9}".to_owned(),
            "its format is 9",
        ),
        (
            format!("{texts} {list}"),
            "{\"format\": 1}".to_owned(),
            "says something else",
        ),
        (
            format!("{texts} {list}"),
            json.replace("\"width\":8", "\"width\":0"),
            "0 numbers",
        ),
    ];
    for (schema, metadata, expected) in cases {
        strange(&path, &schema, &metadata);
        let message = said(&path);
        assert!(
            message.contains(expected),
            "{expected:?} is not in {message}"
        );
        assert!(message.contains("dcformer embed --data"), "{message}");
    }
    // With all columns and no rows it is one.
    strange(&path, &format!("{texts} {list}"), &json);
    read_all(&path).unwrap();
    fs::write(&path, "volume,report\n").unwrap();
    assert!(said(&path).contains("not a readable Parquet file"));
    assert!(said(&folder.path().join("none.parquet")).contains("cannot read"));
}

#[test]
fn a_file_that_lies_about_its_latents_is_refused() {
    let (_folder, path) = written(3);
    let bytes = fs::read(&path).unwrap();
    let claim = |width: &str| {
        // As long as before, so that the rest stays where it is.
        let place = bytes
            .windows(10)
            .position(|part| part == b"\"width\":8,")
            .unwrap();
        let mut bytes = bytes.clone();
        bytes[place + 8] = width.as_bytes()[0];
        fs::write(&path, bytes).unwrap();
        said(&path)
    };
    for width in ["4", "9"] {
        let message = claim(width);
        assert!(message.contains("a row group claims 3 rows"), "{message}");
    }
}

/// The tables of a message, read by their description: every offset is followed, nothing is taken from the writer.
struct Table<'a> {
    bytes: &'a [u8],
    place: usize,
}

impl<'a> Table<'a> {
    fn number<const N: usize>(bytes: &[u8], place: usize) -> u64 {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&bytes[place..place + N]);
        u64::from_le_bytes(wide)
    }

    fn at(bytes: &'a [u8], reference: usize) -> Self {
        let place = reference + Self::number::<4>(bytes, reference) as usize;
        assert!(place.is_multiple_of(4));
        Self { bytes, place }
    }

    /// Where a field is.
    fn field(&self, number: usize) -> Option<usize> {
        let list = self.place - Self::number::<4>(self.bytes, self.place) as usize;
        let fields = (Self::number::<2>(self.bytes, list) as usize - 4) / 2;
        let offset = Self::number::<2>(self.bytes, list + 4 + 2 * number) as usize;
        (number < fields && offset > 0).then(|| self.place + offset)
    }

    fn table(&self, number: usize) -> Self {
        Self::at(self.bytes, self.field(number).expect("a field"))
    }

    fn text(&self, number: usize) -> &'a str {
        let text = self.table(number);
        let length = Self::number::<4>(self.bytes, text.place) as usize;
        assert_eq!(self.bytes[text.place + 4 + length], 0);
        std::str::from_utf8(&self.bytes[text.place + 4..][..length]).unwrap()
    }

    fn list(&self, number: usize) -> Vec<Self> {
        let list = self.table(number);
        let count = Self::number::<4>(self.bytes, list.place) as usize;
        let elements = (0..count).map(|index| list.place + 4 + 4 * index);
        elements
            .map(|reference| Self::at(self.bytes, reference))
            .collect()
    }
}

/// Of base64 what stands for the bits.
fn bytes_of_base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let text = text.trim_end_matches('=');
    let bits = text.bytes().map(value).collect::<Vec<_>>();
    let bit = |index: usize| bits[index / 6] >> (5 - index % 6) & 1;
    let byte = |index: usize| (0..8).fold(0, |byte, b| byte << 1 | bit(8 * index + b));
    (0..bits.len() * 6 / 8).map(byte).collect()
}

#[test]
fn arrow_is_told_that_the_lists_have_one_length() {
    let fields = [
        ("volume", false, arrow::Kind::Text),
        ("latent", false, arrow::Kind::Floats(512)),
        ("Emphysema", true, arrow::Kind::Boolean),
    ];
    let fields = fields.map(|(name, nullable, kind)| arrow::Field {
        name,
        nullable,
        kind,
    });
    let bytes = bytes_of_base64(&arrow::schema(&fields, &[("made", "by"), ("at", "")]));
    assert_eq!(bytes[..4], [0xff; 4]);
    let bytes = &bytes[8..][..Table::number::<4>(&bytes, 4) as usize];
    let message = Table::at(bytes, 0);
    let field = |table: &Table<'_>, number| bytes[table.field(number).unwrap()];
    // MetadataVersion V5, MessageHeader Schema.
    assert_eq!((field(&message, 0), field(&message, 1)), (4, 1));
    let metadata = message.table(2).list(2);
    let metadata: Vec<_> = metadata
        .iter()
        .map(|pair| (pair.text(0), pair.text(1)))
        .collect();
    assert_eq!(metadata, [("made", "by"), ("at", "")]);
    let columns = message.table(2).list(1);
    let found: Vec<(&str, u8, u8, usize)> = columns
        .iter()
        .map(|column| {
            let children = column.list(5).len();
            (column.text(0), field(column, 1), field(column, 2), children)
        })
        .collect();
    // Utf8, FixedSizeList of one child, Bool.
    assert_eq!(
        found,
        [
            ("volume", 0, 5, 0),
            ("latent", 0, 16, 1),
            ("Emphysema", 1, 6, 0)
        ]
    );
    let list = columns[1].table(3);
    assert_eq!(Table::number::<4>(bytes, list.field(0).unwrap()), 512);
    let element = &columns[1].list(5)[0];
    // FloatingPoint, single precision.
    assert_eq!((element.text(0), field(element, 2)), ("element", 3));
    assert_eq!(field(&element.table(3), 0), 1);
}
