//! Ctrl-C: asks the work at hand to stop cleanly; a second one ends the program at once.

use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

/// Status of a program that a second interrupt ends, as shells report it: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// The flag that an interrupt sets, with the handler installed.
pub(crate) fn stop_flag() -> anyhow::Result<&'static AtomicBool> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED);
        }
        crate::progress::note("stopping after this step; press again to quit at once");
    })?;
    Ok(&STOP)
}

/// The flag, without a handler: asks the work at hand to stop for another reason.
pub(crate) fn stop() {
    STOP.store(true, Ordering::Relaxed);
}
