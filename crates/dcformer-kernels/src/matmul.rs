//! Register tiles and matrix products.
