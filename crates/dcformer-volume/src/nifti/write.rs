//! From volume to file.
