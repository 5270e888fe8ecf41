//! Progress and messages on standard error: bars on a terminal, plain lines elsewhere.
#![allow(
    clippy::print_stderr,
    reason = "this module is where messages are printed"
)]

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

static QUIET: AtomicBool = AtomicBool::new(false);

/// Leaves messages other than errors to another process, which has the same to say.
#[cfg(feature = "mpi")]
pub(crate) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Says something beside the results.
pub(crate) fn note(message: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        eprintln!("{message}");
    }
}

/// Says why the program fails.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// Progress of one piece of work with a known length.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    what: &'static str,
    started: Instant,
    /// When the last plain line was written, and how far the work was at the start.
    last: Mutex<Instant>,
    start: u64,
    length: u64,
}

impl Progress {
    /// Work of `length` pieces of which `start` are done.
    pub(crate) fn new(what: &'static str, start: u64, length: u64) -> Self {
        let shown = std::io::stderr().is_terminal() && !QUIET.load(Ordering::Relaxed);
        let bar = shown.then(|| {
            let bar = ProgressBar::new(length).with_position(start);
            let style = "{prefix:12} {bar:30} {pos}/{len}  {elapsed} of about {duration}  {msg}";
            bar.set_style(ProgressStyle::with_template(style).expect("a valid template"));
            bar.set_prefix(what);
            bar
        });
        let now = Instant::now();
        Self {
            bar,
            what,
            started: now,
            last: Mutex::new(now),
            start,
            length,
        }
    }

    /// Work is done up to `position`; `message` says how it goes.
    pub(crate) fn set(&self, position: u64, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(message.to_owned());
            return;
        }
        let Ok(mut last) = self.last.lock() else {
            return;
        };
        if last.elapsed() < LINE_EVERY {
            return;
        }
        *last = Instant::now();
        let elapsed_s = self.started.elapsed().as_secs_f64();
        let rate = (position - self.start) as f64 / elapsed_s;
        let left_s = (self.length - position) as f64 / rate.max(f64::MIN_POSITIVE);
        let message = if message.is_empty() {
            String::new()
        } else {
            format!(", {message}")
        };
        note(&format!(
            "{}: {position}/{}, {} left{message}",
            self.what,
            self.length,
            duration(left_s)
        ));
    }

    /// A message that stays, above the bar.
    pub(crate) fn say(&self, message: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(message)),
            None => note(message),
        }
    }

    /// The work is over.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Seconds in words.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..=9 => format!("{seconds:.1} s"),
        10..=99 => format!("{whole} s"),
        100..=5999 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_short_and_exact_enough() {
        let found: Vec<String> = [0.04, 9.4, 42.0, 187.0, 7260.0].map(duration).into();
        assert_eq!(
            found,
            ["0.0 s", "9.4 s", "42 s", "3 min 07 s", "2 h 01 min"]
        );
    }
}
