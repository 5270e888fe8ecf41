//! Phantoms as a whole.
