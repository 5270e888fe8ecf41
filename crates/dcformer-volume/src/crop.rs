//! Centre crop or pad.
