//! Slices of a volume as grey pictures, and their PNG files.

use std::io::Write;

use dcformer_volume::geometry::{Direction, Shape3};
use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::html::escape;
use crate::base64::base64;

/// The longest side of a picture; larger slices are averaged down, since a report shows them no larger.
const LONGEST_SIDE: usize = 320;

/// A grey picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// What it shows: "axial".
    pub caption: String,
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Brightness, 0 black, row by row from the top; `width * height` of them.
    pub pixels: Vec<u8>,
    /// Width and height of the picture in millimetres: its shape on the page.
    pub size_mm: [f64; 2],
}

/// A volume whose slices are shown.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// Values, width fastest, then height, then depth.
    pub values: &'a [f32],
    /// Number of voxels along depth, height, width.
    pub shape: Shape3,
    /// Millimetres between voxels along depth, height, width.
    pub spacing_mm: [f64; 3],
    /// Anatomical directions in which depth, height and width grow.
    pub directions: [Direction; 3],
    /// Values shown black and white.
    pub window: [f32; 2],
}

/// One of the three planes: its name, the line it is perpendicular to, and where its right and lower edges point to,
/// as radiologists look at it: from the patient's feet, with the nose up; from the front; from the left.
const VIEWS: [(&str, usize, [Direction; 2]); 3] = [
    ("axial", 2, [Direction::Left, Direction::Posterior]),
    ("coronal", 1, [Direction::Left, Direction::Inferior]),
    ("sagittal", 0, [Direction::Posterior, Direction::Inferior]),
];

impl Scan<'_> {
    /// Axial, coronal and sagittal slices through a voxel, or through the middle.
    ///
    /// `through` is the voxel's depth, height and width index; one outside is moved to the border.
    ///
    /// # Panics
    /// If there are not as many values as the shape says, there are none, or two axes lie on one anatomical line.
    pub fn views(&self, through: Option<[usize; 3]>) -> [Picture; 3] {
        assert_eq!(
            self.values.len(),
            self.shape.voxels(),
            "a scan of {} has that many values",
            self.shape
        );
        assert!(!self.values.is_empty(), "a scan has voxels");
        let Shape3 {
            depth,
            height,
            width,
        } = self.shape;
        let through = through.unwrap_or([depth / 2, height / 2, width / 2]);
        VIEWS.map(|(caption, line, edges)| self.view(caption, self.axis_on(line), edges, through))
    }

    /// Which of depth, height and width runs along an anatomical line.
    fn axis_on(&self, line: usize) -> usize {
        let axis = self
            .directions
            .iter()
            .position(|direction| direction.line() == line);
        axis.expect("the three axes of a scan lie on the three anatomical lines")
    }

    fn view(
        &self,
        caption: &str,
        normal: usize,
        edges: [Direction; 2],
        through: [usize; 3],
    ) -> Picture {
        let sizes = [self.shape.depth, self.shape.height, self.shape.width];
        let strides = [sizes[1] * sizes[2], sizes[2], 1];
        let [across, down] = edges.map(|edge| self.axis_on(edge.line()));
        let place = |axis: usize, edge: Direction, index: usize| {
            let along = if self.directions[axis] == edge {
                index
            } else {
                sizes[axis] - 1 - index
            };
            along * strides[axis]
        };
        let offset = through[normal].min(sizes[normal] - 1) * strides[normal];
        let value = |x: usize, y: usize| {
            self.values[offset + place(across, edges[0], x) + place(down, edges[1], y)]
        };

        // Whole groups of voxels become one pixel; what does not fill a group at the far edges is cut off.
        let [group_x, group_y] = [across, down].map(|axis| sizes[axis].div_ceil(LONGEST_SIDE));
        let (width, height) = (sizes[across] / group_x, sizes[down] / group_y);
        let mut pixels = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                let group = (0..group_y).flat_map(|dy| {
                    (0..group_x).map(move |dx| (x * group_x + dx, y * group_y + dy))
                });
                let sum: f32 = group.map(|(x, y)| value(x, y)).sum();
                pixels.push(self.brightness(sum / (group_x * group_y) as f32));
            }
        }
        let size_mm = [
            (width * group_x) as f64 * self.spacing_mm[across],
            (height * group_y) as f64 * self.spacing_mm[down],
        ];
        Picture {
            caption: caption.into(),
            width,
            height,
            pixels,
            size_mm,
        }
    }

    fn brightness(&self, value: f32) -> u8 {
        let [black, white] = self.window;
        // The conversion saturates, and makes 0 of what is not a number.
        ((value - black) / (white - black) * 255.0).round() as u8
    }
}

