//! Which backend runs which version; wiring only.

mod autodiff;
mod flex;
