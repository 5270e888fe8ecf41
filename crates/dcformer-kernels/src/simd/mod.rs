//! Vectors of `f32` for each instruction set, behind one trait.
//!
//! A kernel is a struct with its arguments and a generic `run`; `Level::run` compiles it once per instruction set
//! and picks one at run time. Everything inside must inline into the function that enables the instruction set, hence
//! `#[inline(always)]` throughout.

mod level;
#[cfg(target_arch = "aarch64")]
mod neon;
mod peak;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use level::Level;

/// Proof that this machine has an instruction set, and its vector of `f32`.
///
/// A value exists only where detection succeeded, which is why the methods are safe.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Values in one vector.
    const LANES: usize;
    /// Rows of a register tile two vectors wide: `2 * ROWS` sums, two vectors of one operand and one of the other fill
    /// the register file.
    const ROWS: usize;
    /// The vector.
    type F32: Copy;

    /// `value` in every lane.
    fn splat(self, value: f32) -> Self::F32;
    /// The first `LANES` values of `from`.
    ///
    /// # Panics
    /// If there are fewer.
    fn load(self, from: &[f32]) -> Self::F32;
    /// Writes `LANES` values to the front of `to`.
    ///
    /// # Panics
    /// If there is less room.
    fn store(self, vector: Self::F32, to: &mut [f32]);
    /// The first `LANES / 2` values of `low`, then as many of `high`.
    ///
    /// # Panics
    /// If one of them has fewer.
    fn load_halves(self, low: &[f32], high: &[f32]) -> Self::F32;
    /// Writes the first half of the lanes to the front of `low`, the other to that of `high`.
    ///
    /// # Panics
    /// If one of them has less room.
    fn store_halves(self, vector: Self::F32, low: &mut [f32], high: &mut [f32]);
    /// Lane-wise sum.
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Lane-wise difference.
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Lane-wise product.
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Lane-wise quotient.
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, with one rounding where the machine has it: levels may differ in the last bit.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// Lane-wise maximum; of equal values either.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Lane-wise minimum; of equal values either.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Nearest integer.
    fn round(self, a: Self::F32) -> Self::F32;
    /// `2^a` for integral `a` in `-126..=127`.
    fn exp2_integral(self, a: Self::F32) -> Self::F32;
    /// `yes` where `a < 0`, else `no`.
    fn if_negative(self, a: Self::F32, yes: Self::F32, no: Self::F32) -> Self::F32;
    /// Asks for the line of memory at `at` ahead of its use; a hint that changes no result, valid for any address.
    #[inline(always)]
    fn prefetch(self, _at: *const f32) {}
    /// Runs `kernel` compiled for this instruction set.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    /// Up to `LANES` values of `from`, the rest zero.
    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> Self::F32 {
        if from.len() >= Self::LANES {
            return self.load(from);
        }
        let mut lanes = [0.0; MAX_LANES];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    /// Writes as many values as `to` has room for, `LANES` at most.
    #[inline(always)]
    fn store_partial(self, vector: Self::F32, to: &mut [f32]) {
        if to.len() >= Self::LANES {
            return self.store(vector, to);
        }
        let mut lanes = [0.0; MAX_LANES];
        self.store(vector, &mut lanes);
        let room = to.len();
        to.copy_from_slice(&lanes[..room]);
    }
}

/// Values in a line of memory, what a prefetch brings.
pub(crate) const LINE: usize = 16;

/// Most lanes that any level has.
pub(crate) const MAX_LANES: usize = 16;

/// Work that is compiled once per instruction set.
pub(crate) trait Kernel {
    /// What it gives.
    type Output;
    /// Does the work. Mark it `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}
