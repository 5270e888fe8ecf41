//! Types of stored values, and their decoding.

use std::fmt;

/// Scalar types that a volume may be stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the types themselves")]
pub enum DataType {
    U8,
    I8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
}

impl DataType {
    const ALL: [Self; 10] = [
        Self::U8,
        Self::I8,
        Self::I16,
        Self::U16,
        Self::I32,
        Self::U32,
        Self::I64,
        Self::U64,
        Self::F32,
        Self::F64,
    ];

    /// Type of a header's `datatype`, if it is a scalar type.
    pub(super) fn from_code(code: i16) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|data_type| data_type.code() == code)
    }

    /// What the header's `datatype` is for this type.
    pub(super) const fn code(self) -> i16 {
        match self {
            Self::U8 => 2,
            Self::I16 => 4,
            Self::I32 => 8,
            Self::F32 => 16,
            Self::F64 => 64,
            Self::I8 => 256,
            Self::U16 => 512,
            Self::U32 => 768,
            Self::I64 => 1024,
            Self::U64 => 1280,
        }
    }

    /// Size of one value.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// Whether every value that the type can hold is an `i16`.
    pub(super) const fn always_fits_i16(self) -> bool {
        matches!(self, Self::U8 | Self::I8 | Self::I16)
    }

    /// Whether values are whole numbers, so that those at hand may fit `i16` though the type is wider.
    pub(super) const fn is_integer(self) -> bool {
        !matches!(self, Self::F32 | Self::F64)
    }
}

/// Name of any `datatype` code, known or not, for messages.
pub(super) struct DataTypeName(pub(super) i16);

impl fmt::Display for DataTypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "unknown",
            1 => "one bit per voxel",
            2 => "uint8",
            4 => "int16",
            8 => "int32",
            16 => "float32",
            32 => "complex64",
            64 => "float64",
            128 => "RGB24",
            256 => "int8",
            512 => "uint16",
            768 => "uint32",
            1024 => "int64",
            1280 => "uint64",
            1536 => "float128",
            1792 => "complex128",
            2048 => "complex256",
            2304 => "RGBA32",
            _ => "not a type of the standard",
        };
        write!(f, "{} ({name})", self.0)
    }
}

/// Order of the bytes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    /// Bytes of a file in this order to little-endian ones.
    #[inline(always)] // in the innermost loop of decoding
    pub(super) fn to_little<const N: usize>(self, mut bytes: [u8; N]) -> [u8; N] {
        if self == Self::Big {
            bytes.reverse();
        }
        bytes
    }
}

mod sealed {
    use super::{ByteOrder, DataType};

    /// Decoding, kept out of the public face of [`Voxel`](super::Voxel).
    pub trait Decode: Sized {
        /// Decodes as many values as `out` holds; whether each of them fitted.
        fn decode(data_type: DataType, order: ByteOrder, bytes: &[u8], out: &mut [Self]) -> bool;
    }
}
pub(super) use sealed::Decode;

/// What stored values can be read as: `i16` and `f32`.
pub trait Voxel: Copy + Default + Decode {}

impl Voxel for i16 {}
impl Voxel for f32 {}

impl Decode for i16 {
    fn decode(data_type: DataType, order: ByteOrder, bytes: &[u8], out: &mut [Self]) -> bool {
        let mut fits = true;
        // The cast wraps where a value does not fit, and then differs from it.
        macro_rules! narrow {
            ($stored:ty) => {
                decode_with(order, bytes, out, |value| {
                    let value = <$stored>::from_le_bytes(value);
                    let narrow = value as Self;
                    fits &= Self::try_from(value).is_ok();
                    narrow
                })
            };
        }
        match data_type {
            DataType::U8 => decode_with(order, bytes, out, |[value]| Self::from(value)),
            DataType::I8 => decode_with(order, bytes, out, |v| Self::from(i8::from_le_bytes(v))),
            DataType::I16 => decode_with(order, bytes, out, Self::from_le_bytes),
            DataType::U16 => narrow!(u16),
            DataType::I32 => narrow!(i32),
            DataType::U32 => narrow!(u32),
            DataType::I64 => narrow!(i64),
            DataType::U64 => narrow!(u64),
            DataType::F32 | DataType::F64 => fits = false,
        }
        fits
    }
}

