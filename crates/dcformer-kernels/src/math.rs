//! Scalar mathematics shared by kernels.
