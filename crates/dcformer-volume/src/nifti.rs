//! NIfTI-1 and NIfTI-2, read and written.
