//! A Parquet file of a stranger, read without believing it: nothing is reserved that the file does not hold.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use parquet::basic::Type as PhysicalType;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::DataType;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};

/// A file whose parts are held against its length before memory is reserved for them.
#[derive(Debug)]
pub(super) struct BoundedFile {
    file: Arc<Mutex<File>>,
    length: u64,
}

impl BoundedFile {
    pub(super) fn new(file: File) -> io::Result<Self> {
        Ok(Self {
            length: file.metadata()?.len(),
            file: Arc::new(Mutex::new(file)),
        })
    }
}

impl Length for BoundedFile {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for BoundedFile {
    type T = BufReader<Part>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        /// More than the header of a page.
        const BUFFER: usize = 512;
        let part = Part {
            file: self.file.clone(),
            place: start,
        };
        Ok(BufReader::with_capacity(BUFFER, part))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(ParquetError::EOF(format!(
                "{length} bytes from {start} on are more than the file has, {}",
                self.length
            )));
        }
        let mut bytes = vec![0; length];
        let mut part = Part {
            file: self.file.clone(),
            place: start,
        };
        part.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// A file from some place on; others read elsewhere at the same time.
#[derive(Debug)]
pub(super) struct Part {
    file: Arc<Mutex<File>>,
    place: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = self
            .file
            .lock()
            .map_err(|_| io::Error::other("a reader failed"))?;
        file.seek(SeekFrom::Start(self.place))?;
        let count = file.read(buffer)?;
        self.place += count as u64;
        Ok(count)
    }
}

/// Pages that have no more values than the table says.
struct BoundedPages {
    pages: Box<dyn PageReader>,
    /// Values still to come.
    left: usize,
}

impl PageReader for BoundedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        /// Bytes of a value in a dictionary: a float, or the length of a text.
        const LEAST: usize = 4;
        let page = self.pages.get_next_page()?;
        let Some(found) = &page else {
            return Ok(None);
        };
        let values = found.num_values() as usize;
        let fits = if found.is_dictionary_page() {
            values <= found.buffer().len() / LEAST
        } else if let Some(left) = self.left.checked_sub(values) {
            self.left = left;
            true
        } else {
            false
        };
        if fits {
            Ok(page)
        } else {
            Err(ParquetError::General(format!(
                "a page claims {values} values, more than there can be"
            )))
        }
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
}

impl Iterator for BoundedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

/// The values of a column in one row group, with their levels: how much of what is optional is there, and where rows go on.
pub(super) struct Column<T> {
    pub(super) values: Vec<T>,
    pub(super) present: Vec<i16>,
    pub(super) repeated: Vec<i16>,
}

/// Reads a column of a row group of `rows` rows, with no more than `most` values.
pub(super) fn read_column<T: DataType>(
    file: &SerializedFileReader<BoundedFile>,
    group: usize,
    column: usize,
    rows: usize,
    most: usize,
) -> Result<Column<T::T>> {
    let metadata = file.metadata().row_group(group).column(column);
    let place = metadata
        .dictionary_page_offset()
        .unwrap_or(metadata.data_page_offset());
    if place < 0 || metadata.compressed_size() < 0 {
        return Err(ParquetError::General(
            "a column begins before the file".to_owned(),
        ));
    }
    let description = metadata.column_descr_ptr();
    debug_assert_eq!(description.physical_type(), physical_type::<T>());
    let pages = BoundedPages {
        pages: file.get_row_group(group)?.get_column_page_reader(column)?,
        left: most,
    };
    let mut reader = ColumnReaderImpl::<T>::new(description, Box::new(pages));
    let mut read = Column {
        values: Vec::new(),
        present: Vec::new(),
        repeated: Vec::new(),
    };
    let (present, repeated) = (&mut read.present, &mut read.repeated);
    let (records, ..) =
        reader.read_records(rows, Some(present), Some(repeated), &mut read.values)?;
    if records != rows {
        return Err(ParquetError::General(format!(
            "a column has {records} of {rows} rows"
        )));
    }
    Ok(read)
}

pub(super) fn physical_type<T: DataType>() -> PhysicalType {
    T::get_physical_type()
}

#[cfg(test)]
mod tests {
    use parquet::basic::Encoding;

    use super::*;

    /// Pages of a file that claims whatever it likes.
    struct Claimed(Vec<Page>);

    impl PageReader for Claimed {
        fn get_next_page(&mut self) -> Result<Option<Page>> {
            Ok(self.0.pop())
        }
        fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
            Ok(None)
        }
        fn skip_next_page(&mut self) -> Result<()> {
            Ok(())
        }
    }

    impl Iterator for Claimed {
        type Item = Result<Page>;
        fn next(&mut self) -> Option<Self::Item> {
            self.get_next_page().transpose()
        }
    }

    fn data(num_values: u32) -> Page {
        Page::DataPage {
            buf: Bytes::from_static(&[0; 8]),
            num_values,
            encoding: Encoding::PLAIN,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        }
    }

    fn dictionary(num_values: u32) -> Page {
        Page::DictionaryPage {
            buf: Bytes::from_static(&[0; 8]),
            num_values,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        }
    }

    /// How many pages are handed on of a column of 10 values.
    fn passed(pages: Vec<Page>) -> usize {
        let pages = BoundedPages {
            pages: Box::new(Claimed(pages)),
            left: 10,
        };
        pages.take_while(Result::is_ok).count()
    }

    #[test]
    fn pages_have_no_more_values_than_the_table_and_the_bytes() {
        assert_eq!(passed(vec![data(4), data(6)]), 2);
        assert_eq!(passed(vec![data(5), data(6)]), 1);
        assert_eq!(passed(vec![data(u32::MAX)]), 0);
        assert_eq!(passed(vec![data(10), dictionary(2)]), 2);
        assert_eq!(passed(vec![data(10), dictionary(3)]), 0);
    }

    #[test]
    fn no_memory_is_reserved_beyond_the_file() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(path.path(), [1, 2, 3]).expect("it can be written");
        let file = File::open(path.path()).expect("a file");
        let file = BoundedFile::new(file).expect("a length");
        assert_eq!(file.get_bytes(1, 2).expect("they are there")[..], [2, 3]);
        for (start, length) in [(2, 2), (0, usize::MAX), (u64::MAX, 1)] {
            assert!(file.get_bytes(start, length).is_err());
        }
        let mut rest = Vec::new();
        let mut part = file.get_read(1).expect("a reader");
        part.read_to_end(&mut rest).expect("it can be read");
        assert_eq!(rest, [2, 3]);
    }
}
