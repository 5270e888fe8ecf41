//! Gradients on the CPU backend.
use crate::KernelOps;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::{Autodiff, Flex};
impl<C: CheckpointStrategy> KernelOps for Autodiff<Flex, C> {}
