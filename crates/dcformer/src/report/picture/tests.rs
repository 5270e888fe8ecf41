use std::io::Read;

use super::*;

/// Values that tell where they are: one bit for each side, from the patient's right, front and feet.
fn scan(directions: [Direction; 3], sizes: [usize; 3]) -> (Vec<f32>, Shape3) {
    let shape = Shape3 {
        depth: sizes[0],
        height: sizes[1],
        width: sizes[2],
    };
    let mut values = Vec::new();
    for z in 0..sizes[0] {
        for y in 0..sizes[1] {
            for x in 0..sizes[2] {
                let sides = [z, y, x].into_iter().zip(sizes).zip(directions).map(
                    |((index, size), direction)| {
                        let positive = matches!(
                            direction,
                            Direction::Right | Direction::Anterior | Direction::Superior
                        );
                        let towards_positive = (index >= size / 2) == positive;
                        u8::from(towards_positive) << direction.line()
                    },
                );
                values.push(f32::from(sides.sum::<u8>()));
            }
        }
    }
    (values, shape)
}

/// Values of the four corners: upper left, upper right, lower left, lower right.
fn corners(picture: &Picture) -> [u8; 4] {
    let (w, h) = (picture.width, picture.height);
    [0, w - 1, (h - 1) * w, h * w - 1].map(|index| picture.pixels[index])
}

const RIGHT: u8 = 1;
const FRONT: u8 = 2;
const HEAD: u8 = 4;

#[test]
fn slices_look_alike_however_the_volume_is_stored() {
    use Direction::{Anterior, Inferior, Left, Posterior, Right, Superior};
    let stored = [
        [Superior, Posterior, Left], // as CT-RATE stores its slices
        [Superior, Left, Posterior], // as the authors' code turns them
        [Inferior, Anterior, Right],
        [Left, Superior, Anterior],
    ];
    for directions in stored {
        let (values, shape) = scan(directions, [4, 6, 8]);
        let scan = Scan {
            values: &values,
            shape,
            spacing_mm: [1.0; 3],
            directions,
            window: [0.0, 255.0],
        };
        // Through the voxel at the upper ends of all axes, wherever they point to.
        let end = |line: usize| {
            let direction = directions
                .into_iter()
                .find(|direction| direction.line() == line)
                .unwrap();
            u8::from(matches!(direction, Right | Anterior | Superior)) << line
        };
        let [axial, coronal, sagittal] = scan.views(Some([usize::MAX; 3]));
        let (side, depth, level) = (end(0), end(1), end(2));
        assert_eq!(
            corners(&axial),
            [RIGHT + FRONT, FRONT, RIGHT, 0].map(|v| v + level),
            "axial, {directions:?}"
        );
        assert_eq!(
            corners(&coronal),
            [RIGHT + HEAD, HEAD, RIGHT, 0].map(|v| v + depth),
            "coronal, {directions:?}"
        );
        assert_eq!(
            corners(&sagittal),
            [FRONT + HEAD, HEAD, FRONT, 0].map(|v| v + side),
            "sagittal, {directions:?}"
        );
        let captions = [&axial, &coronal, &sagittal].map(|picture| picture.caption.as_str());
        assert_eq!(captions, ["axial", "coronal", "sagittal"]);
    }
}

#[test]
fn large_slices_are_averaged_and_keep_their_shape() {
    use Direction::{Left, Posterior, Superior};
    let shape = Shape3 {
        depth: 3,
        height: 2,
        width: 641,
    };
    let values: Vec<f32> = (0..shape.voxels())
        .map(|index| (index % 641) as f32)
        .collect();
    let directions = [Superior, Posterior, Left];
    let scan = Scan {
        values: &values,
        shape,
        spacing_mm: [5.0, 2.0, 1.0],
        directions,
        window: [0.0, 255.0],
    };
    let [axial, coronal, sagittal] = scan.views(None);
    assert_eq!(
        (axial.width, axial.height, axial.size_mm),
        (213, 2, [639.0, 4.0])
    );
    assert_eq!(axial.pixels[..3], [1, 4, 7]); // means of three neighbours
    assert_eq!(
        (coronal.width, coronal.height, coronal.size_mm),
        (213, 3, [639.0, 15.0])
    );
    assert_eq!(
        (sagittal.width, sagittal.height, sagittal.size_mm),
        (2, 3, [4.0, 15.0])
    );
}

#[test]
fn the_window_ends_at_black_and_white() {
    use Direction::{Left, Posterior, Superior};
    let values = [-2.0, -1.0, 0.0, 1.0, 2.0, f32::NAN];
    let shape = Shape3 {
        depth: 1,
        height: 1,
        width: 6,
    };
    let directions = [Superior, Posterior, Left];
    let scan = Scan {
        values: &values,
        shape,
        spacing_mm: [1.0; 3],
        directions,
        window: [-1.0, 1.0],
    };
    assert_eq!(scan.views(None)[0].pixels, [0, 0, 128, 255, 255, 0]);
}

/// Reads a PNG the way the standard describes it, sharing no code with the writer.
fn decode(png: &[u8]) -> (usize, usize, Vec<u8>) {
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    let word = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap()) as usize;
    let mut at = 8;
    let (mut header, mut data, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    while at < png.len() {
        let length = word(at);
        let (kind, content) = (&png[at + 4..at + 8], &png[at + 8..at + 8 + length]);
        assert_eq!(
            word(at + 8 + length) as u32,
            crc32(&png[at + 4..at + 8 + length])
        );
        match kind {
            b"IHDR" => header = content.to_vec(),
            b"IDAT" => data.extend(content),
            _ => assert_eq!(kind, b"IEND"),
        }
        kinds.push(kind.to_vec());
        at += 12 + length;
    }
    assert_eq!(kinds.last().unwrap(), b"IEND");
    assert_eq!(header[8..], [8, 0, 0, 0, 0]);
    let side = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap()) as usize;
    let (width, height) = (side(0), side(4));
    let mut rows = Vec::new();
    flate2::read::ZlibDecoder::new(&data[..])
        .read_to_end(&mut rows)
        .unwrap();
    assert_eq!(rows.len(), (width + 1) * height);
    let mut pixels = vec![vec![0u8; width + 1]; height + 1];
    for (y, row) in rows.chunks(width + 1).enumerate() {
        assert_eq!(row[0], 4);
        for x in 1..=width {
            let [a, b, c] = [pixels[y + 1][x - 1], pixels[y][x], pixels[y][x - 1]];
            let p = i32::from(a) + i32::from(b) - i32::from(c);
            let nearest = [a, b, c]
                .into_iter()
                .min_by_key(|value| (p - i32::from(*value)).abs())
                .unwrap();
            pixels[y + 1][x] = row[x].wrapping_add(nearest);
        }
    }
    (
        width,
        height,
        pixels[1..]
            .iter()
            .flat_map(|row| row[1..].to_vec())
            .collect(),
    )
}

/// Bit by bit, as in the standard's annex D.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                0xEDB8_8320 ^ (crc >> 1)
            } else {
                crc >> 1
            }
        })
    })
}

#[test]
fn a_png_decodes_to_its_pixels() {
    let mut random = crate::random::Random::new(1, "test", 0);
    for (width, height) in [(1, 1), (7, 3), (64, 48)] {
        let pixels: Vec<u8> = (0..width * height)
            .map(|index| (index / 3 + random.below(9)) as u8)
            .collect();
        let picture = Picture {
            caption: String::new(),
            width,
            height,
            pixels: pixels.clone(),
            size_mm: [1.0, 1.0],
        };
        assert_eq!(decode(&picture.to_png()), (width, height, pixels));
    }
}
