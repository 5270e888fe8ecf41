//! Hidden activations that a forward pass keeps for its backward pass, as far as there is room.
//!
//! The backward pass of an MLP needs its hidden activations, four times the channels of its input. Without room they are
//! computed again, a fifth of the pass. Either way the numbers are the same, bit for bit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that are still free.
static ROOM: Room = Room(AtomicUsize::new(0));

/// Lets forward passes of training keep hidden activations for their backward passes, up to so many bytes at once; none
/// unless this is called. Programs call it once, at their start: it changes memory and time, never what is computed.
pub fn keep_hidden_activations(bytes: usize) {
    ROOM.0.store(bytes, Ordering::Relaxed);
}

/// Bytes that may be kept.
#[derive(Debug)]
struct Room(AtomicUsize);

impl Room {
    /// Takes the bytes, if there are as many.
    fn take(&'static self, bytes: usize) -> Option<Taken> {
        let rest = |free: usize| free.checked_sub(bytes);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
        taken.ok().map(|_| Taken { room: self, bytes })
    }
}

/// Bytes of the room, given back at the end.
#[derive(Debug)]
struct Taken {
    room: &'static Room,
    bytes: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.0.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// Values that are kept from the forward to the backward pass.
#[derive(Clone, Debug)]
pub(crate) struct Kept(Arc<(Vec<f32>, Taken)>);

impl Kept {
    /// What `compute` gives beside its result, if there is room for so many values; else what `without` gives.
    pub(crate) fn with_room<R>(
        values: usize,
        compute: impl FnOnce() -> (R, Vec<f32>),
        without: impl FnOnce() -> R,
    ) -> (R, Option<Self>) {
        match ROOM.take(values * size_of::<f32>()) {
            Some(taken) => {
                let (result, values) = compute();
                (result, Some(Self(Arc::new((values, taken)))))
            }
            None => (without(), None),
        }
    }

    /// The values, to change.
    pub(crate) fn into_values(self) -> Vec<f32> {
        match Arc::try_unwrap(self.0) {
            Ok((values, _)) => values,
            Err(shared) => shared.0.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_all_comes_back() {
        static TEN: Room = Room(AtomicUsize::new(10));
        let free = || TEN.0.load(Ordering::Relaxed);
        let first = TEN.take(6).expect("there is room");
        assert!(TEN.take(5).is_none());
        let second = TEN.take(4).expect("there is room");
        assert_eq!(free(), 0);
        drop(first);
        assert_eq!(free(), 6);
        drop(second);
        assert_eq!(free(), 10);
    }
}
