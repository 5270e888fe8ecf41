//! Which slices belong together, and which of the stacks is the scan.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::folder::Folder;
use super::header::{Frame, Header};
use crate::{Error, Result};

/// What a series says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesSummary {
    /// Unique identifier, or an empty text.
    pub uid: String,
    /// Number within the study.
    pub number: Option<i64>,
    /// The scanner's or technician's words.
    pub description: String,
    /// `CT`, `MR`, ...; with a word on what keeps a CT from being a scan.
    pub kind: String,
    /// Slices of this stack.
    pub slices: usize,
    /// Rows of a slice.
    pub rows: usize,
    /// Columns of a slice.
    pub columns: usize,
}

impl fmt::Display for SeriesSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} series ", self.kind)?;
        if let Some(number) = self.number {
            write!(f, "{number} ")?;
        }
        if !self.description.is_empty() {
            write!(f, "\"{}\" ", self.description)?;
        }
        let uid = if self.uid.is_empty() {
            "without a uid"
        } else {
            &self.uid
        };
        let noun = if self.slices == 1 { "slice" } else { "slices" };
        write!(
            f,
            "{uid} ({} {noun} of {}x{})",
            self.slices, self.rows, self.columns
        )
    }
}

/// One frame of one file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice<'a> {
    pub(super) header: &'a Header,
    /// Index of the frame in its file.
    pub(super) index: usize,
    pub(super) frame: &'a Frame,
}

/// Slices of one series, size and orientation.
#[derive(Clone, Debug)]
pub(super) struct Group<'a> {
    pub(super) slices: Vec<Slice<'a>>,
}

/// Orientations of one stack agree to this in every component: a tenth of a degree, far more than rounding.
const SAME_ORIENTATION: f64 = 2e-3;

/// Pixel spacings of one stack agree to this, relative.
const SAME_SPACING: f64 = 1e-3;

/// PS3.4, table B.5-1: what a CT scan is stored as.
const CT_CLASSES: [&str; 3] = [
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
];
const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";

impl<'a> Group<'a> {
    fn first(&self) -> Slice<'a> {
        self.slices[0] // a group is made with its first slice
    }

    fn accepts(&self, slice: Slice<'_>) -> bool {
        let first = self.first();
        let (a, b) = (first.header, slice.header);
        let close = |a: &[f64], b: &[f64], tolerance: &dyn Fn(f64) -> f64| {
            a.iter()
                .zip(b)
                .all(|(&a, &b)| (a - b).abs() <= tolerance(a))
        };
        let same_orientation = match (first.frame.orientation, slice.frame.orientation) {
            (Some(a), Some(b)) => close(&a, &b, &|_| SAME_ORIENTATION),
            (a, b) => a == b,
        };
        let same_spacing = match (first.frame.pixel_spacing, slice.frame.pixel_spacing) {
            (Some(a), Some(b)) => close(&a, &b, &|value| value.abs() * SAME_SPACING),
            (a, b) => a == b,
        };
        let placed = |frame: &Frame| frame.position.is_some();
        (a.rows, a.columns, a.localizer, &a.modality, &a.photometric)
            == (b.rows, b.columns, b.localizer, &b.modality, &b.photometric)
            && placed(first.frame) == placed(slice.frame)
            && same_orientation
            && same_spacing
    }

    /// Why the group cannot be a CT scan, or `None`.
    fn obstacle(&self) -> Option<&'static str> {
        let header = self.first().header;
        if header.modality != "CT" {
            Some("")
        } else if header.samples_per_pixel != 1 || !header.photometric.starts_with("MONOCHROME") {
            Some(" colour")
        } else if header.sop_class.starts_with(SECONDARY_CAPTURE) {
            Some(" secondary capture")
        } else if !header.sop_class.is_empty() && !CT_CLASSES.contains(&header.sop_class.as_str()) {
            Some(" derived object")
        } else {
            None
        }
    }

    pub(super) fn summary(&self) -> SeriesSummary {
        let header = self.first().header;
        let modality = if header.modality.is_empty() {
            "unknown"
        } else {
            &header.modality
        };
        SeriesSummary {
            uid: header.series_uid.clone(),
            number: header.series_number,
            description: header.description.clone(),
            kind: format!("{modality}{}", self.obstacle().unwrap_or_default()),
            slices: self.slices.len(),
            rows: header.rows.into(),
            columns: header.columns.into(),
        }
    }

    /// The largest comes first; localisers, what has no place in space and single slices come last.
    fn rank(&self) -> impl Ord + use<'a> {
        let Slice { header, frame, .. } = self.first();
        let pixels = u64::from(header.rows) * u64::from(header.columns);
        (
            header.localizer,
            self.slices.len() == 1,
            frame.position.is_none(),
            Reverse(self.slices.len() as u64 * pixels),
            header.series_number,
            &header.series_uid,
            &header.path,
        )
    }
}

