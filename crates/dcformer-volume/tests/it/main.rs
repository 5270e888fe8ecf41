//! Behaviour of the crate through its public face.

mod allocation; // how much memory a call asked for
mod cache; // preprocessed volumes on disk
mod dicom;
mod malformed; // broken and hostile files give errors, at no cost
mod nifti; // every way to write a volume reads the same
mod preprocess; // from scan to model input
mod scan; // files and folders are told apart by content
mod variants; // the files of tests/data/variants, put together // series of slices: real ones, written ones, broken ones
