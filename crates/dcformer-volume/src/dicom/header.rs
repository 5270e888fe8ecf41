//! The attributes of an image that decide where it belongs and what its numbers mean.
#![warn(clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use super::elements::{Element, Elements, Fault, Tag};
use super::source::{self, Parsed, TransferSyntax};
use crate::volume::Rescale;
use crate::{Error, Result};

const IMAGE_TYPE: Tag = Tag(0x0008, 0x0008);
const SOP_CLASS_UID: Tag = Tag(0x0008, 0x0016);
const SOP_INSTANCE_UID: Tag = Tag(0x0008, 0x0018);
const MODALITY: Tag = Tag(0x0008, 0x0060);
const SERIES_DESCRIPTION: Tag = Tag(0x0008, 0x103E);
const SLICE_THICKNESS: Tag = Tag(0x0018, 0x0050);
const SERIES_INSTANCE_UID: Tag = Tag(0x0020, 0x000E);
const SERIES_NUMBER: Tag = Tag(0x0020, 0x0011);
const ACQUISITION_NUMBER: Tag = Tag(0x0020, 0x0012);
const IMAGE_POSITION: Tag = Tag(0x0020, 0x0032);
const IMAGE_ORIENTATION: Tag = Tag(0x0020, 0x0037);
const TEMPORAL_POSITION: Tag = Tag(0x0020, 0x0100);
const PLANE_POSITION_SEQUENCE: Tag = Tag(0x0020, 0x9113);
const PLANE_ORIENTATION_SEQUENCE: Tag = Tag(0x0020, 0x9116);
const SAMPLES_PER_PIXEL: Tag = Tag(0x0028, 0x0002);
const PHOTOMETRIC_INTERPRETATION: Tag = Tag(0x0028, 0x0004);
const NUMBER_OF_FRAMES: Tag = Tag(0x0028, 0x0008);
const ROWS: Tag = Tag(0x0028, 0x0010);
const COLUMNS: Tag = Tag(0x0028, 0x0011);
const PIXEL_SPACING: Tag = Tag(0x0028, 0x0030);
const BITS_ALLOCATED: Tag = Tag(0x0028, 0x0100);
const BITS_STORED: Tag = Tag(0x0028, 0x0101);
const HIGH_BIT: Tag = Tag(0x0028, 0x0102);
const PIXEL_REPRESENTATION: Tag = Tag(0x0028, 0x0103);
const RESCALE_INTERCEPT: Tag = Tag(0x0028, 0x1052);
const RESCALE_SLOPE: Tag = Tag(0x0028, 0x1053);
const RESCALE_TYPE: Tag = Tag(0x0028, 0x1054);
const MODALITY_LUT_SEQUENCE: Tag = Tag(0x0028, 0x3000);
const PIXEL_MEASURES_SEQUENCE: Tag = Tag(0x0028, 0x9110);
const PIXEL_VALUE_TRANSFORMATION_SEQUENCE: Tag = Tag(0x0028, 0x9145);
const SHARED_FUNCTIONAL_GROUPS_SEQUENCE: Tag = Tag(0x5200, 0x9229);
const PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE: Tag = Tag(0x5200, 0x9230);

/// Where a frame is and what its numbers mean. What the file does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Frame {
    /// Centre of the first pixel, millimetres, LPS.
    pub(super) position: Option<[f64; 3]>,
    /// Unit vectors along a row and along a column, LPS.
    pub(super) orientation: Option<[f64; 6]>,
    /// Between rows, between columns, millimetres.
    pub(super) pixel_spacing: Option<[f64; 2]>,
    pub(super) thickness_mm: Option<f64>,
    pub(super) slope: Option<f64>,
    pub(super) intercept: Option<f64>,
}

impl Frame {
    /// Nothing said.
    pub(super) const NOTHING: Self = Self {
        position: None,
        orientation: None,
        pixel_spacing: None,
        thickness_mm: None,
        slope: None,
        intercept: None,
    };

    /// Stored values to Hounsfield units; those of the file itself where it says nothing.
    pub(super) fn rescale(&self) -> Rescale {
        Rescale {
            slope: self.slope.unwrap_or(1.0),
            intercept: self.intercept.unwrap_or(0.0),
        }
    }

