//! A data set as one CSV: volume, report, labels.