/// All stacks of a folder, in the order of their files.
pub(super) fn groups(images: &[Header]) -> Vec<Group<'_>> {
    let mut by_series: BTreeMap<&str, Vec<Group<'_>>> = BTreeMap::new();
    for header in images {
        let groups = by_series.entry(&header.series_uid).or_default();
        // Frames that nobody describes still make a group, so that the error can name it.
        static NOWHERE: Frame = Frame::NOTHING;
        let frames = if header.frames.is_empty() {
            std::slice::from_ref(&NOWHERE)
        } else {
            header.frames.as_slice()
        };
        for (index, frame) in frames.iter().enumerate() {
            let slice = Slice {
                header,
                index,
                frame,
            };
            match groups.iter_mut().find(|group| group.accepts(slice)) {
                Some(group) => group.slices.push(slice),
                None => groups.push(Group {
                    slices: vec![slice],
                }),
            }
        }
    }
    by_series.into_values().flatten().collect()
}

/// The stack that is read, and the other CT stacks, the largest first.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    pub(super) chosen: Group<'a>,
    pub(super) alternatives: Vec<SeriesSummary>,
}

/// Takes the largest CT stack, or the largest of the series asked for.
pub(super) fn choose<'a>(
    path: &Path,
    folder: &'a Folder,
    asked: Option<&str>,
) -> Result<Choice<'a>> {
    let mut groups = groups(&folder.images);
    groups.sort_by(|a, b| a.rank().cmp(&b.rank()));
    if let Some(asked) = asked {
        groups = asked_for(path, groups, asked)?;
    }
    let (mut scans, rest): (Vec<_>, Vec<_>) = groups
        .into_iter()
        .partition(|group| group.obstacle().is_none());
    if scans.is_empty() {
        let mut found: Vec<_> = rest
            .iter()
            .map(|group| group.summary().to_string())
            .collect();
        found.extend(folder.leftovers());
        if found.is_empty() {
            found.push("nothing: the folder is empty".into());
        }
        return Err(Error::NoCtSeries {
            path: path.to_owned(),
            found: found.join(", "),
        });
    }
    let chosen = scans.remove(0);
    let alternatives = scans.iter().chain(&rest).map(Group::summary).collect();
    Ok(Choice {
        chosen,
        alternatives,
    })
}

/// Groups of the one series that `asked` names: a unique identifier, a number, or the beginning of an identifier.
fn asked_for<'a>(path: &Path, groups: Vec<Group<'a>>, asked: &str) -> Result<Vec<Group<'a>>> {
    type Fits = fn(&Header, &str) -> bool;
    let ways: [Fits; 3] = [
        |header, asked| header.series_uid == asked,
        |header, asked| {
            header
                .series_number
                .is_some_and(|number| Ok(number) == asked.parse())
        },
        |header, asked| header.series_uid.starts_with(asked),
    ];
    let mut matches = 0;
    for fits in ways {
        let fitting = groups
            .iter()
            .filter(|group| fits(group.first().header, asked));
        let mut uids: Vec<_> = fitting
            .map(|group| &group.first().header.series_uid)
            .collect();
        uids.sort();
        uids.dedup();
        if let [uid] = uids[..] {
            let uid = uid.clone();
            return Ok(groups
                .into_iter()
                .filter(|group| group.first().header.series_uid == uid)
                .collect());
        }
        matches = uids.len();
        if matches > 1 {
            break;
        }
    }
    let found: Vec<_> = groups
        .iter()
        .map(|group| group.summary().to_string())
        .collect();
    Err(Error::SeriesChoice {
        path: path.to_owned(),
        asked: asked.to_owned(),
        matches,
        found: found.join(", "),
    })
}