    /// Takes an attribute that can stand at the top or in a functional group; `false` if it is another.
    fn take(&mut self, element: &Element<'_>) -> Result<bool, Invalid> {
        match element.tag {
            IMAGE_POSITION => self.position = numbers(element, "ImagePositionPatient")?,
            IMAGE_ORIENTATION => self.orientation = numbers(element, "ImageOrientationPatient")?,
            PIXEL_SPACING => self.pixel_spacing = numbers(element, "PixelSpacing")?,
            SLICE_THICKNESS => self.thickness_mm = number(element, "SliceThickness")?,
            RESCALE_SLOPE => self.slope = number(element, "RescaleSlope")?,
            RESCALE_INTERCEPT => self.intercept = number(element, "RescaleIntercept")?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes what one item of a functional groups sequence says.
    fn take_groups(&mut self, mut groups: Elements<'_>) -> Result<(), Invalid> {
        while let Some(group) = groups.next()? {
            let known = [
                PLANE_POSITION_SEQUENCE,
                PLANE_ORIENTATION_SEQUENCE,
                PIXEL_MEASURES_SEQUENCE,
                PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
            ];
            if !known.contains(&group.tag) {
                continue;
            }
            for mut item in group.items()? {
                while let Some(element) = item.next()? {
                    self.take(&element)?;
                }
            }
        }
        Ok(())
    }
}

/// Attributes of an image file, its pixels left where they are.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) path: PathBuf,
    pub(super) syntax: TransferSyntax,
    pub(super) sop_class: String,
    pub(super) sop_instance: String,
    pub(super) modality: String,
    pub(super) series_uid: String,
    pub(super) series_number: Option<i64>,
    pub(super) description: String,
    pub(super) localizer: bool,
    pub(super) acquisition: Option<i64>,
    pub(super) temporal_position: Option<i64>,
    pub(super) rescale_type: String,
    pub(super) modality_lut: bool,
    pub(super) rows: u16,
    pub(super) columns: u16,
    pub(super) samples_per_pixel: u16,
    pub(super) photometric: String,
    pub(super) bits_allocated: u16,
    pub(super) bits_stored: u16,
    pub(super) high_bit: u16,
    pub(super) signed: bool,
    /// One for an ordinary slice; none if there are several and not each is described.
    pub(super) frames: Vec<Frame>,
    /// In the file, or in its inflated data set.
    pub(super) pixel_offset: u64,
    /// `None`: encapsulated.
    pub(super) pixel_length: Option<u32>,
}

/// What reading the header of a file gave.
#[derive(Debug)]
pub(super) enum Scanned {
    Image(Box<Header>),
    /// DICOM, but no picture: a report, a plan, a DICOMDIR. Its modality, or an empty text.
    Document(String),
    Other,
}

/// Reads the header of a file.
pub(super) fn scan(path: &Path) -> Result<Scanned> {
    let parsed = source::parse(path, |data_set| {
        let mut attributes = Attributes::default();
        match attributes.collect(data_set.elements()) {
            Ok(()) => {}
            Err(Invalid::Fault(fault)) => return Ok(Err(fault)),
            Err(Invalid::Field {
                field,
                found,
                expected,
            }) => {
                return Err(Error::Header {
                    path: path.to_owned(),
                    field,
                    found,
                    expected,
                });
            }
        }
        if !data_set.certain && attributes.sop_class.is_empty() && attributes.modality.is_empty() {
            return Ok(Ok(Scanned::Other));
        }
        attributes.finish(path, data_set.syntax).map(Ok)
    })?;
    Ok(match parsed {
        Parsed::Dicom(scanned) => scanned,
        Parsed::Other => Scanned::Other,
    })
}

/// Why an attribute cannot be used.
enum Invalid {
    Fault(Fault),
    Field {
        field: &'static str,
        found: String,
        expected: &'static str,
    },
}

impl From<Fault> for Invalid {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Numbers written as text (DS, IS); an empty value is none.
fn numbers<const N: usize>(
    element: &Element<'_>,
    field: &'static str,
) -> Result<Option<[f64; N]>, Invalid> {
    let text = element.text();
    if text.is_empty() {
        return Ok(None);
    }
    let mut parts = text.split('\\').map(|part| {
        part.trim()
            .parse::<f64>()
            .ok()
            .filter(|value| value.is_finite())
    });
    let mut values = [0.0; N];
    let complete = values.iter_mut().all(|value| match parts.next().flatten() {
        Some(part) => {
            *value = part;
            true
        }
        None => false,
    });
    if !complete || parts.next().is_some() {
        let expected = match N {
            1 => "one decimal number",
            2 => "two decimal numbers",
            3 => "three decimal numbers",
            _ => "six decimal numbers",
        };
        return Err(Invalid::Field {
            field,
            found: shorten(&text),
            expected,
        });
    }
    Ok(Some(values))
}

fn number(element: &Element<'_>, field: &'static str) -> Result<Option<f64>, Invalid> {
    Ok(numbers::<1>(element, field)?.map(|[value]| value))
}

/// A text of the file for a message: its first forty characters, in quotes.
pub(super) fn shorten(text: &str) -> String {
    const SHOWN: usize = 40;
    let short: String = text.chars().take(SHOWN).collect();
    format!(
        "{short:?}{}",
        if short.len() < text.len() { ".." } else { "" }
    )
}

#[derive(Default)]
struct Attributes {
    sop_class: String,
    sop_instance: String,
    modality: String,
    series_uid: String,
    series_number: Option<i64>,
    description: String,
    image_type: String,
    acquisition: Option<i64>,
    temporal_position: Option<i64>,
    rescale_type: String,
    modality_lut: bool,
    rows: Option<u16>,
    columns: Option<u16>,
    samples_per_pixel: Option<u16>,
    photometric: String,
    bits_allocated: Option<u16>,
    bits_stored: Option<u16>,
    high_bit: Option<u16>,
    pixel_representation: Option<u16>,
    number_of_frames: Option<f64>,
    frame: Frame,
    per_frame: Vec<Frame>,
    pixels: Option<(u64, Option<u32>)>,
}

impl Attributes {
    fn collect(&mut self, mut elements: Elements<'_>) -> Result<(), Invalid> {
        while let Some(element) = elements.next()? {
            if element.tag == Tag::PIXEL_DATA {
                self.pixels = Some((element.offset, element.length));
                break;
            }
            if !self.frame.take(&element)? {
                self.take(&element)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, element: &Element<'_>) -> Result<(), Invalid> {
        let text = || element.text().into_owned();
        // Numbers that only sort or name: one that is no number counts as absent.
        let integer = || element.text().parse::<i64>().ok();
        match element.tag {
            IMAGE_TYPE => self.image_type = text(),
            SOP_CLASS_UID => self.sop_class = text(),
            SOP_INSTANCE_UID => self.sop_instance = text(),
            MODALITY => self.modality = text(),
            SERIES_DESCRIPTION => self.description = text(),
            SERIES_INSTANCE_UID => self.series_uid = text(),
            SERIES_NUMBER => self.series_number = integer(),
            ACQUISITION_NUMBER => self.acquisition = integer(),
            TEMPORAL_POSITION => self.temporal_position = integer(),
            SAMPLES_PER_PIXEL => self.samples_per_pixel = element.u16(),
            PHOTOMETRIC_INTERPRETATION => self.photometric = text(),
            NUMBER_OF_FRAMES => self.number_of_frames = number(element, "NumberOfFrames")?,
            ROWS => self.rows = element.u16(),
            COLUMNS => self.columns = element.u16(),
            BITS_ALLOCATED => self.bits_allocated = element.u16(),
            BITS_STORED => self.bits_stored = element.u16(),
            HIGH_BIT => self.high_bit = element.u16(),
            PIXEL_REPRESENTATION => self.pixel_representation = element.u16(),
            RESCALE_TYPE => self.rescale_type = text(),
            MODALITY_LUT_SEQUENCE => self.modality_lut = !element.value.is_empty(),
            SHARED_FUNCTIONAL_GROUPS_SEQUENCE => {
                for item in element.items()? {
                    self.frame.take_groups(item)?;
                }
            }
            PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE => {
                for item in element.items()? {
                    let mut frame = self.frame.clone();
                    frame.take_groups(item)?;
                    self.per_frame.push(frame);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self, path: &Path, syntax: TransferSyntax) -> Result<Scanned> {
        let Some((pixel_offset, pixel_length)) = self.pixels else {
            return Ok(Scanned::Document(self.modality));
        };
        let wrong = |field, found, expected| Error::Header {
            path: path.to_owned(),
            field,
            found,
            expected,
        };
        let need = |field, value: Option<u16>| {
            value.ok_or_else(|| wrong(field, "absent".into(), "a number"))
        };
        let rows = need("Rows", self.rows)?;
        let columns = need("Columns", self.columns)?;
        if rows == 0 || columns == 0 {
            return Err(wrong(
                "Rows, Columns",
                format!("{rows}, {columns}"),
                "at least 1",
            ));
        }
        let bits_allocated = need("BitsAllocated", self.bits_allocated)?;
        let bits_stored = self.bits_stored.unwrap_or(bits_allocated);
        let high_bit = self.high_bit.unwrap_or(bits_stored.saturating_sub(1));
        let frames = self.number_of_frames.unwrap_or(1.0);
        let described = match self.per_frame.len() {
            0 if frames == 1.0 => vec![self.frame],
            count if frames == count as f64 => self.per_frame,
            _ => Vec::new(),
        };
        Ok(Scanned::Image(Box::new(Header {
            path: path.to_owned(),
            syntax,
            sop_class: self.sop_class,
            sop_instance: self.sop_instance,
            modality: self.modality,
            series_uid: self.series_uid,
            series_number: self.series_number,
            description: self.description,
            localizer: self
                .image_type
                .split('\\')
                .any(|value| value == "LOCALIZER"),
            acquisition: self.acquisition,
            temporal_position: self.temporal_position,
            rescale_type: self.rescale_type,
            modality_lut: self.modality_lut,
            rows,
            columns,
            samples_per_pixel: self.samples_per_pixel.unwrap_or(1),
            photometric: self.photometric,
            bits_allocated,
            bits_stored,
            high_bit,
            signed: self.pixel_representation == Some(1),
            frames: described,
            pixel_offset,
            pixel_length,
        })))
    }
}
