//! Synthetic chest scans with known findings and reports.
