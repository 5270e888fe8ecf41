//! What a person has: a NIfTI file or a DICOM folder, told apart and read.
