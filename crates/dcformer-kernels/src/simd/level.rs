//! Which instruction sets this machine has, and which one is used.

use std::fmt;
use std::sync::OnceLock;

use super::{Kernel, Simd, portable::Portable};

/// The instruction sets that have kernels of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Plain Rust; what any machine runs.
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// 64-bit ARM.
    Neon,
}

impl Level {
    const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Portable];

    /// Environment variable that forces a level.
    pub const VARIABLE: &str = "DCFORMER_SIMD";

    /// The best level of this machine, or the one that `DCFORMER_SIMD` names.
    ///
    /// # Panics
    /// If the variable names no level or one that this machine lacks: running slower than asked in silence would
    /// falsify measurements.
    pub fn current() -> Self {
        static CURRENT: OnceLock<Level> = OnceLock::new();
        *CURRENT.get_or_init(|| match std::env::var(Self::VARIABLE) {
            Err(_) => Self::available().next().unwrap_or(Self::Portable),
            Ok(name) => Self::available()
                .find(|level| level.to_string() == name)
                .unwrap_or_else(|| {
                    let names: Vec<_> = Self::available().map(|level| level.to_string()).collect();
                    panic!(
                        "{} is `{name}`, expected one of: {}",
                        Self::VARIABLE,
                        names.join(", ")
                    )
                }),
        })
    }

    /// The levels of this machine, best first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|level| level.is_available())
    }

    fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => super::x86::Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => super::x86::Avx512::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            #[allow(
                unreachable_patterns,
                reason = "which levels are left depends on the architecture"
            )]
            _ => false,
        }
    }

    /// Runs `kernel` compiled for this level; on a machine that lacks it, compiled for any.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => match super::x86::Avx512::detect() {
                Some(simd) => simd.run(kernel),
                None => Portable.run(kernel),
            },
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => match super::x86::Avx2::detect() {
                Some(simd) => simd.run(kernel),
                None => Portable.run(kernel),
            },
            #[cfg(target_arch = "aarch64")]
            Self::Neon => super::neon::Neon::detect().run(kernel),
            _ => Portable.run(kernel),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        })
    }
}
