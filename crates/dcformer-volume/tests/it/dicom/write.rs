//! Slices written with dicom-object, which shares no code with the reader.

use std::path::Path;

use dicom_core::value::{DataSetSequence, PixelFragmentSequence};
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

/// A slice to be written; [`Slice::default`] is an ordinary CT one of 4x3 pixels.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    pub(super) modality: &'static str,
    pub(super) class: &'static str,
    pub(super) series: String,
    pub(super) number: i32,
    pub(super) instance: String,
    pub(super) acquisition: i32,
    /// `None` leaves the attribute out.
    pub(super) position: Option<[f64; 3]>,
    pub(super) orientation: [f64; 6],
    /// Between rows, between columns.
    pub(super) spacing: [f64; 2],
    pub(super) thickness: f64,
    pub(super) rows: u16,
    pub(super) columns: u16,
    pub(super) bits: [u16; 3],
    pub(super) signed: bool,
    pub(super) slope: f64,
    pub(super) intercept: f64,
    pub(super) photometric: &'static str,
    pub(super) syntax: &'static str,
    /// Stored words.
    pub(super) words: Vec<u16>,
    /// Taken instead of `words`, as the only fragment.
    pub(super) coded: Option<Vec<u8>>,
}

impl Default for Slice {
    fn default() -> Self {
        Self {
            modality: "CT",
            class: uids::CT_IMAGE_STORAGE,
            series: "1.2.3".into(),
            number: 1,
            instance: String::new(),
            acquisition: 1,
            position: Some([0.0; 3]),
            orientation: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            spacing: [1.0, 1.0],
            thickness: 1.0,
            rows: 3,
            columns: 4,
            bits: [16, 16, 15],
            signed: true,
            slope: 1.0,
            intercept: 0.0,
            photometric: "MONOCHROME2",
            syntax: uids::EXPLICIT_VR_LITTLE_ENDIAN,
            words: (0..12).collect(),
            coded: None,
        }
    }
}

fn decimals(values: &[f64]) -> PrimitiveValue {
    PrimitiveValue::Strs(values.iter().map(|value| format!("{value:.8}")).collect())
}

impl Slice {
    /// A slice at `z`, all of one value.
    pub(super) fn at(z: f64, value: u16) -> Self {
        let instance = format!("1.2.3.{}", (z * 1000.0).round() + 1e6);
        Self {
            position: Some([0.0, 0.0, z]),
            words: vec![value; 12],
            instance,
            ..Self::default()
        }
    }

