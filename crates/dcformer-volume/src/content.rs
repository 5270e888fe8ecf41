//! What a file holds, by its first bytes.

/// Beginnings of files that people take for scans, and what they are.
const BEGINNINGS: [(&[u8], &str); 17] = [
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "a gzip file"),
    (b"PK\x03\x04", "a ZIP archive (unpack it first)"),
    (b"Rar!", "a RAR archive (unpack it first)"),
    (b"7z\xbc\xaf", "a 7z archive (unpack it first)"),
    (b"BZh", "a bzip2 file (unpack it first)"),
    (b"\xfd7zXZ", "an xz file (unpack it first)"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file (unpack it first)"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89HDF", "an HDF5 file"),
    (b"NRRD", "an NRRD file (convert it to NIfTI first)"),
    (
        b"ObjectType",
        "a MetaImage header (convert it to NIfTI first)",
    ),
    (
        b"version https://git-lfs",
        "a pointer of Git LFS, not the file itself (run `git lfs pull`)",
    ),
    (b"\x93NUMPY", "a NumPy array"),
    (b"<!DOCTYPE", "a web page (the download went wrong)"),
    (b"<html", "a web page (the download went wrong)"),
];

/// Names the content for a message: "a PDF document", "an empty file".
pub(crate) fn describe(start: &[u8]) -> &'static str {
    if start.is_empty() {
        return "an empty file";
    }
    if start.iter().all(|&byte| byte == 0) {
        return "a file of zeros";
    }
    if is_dicom(start) {
        return "a DICOM file";
    }
    if start.get(257..262) == Some(b"ustar") {
        return "a tar archive (unpack it first)";
    }
    let known = BEGINNINGS
        .iter()
        .find(|(beginning, _)| start.starts_with(beginning));
    match known {
        Some((_, name)) => name,
        None if is_text(start) => "a text file",
        None => "a file of another kind",
    }
}

/// Whether the bytes are the beginning of a DICOM file: its preamble and prefix, or, as old files have it, a data
/// set of group 2 or 8 at once.
pub(crate) fn is_dicom(start: &[u8]) -> bool {
    let bare = |order: fn([u8; 2]) -> u16| {
        let number = |at: usize| start.get(at..at + 2)?.try_into().ok().map(order);
        let length_or_type = start.get(4..6);
        matches!(number(0), Some(0x0002 | 0x0008))
            && matches!(number(2), Some(0x0000..=0x0070))
            && length_or_type
                .is_some_and(|bytes| bytes.iter().all(u8::is_ascii_uppercase) || bytes[1] == 0)
    };
    start.get(128..132) == Some(b"DICM") || bare(u16::from_le_bytes) || bare(u16::from_be_bytes)
}

/// Whether all of it is printable, in UTF-8 that may be cut in a character.
fn is_text(start: &[u8]) -> bool {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    text.chars()
        .all(|character| !character.is_control() || character.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_mistakes_are_named() {
        assert_eq!(describe(b""), "an empty file");
        assert_eq!(describe(b"%PDF-1.7\n\x80"), "a PDF document");
        assert_eq!(
            describe("VolumeName,Findings\u{e9}".as_bytes()),
            "a text file"
        );
        assert_eq!(
            describe("caf\u{e9}".as_bytes().split_last().unwrap().1),
            "a text file"
        );
        assert_eq!(describe(&[0; 348]), "a file of zeros");
        assert_eq!(describe(&[1, 2, 3]), "a file of another kind");
    }

    #[test]
    fn dicom_is_known_with_and_without_preamble() {
        let mut with_preamble = vec![0; 128];
        with_preamble.extend(b"DICM");
        assert!(is_dicom(&with_preamble));
        assert!(is_dicom(b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"));
        assert!(is_dicom(
            b"\x08\x00\x00\x00\x04\x00\x00\x00\x00\x01\x00\x00"
        ));
        assert!(is_dicom(b"\x00\x08\x00\x05CS\x00\x0aISO_IR 100"));
        assert!(!is_dicom(&348_u32.to_le_bytes()));
        assert!(!is_dicom(b"\x08\x00 text"));
    }
}