impl Decode for f32 {
    fn decode(data_type: DataType, order: ByteOrder, bytes: &[u8], out: &mut [Self]) -> bool {
        macro_rules! cast {
            ($stored:ty) => {
                decode_with(order, bytes, out, |value| {
                    <$stored>::from_le_bytes(value) as Self
                })
            };
        }
        match data_type {
            DataType::U8 => cast!(u8),
            DataType::I8 => cast!(i8),
            DataType::I16 => cast!(i16),
            DataType::U16 => cast!(u16),
            DataType::I32 => cast!(i32),
            DataType::U32 => cast!(u32),
            DataType::I64 => cast!(i64),
            DataType::U64 => cast!(u64),
            DataType::F32 => decode_with(order, bytes, out, Self::from_le_bytes),
            DataType::F64 => cast!(f64),
        }
        true
    }
}

/// Turns each `N` bytes into one value; the order is tested once, so that both loops become vector code.
fn decode_with<const N: usize, V>(
    order: ByteOrder,
    bytes: &[u8],
    out: &mut [V],
    mut value: impl FnMut([u8; N]) -> V,
) {
    let (stored, _) = bytes.as_chunks::<N>();
    let pairs = out.iter_mut().zip(stored);
    match order {
        ByteOrder::Little => pairs.for_each(|(out, &bytes)| *out = value(bytes)),
        ByteOrder::Big => {
            pairs.for_each(|(out, &bytes)| *out = value(ByteOrder::Big.to_little(bytes)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes one value of each byte order.
    fn decode_one<V: Voxel>(data_type: DataType, little_endian: &[u8]) -> Option<V> {
        let mut big_endian = little_endian.to_vec();
        big_endian.reverse();
        let mut out = [V::default(); 2];
        let (first, second) = out.split_at_mut(1);
        let fits = V::decode(data_type, ByteOrder::Little, little_endian, first)
            & V::decode(data_type, ByteOrder::Big, &big_endian, second);
        fits.then(|| out[1])
    }

    #[test]
    fn extremes_of_every_type_decode_in_both_orders() {
        use DataType::{F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
        assert_eq!(decode_one(U8, &[255]), Some(255_i16));
        assert_eq!(decode_one(I8, &[0x80]), Some(-128_i16));
        assert_eq!(decode_one(I16, &i16::MIN.to_le_bytes()), Some(i16::MIN));
        assert_eq!(decode_one(U16, &32767_u16.to_le_bytes()), Some(32767_i16));
        assert_eq!(decode_one::<i16>(U16, &32768_u16.to_le_bytes()), None);
        assert_eq!(
            decode_one(I32, &(-32768_i32).to_le_bytes()),
            Some(-32768_i16)
        );
        assert_eq!(decode_one::<i16>(I32, &65536_i32.to_le_bytes()), None);
        assert_eq!(decode_one::<i16>(U32, &65536_u32.to_le_bytes()), None);
        assert_eq!(decode_one::<i16>(I64, &(1_i64 << 40).to_le_bytes()), None);
        assert_eq!(decode_one::<i16>(U64, &u64::MAX.to_le_bytes()), None);
        assert_eq!(decode_one::<i16>(F32, &1.0_f32.to_le_bytes()), None);

        assert_eq!(decode_one(U8, &[255]), Some(255.0_f32));
        assert_eq!(decode_one(I8, &[0x80]), Some(-128.0_f32));
        assert_eq!(decode_one(I16, &i16::MIN.to_le_bytes()), Some(-32768.0_f32));
        assert_eq!(decode_one(U16, &u16::MAX.to_le_bytes()), Some(65535.0_f32));
        assert_eq!(
            decode_one(I32, &(-70000_i32).to_le_bytes()),
            Some(-70000.0_f32)
        );
        assert_eq!(
            decode_one(U32, &u32::MAX.to_le_bytes()),
            Some(4_294_967_296.0_f32)
        );
        assert_eq!(
            decode_one(I64, &(-1_i64 << 40).to_le_bytes()),
            Some(-1_099_511_627_776.0_f32)
        );
        assert_eq!(
            decode_one(U64, &(1_u64 << 63).to_le_bytes()),
            Some(9_223_372_036_854_775_808.0_f32)
        );
        assert_eq!(decode_one(F32, &0.1_f32.to_le_bytes()), Some(0.1_f32));
        assert_eq!(decode_one(F64, &0.1_f64.to_le_bytes()), Some(0.1_f32));
    }

    #[test]
    fn codes_name_their_own_type() {
        for data_type in DataType::ALL {
            assert_eq!(DataType::from_code(data_type.code()), Some(data_type));
        }
        assert_eq!(DataType::from_code(128), None);
        assert_eq!(DataTypeName(128).to_string(), "128 (RGB24)");
    }
}
