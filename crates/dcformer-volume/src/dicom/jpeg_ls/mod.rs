//! JPEG-LS, lossless and near-lossless (ITU-T T.87, the LOCO-I algorithm): one component of 2 to 16 bits.
//!
//! Names in capitals in comments are the standard's; figures such as A.7.1 are its sections.

mod bits;
mod model;
mod stream;

#[cfg(test)]
mod tests;

use bits::Bits;
use model::{Model, Regular};
use stream::Stream;

/// A decoded frame.
#[derive(Debug, PartialEq)]
pub(super) struct Image {
    /// Row by row, 0 to the greatest value of the stream.
    pub(super) samples: Vec<i32>,
    /// Greatest error against the original.
    pub(super) near: i32,
}

/// Decodes a frame of `rows` x `columns`, the size that the header around the stream gives.
///
/// The error says what is wrong with the stream.
pub(super) fn decode(data: &[u8], rows: u16, columns: u16) -> Result<Image, String> {
    let stream = Stream::parse(data, rows, columns)?;
    let (rows, columns) = (usize::from(rows), usize::from(columns));
    let mut model = Model::new(stream.parameters);
    let mut bits = Bits::new(stream.scan);
    let mut samples = Vec::with_capacity(rows * columns);
    // One more on each side: `a` of the first sample and `d` of the last (A.2.1).
    let mut above = vec![0; columns + 2];
    let mut line = vec![0; columns + 2];
    for row in 0..rows {
        above[columns + 1] = above[columns];
        line[0] = above[1];
        decode_line(&mut model, &mut bits, &above, &mut line)
            .ok_or_else(|| format!("breaks off in row {row}"))?;
        samples.extend_from_slice(&line[1..=columns]);
        std::mem::swap(&mut above, &mut line);
    }
    Ok(Image {
        samples,
        near: stream.parameters.near,
    })
}

/// One line of samples, `line[1..]`, from the one above it; `None` if the bits run out.
fn decode_line(
    model: &mut Model,
    bits: &mut Bits<'_>,
    above: &[i32],
    line: &mut [i32],
) -> Option<()> {
    let columns = line.len() - 2;
    let mut column = 1;
    while column <= columns {
        let [a, b, c, d] = [
            line[column - 1],
            above[column],
            above[column - 1],
            above[column + 1],
        ];
        match model.context(a, b, c, d) {
            Some(Regular { context, negative }) => {
                let predicted = model.predict(context, negative, a, b, c);
                let error = model.decode_error(context, bits)?;
                line[column] = model.reconstruct(predicted, if negative { -error } else { error });
                column += 1;
            }
            None => {
                let run = model.decode_run(columns + 1 - column, bits)?;
                line[column..column + run].fill(a);
                column += run;
                if column <= columns {
                    line[column] = model.decode_interruption(a, above[column], bits)?;
                    column += 1;
                }
            }
        }
    }
    Some(())
}
