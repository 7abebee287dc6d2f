//! The types of a model's values.

use crate::format::{from_bfloat16, from_float16, to_bfloat16, to_float16};

/// The type of a tensor's values in the model file, little-endian. The
/// aggregate is float32 for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE 754 binary32.
    Float32,
    /// IEEE 754 binary16.
    Float16,
    /// The upper half of a binary32.
    Bfloat16,
    /// A buffer of counts.
    Int32,
    /// A buffer of counts, such as `num_batches_tracked` of a batch
    /// normalisation.
    Int64,
}

impl Dtype {
    /// The number of bytes of a value.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::Float16 | Self::Bfloat16 => 2,
            Self::Float32 | Self::Int32 => 4,
            Self::Int64 => 8,
        }
    }

    /// The name, as messages have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Bfloat16 => "bfloat16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
        }
    }

    /// Whether this is an integer, which no optimiser moves.
    #[must_use]
    pub const fn is_integer(self) -> bool {
        matches!(self, Self::Int32 | Self::Int64)
    }
}

/// A floating-point type: exact in binary64, and rounded once from it.
pub(super) struct Float<const W: usize> {
    pub load: fn([u8; W]) -> f64,
    /// None if the result is not finite.
    pub store: fn(f64) -> Option<[u8; W]>,
}

pub(super) const FLOAT32: Float<4> = Float {
    load: |value| f32::from_le_bytes(value).into(),
    store: |value| {
        #[allow(clippy::cast_possible_truncation)] // rounding to binary32 is the purpose
        let rounded = value as f32;
        rounded.is_finite().then(|| rounded.to_le_bytes())
    },
};

pub(super) const FLOAT16: Float<2> = Float {
    load: |value| from_float16(u16::from_le_bytes(value)).into(),
    store: |value| to_float16(value).map(u16::to_le_bytes),
};

pub(super) const BFLOAT16: Float<2> = Float {
    load: |value| from_bfloat16(u16::from_le_bytes(value)).into(),
    store: |value| to_bfloat16(value).map(u16::to_le_bytes),
};