    fn object(&self) -> InMemDicomObject {
        let mut object = InMemDicomObject::new_empty();
        let mut put = |tag: Tag, vr: VR, value: PrimitiveValue| {
            object.put(DataElement::new(tag, vr, value));
        };
        put(tags::SOP_CLASS_UID, VR::UI, self.class.into());
        if !self.instance.is_empty() {
            put(
                tags::SOP_INSTANCE_UID,
                VR::UI,
                self.instance.as_str().into(),
            );
        }
        put(tags::MODALITY, VR::CS, self.modality.into());
        put(tags::SLICE_THICKNESS, VR::DS, decimals(&[self.thickness]));
        put(
            tags::SERIES_INSTANCE_UID,
            VR::UI,
            self.series.as_str().into(),
        );
        put(tags::SERIES_NUMBER, VR::IS, self.number.to_string().into());
        put(
            tags::ACQUISITION_NUMBER,
            VR::IS,
            self.acquisition.to_string().into(),
        );
        if let Some(position) = self.position {
            put(tags::IMAGE_POSITION_PATIENT, VR::DS, decimals(&position));
        }
        put(
            tags::IMAGE_ORIENTATION_PATIENT,
            VR::DS,
            decimals(&self.orientation),
        );
        put(
            tags::SAMPLES_PER_PIXEL,
            VR::US,
            if self.photometric == "RGB" { 3_u16 } else { 1 }.into(),
        );
        put(
            tags::PHOTOMETRIC_INTERPRETATION,
            VR::CS,
            self.photometric.into(),
        );
        put(tags::ROWS, VR::US, self.rows.into());
        put(tags::COLUMNS, VR::US, self.columns.into());
        put(tags::PIXEL_SPACING, VR::DS, decimals(&self.spacing));
        put(tags::BITS_ALLOCATED, VR::US, self.bits[0].into());
        put(tags::BITS_STORED, VR::US, self.bits[1].into());
        put(tags::HIGH_BIT, VR::US, self.bits[2].into());
        put(
            tags::PIXEL_REPRESENTATION,
            VR::US,
            u16::from(self.signed).into(),
        );
        put(tags::RESCALE_INTERCEPT, VR::DS, decimals(&[self.intercept]));
        put(tags::RESCALE_SLOPE, VR::DS, decimals(&[self.slope]));
        match &self.coded {
            Some(coded) => {
                let mut fragment = coded.clone();
                fragment.resize(fragment.len().next_multiple_of(2), 0);
                let fragments = PixelFragmentSequence::new(Vec::<u32>::new(), vec![fragment]);
                object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, fragments));
            }
            None => put(
                tags::PIXEL_DATA,
                VR::OW,
                PrimitiveValue::U16(self.words.clone().into()),
            ),
        }
        object
    }

    pub(super) fn write(&self, path: &Path) {
        write(self.object(), self.syntax, self.class, path);
    }

    /// Writes `places.len()` frames of this slice as one enhanced CT, each at its place, all of the value of its index.
    pub(super) fn write_enhanced(&self, places: &[[f64; 3]], path: &Path) {
        let mut object = self.object();
        for tag in [
            tags::IMAGE_POSITION_PATIENT,
            tags::IMAGE_ORIENTATION_PATIENT,
            tags::PIXEL_SPACING,
            tags::SLICE_THICKNESS,
            tags::RESCALE_SLOPE,
            tags::RESCALE_INTERCEPT,
        ] {
            object.remove_element(tag);
        }
        let group = |sequence: Tag, elements: &[(Tag, &[f64])]| {
            let elements = elements
                .iter()
                .map(|(tag, values)| DataElement::new(*tag, VR::DS, decimals(values)));
            let item = InMemDicomObject::from_element_iter(elements);
            DataElement::new(sequence, VR::SQ, DataSetSequence::from(vec![item]))
        };
        let shared = InMemDicomObject::from_element_iter([
            group(
                tags::PLANE_ORIENTATION_SEQUENCE,
                &[(tags::IMAGE_ORIENTATION_PATIENT, &self.orientation)],
            ),
            group(
                tags::PIXEL_MEASURES_SEQUENCE,
                &[
                    (tags::PIXEL_SPACING, &self.spacing),
                    (tags::SLICE_THICKNESS, &[self.thickness]),
                ],
            ),
        ]);
        let per_frame = places.iter().enumerate().map(|(index, place)| {
            InMemDicomObject::from_element_iter([
                group(
                    tags::PLANE_POSITION_SEQUENCE,
                    &[(tags::IMAGE_POSITION_PATIENT, place)],
                ),
                group(
                    tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
                    &[
                        (tags::RESCALE_SLOPE, &[1.0]),
                        (tags::RESCALE_INTERCEPT, &[100.0 * index as f64]),
                    ],
                ),
            ])
        });
        let per_frame: Vec<_> = per_frame.collect();
        let sequence = |tag, items: Vec<InMemDicomObject>| {
            DataElement::new(tag, VR::SQ, DataSetSequence::from(items))
        };
        object.put(sequence(
            tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
            vec![shared],
        ));
        object.put(sequence(
            tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
            per_frame,
        ));
        object.put(DataElement::new(
            tags::NUMBER_OF_FRAMES,
            VR::IS,
            places.len().to_string(),
        ));
        let pixels = usize::from(self.rows) * usize::from(self.columns);
        let words: Vec<u16> = (0..places.len())
            .flat_map(|frame| vec![frame as u16; pixels])
            .collect();
        object.put(DataElement::new(
            tags::PIXEL_DATA,
            VR::OW,
            PrimitiveValue::U16(words.into()),
        ));
        write(object, self.syntax, uids::ENHANCED_CT_IMAGE_STORAGE, path);
    }
}

fn write(object: InMemDicomObject, syntax: &str, class: &str, path: &Path) {
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(syntax)
        .media_storage_sop_class_uid(class)
        .media_storage_sop_instance_uid("1.2.3.4");
    object.with_meta(meta).unwrap().write_to_file(path).unwrap();
}

/// Writes slices as `000`, `001`, ... into a new folder.
pub(super) fn folder(slices: &[Slice]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (index, slice) in slices.iter().enumerate() {
        slice.write(&folder.path().join(format!("{index:03}")));
    }
    folder
}
