//! From a scan to a network's input: the steps in order, and presets with their source.
