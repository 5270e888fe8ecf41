//! CT-RATE's folders, reports, metadata and labels.
