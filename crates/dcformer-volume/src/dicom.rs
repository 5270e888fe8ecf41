//! A folder of DICOM slices to one volume.
