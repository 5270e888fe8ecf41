//! Behaviour of the crate through its public face.

mod dicom; // series of slices: real ones, written ones, broken ones
