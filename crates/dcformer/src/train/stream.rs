//! The framework's stream of random numbers, of which a process has one, whoever draws.
//!
//! A run starts it anew from its own seed before it draws. Weights are drawn in many pieces: another run that starts the
//! stream between them, from the same seed perhaps, gives the rest other numbers, or those that layers have already. So
//! nobody starts the stream while a run draws its weights. Dropout of runs at the same time shares it all the same.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;

static STREAM: Mutex<()> = Mutex::new(());

/// Starts the stream from a seed, and no other run does for as long as the result lives.
pub(super) fn hold(device: &Device, seed: u64) -> MutexGuard<'static, ()> {
    let held = STREAM.lock().unwrap_or_else(PoisonError::into_inner);
    device.seed(seed);
    held
}

/// Starts the stream from a seed.
pub(super) fn start(device: &Device, seed: u64) {
    drop(hold(device, seed));
}
