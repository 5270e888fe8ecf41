//! Trilinear resampling with half-pixel centres.
