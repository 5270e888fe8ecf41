//! Bringing values into range: rescale, clip, window.