impl Picture {
    /// The picture inside a page, with its caption.
    pub(super) fn figure(&self) -> String {
        let [width_mm, height_mm] = self.size_mm;
        let caption = escape(&self.caption);
        format!(
            "<figure style=\"flex-grow:{:.3}\"><img alt=\"{caption} slice\" style=\"aspect-ratio:{width_mm:.1}/{height_mm:.1}\" \
             src=\"data:image/png;base64,{}\"><figcaption>{caption}</figcaption></figure>",
            width_mm / height_mm,
            base64(&self.to_png())
        )
    }

    /// The picture as a PNG file: eight bits of grey.
    ///
    /// # Panics
    /// If there are not `width * height` pixels, or more than a PNG can have.
    pub fn to_png(&self) -> Vec<u8> {
        const EIGHT_BIT_GREY: [u8; 5] = [8, 0, 0, 0, 0];
        assert_eq!(
            self.pixels.len(),
            self.width * self.height,
            "a picture has {}x{} pixels",
            self.width,
            self.height
        );
        let side = |length: usize| {
            u32::try_from(length)
                .expect("a side of a PNG has less than 2^32 pixels")
                .to_be_bytes()
        };
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        let header = [
            side(self.width).as_slice(),
            side(self.height).as_slice(),
            &EIGHT_BIT_GREY,
        ]
        .concat();
        write_chunk(&mut png, b"IHDR", &header);
        write_chunk(&mut png, b"IDAT", &self.compressed());
        write_chunk(&mut png, b"IEND", &[]);
        png
    }

    /// Rows as differences to the prediction of their neighbours (PNG's Paeth filter), then deflated.
    fn compressed(&self) -> Vec<u8> {
        const PAETH: u8 = 4;
        let mut filtered = Vec::with_capacity((self.width + 1) * self.height);
        let pixel = |x: Option<usize>, y: Option<usize>| match (x, y) {
            (Some(x), Some(y)) => self.pixels[y * self.width + x],
            _ => 0,
        };
        for y in 0..self.height {
            filtered.push(PAETH);
            for x in 0..self.width {
                let (left, above) = (x.checked_sub(1), y.checked_sub(1));
                let predicted = paeth(
                    pixel(left, Some(y)),
                    pixel(Some(x), above),
                    pixel(left, above),
                );
                filtered.push(pixel(Some(x), Some(y)).wrapping_sub(predicted));
            }
        }
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        let written = encoder.write_all(&filtered).and_then(|()| encoder.finish());
        written.expect("writing to memory cannot fail")
    }
}

/// Of left, above and above left the one nearest to `left + above - above_left`.
fn paeth(left: u8, above: u8, above_left: u8) -> u8 {
    let [a, b, c] = [left, above, above_left].map(i16::from);
    let [to_a, to_b, to_c] = [(b - c).abs(), (a - c).abs(), (a + b - 2 * c).abs()];
    if to_a <= to_b && to_a <= to_c {
        left
    } else if to_b <= to_c {
        above
    } else {
        above_left
    }
}

fn write_chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    let length = u32::try_from(data.len()).expect("a chunk of a PNG has less than 2^32 bytes");
    png.extend(length.to_be_bytes());
    let mut sum = flate2::Crc::new();
    for part in [kind.as_slice(), data] {
        png.extend(part);
        sum.update(part);
    }
    png.extend(sum.sum().to_be_bytes());
}

#[cfg(test)]
mod tests;
