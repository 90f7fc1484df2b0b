//! The page headers of a Parquet file, checked before its pages are decoded: the decoder reserves what they claim, and
//! unpacks gzip and brotli to their end, whatever they claim.
//!
//! A header is a struct in Thrift's compact protocol (`PageHeader` in the format's `parquet.thrift`). Only its sizes
//! and counts are read; all other fields are skipped. A field that the format has must be of the format's type: the
//! decoder looks at the number of such a field alone, and would read on at another place than this.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
};

use brotli::Decompressor;
use flate2::read::MultiGzDecoder;
use parquet::{
    basic::{Compression, Type},
    errors::ParquetError,
    file::metadata::{ColumnChunkMetaData, ParquetMetaData},
};

/// Maximum size of a page in bytes, decompressed. Writers make pages of about 1 MiB; a larger one holds long values.
const MOST_PAGE_BYTES: i64 = 512 << 20;

/// How many times larger than packed no gzip data is.
const MOST_GZIP_GROWTH: i64 = 1032;

/// Most bytes of a header: the statistics in it may hold two values.
const MOST_HEADER_BYTES: usize = 1 << 20;

/// Maximum nesting depth of structs and lists in a header; those of the format nest at most four levels deep.
const MOST_DEPTH: usize = 16;

/// Checks the headers of all pages of the wanted columns.
///
/// # Errors
/// When a header cannot be read, or claims more than a page can hold; or a page holds more than its header claims.
pub(super) fn check(
    file: &File,
    metadata: &ParquetMetaData,
    is_wanted: impl Fn(usize) -> bool,
) -> Result<(), ParquetError> {
    for group in metadata.row_groups() {
        for (column, chunk) in group.columns().iter().enumerate() {
            if is_wanted(column) {
                check_chunk(file, chunk)?;
            }
        }
    }
    Ok(())
}

fn check_chunk(file: &File, chunk: &ColumnChunkMetaData) -> Result<(), ParquetError> {
    let (mut at, length) = chunk.byte_range();
    let end = at.saturating_add(length);
    while at < end {
        let (header, header_bytes) = read_header(file, at, end)?;
        let sizes = [header.uncompressed_bytes, header.compressed_bytes];
        if sizes.iter().any(|size| !(0..=MOST_PAGE_BYTES).contains(size)) {
            return Err(damage(format!("a page of {} bytes", sizes[0].max(sizes[1]))));
        }
        let dictionary_bytes = header.dictionary_values.saturating_mul(least_width(chunk));
        if header.dictionary_values < 0 || dictionary_bytes > header.uncompressed_bytes {
            return Err(damage(format!(
                "a dictionary of {} values in a page of {} bytes",
                header.dictionary_values, header.uncompressed_bytes
            )));
        }
        at += header_bytes;
        check_unpacked(file, at, &header, chunk.compression())?;
        at += u64::try_from(header.compressed_bytes).unwrap_or(0);
    }
    Ok(())
}

/// Fails where the page at a place of the file is larger than its header says once it is unpacked. The decoder itself stops
/// there for all codecs but gzip and brotli.
fn check_unpacked(
    file: &File,
    at: u64,
    page: &PageClaims,
    compression: Compression,
) -> Result<(), ParquetError> {
    let levels = u64::try_from(page.level_bytes).unwrap_or(u64::MAX);
    let without_levels = |bytes: i64| u64::try_from(bytes).ok()?.checked_sub(levels);
    let (Some(packed), Some(claimed)) =
        (without_levels(page.compressed_bytes), without_levels(page.uncompressed_bytes))
    else {
        return Err(damage(format!("levels of {} bytes", page.level_bytes)));
    };
    // The decoder does not unpack what holds nothing.
    if page.is_stored || claimed == 0 {
        return Ok(());
    }
    let start = at + levels;
    let input = PageBytes { file, at: start, end: start + packed };
    let unpacked: Box<dyn Read + '_> = match compression {
        Compression::GZIP(_) if page.compressed_bytes <= MOST_PAGE_BYTES / MOST_GZIP_GROWTH => {
            return Ok(());
        }
        Compression::GZIP(_) => Box::new(MultiGzDecoder::new(input)),
        Compression::BROTLI(_) => Box::new(Decompressor::new(input, 1 << 16)),
        _ => return Ok(()),
    };
    let unpacked = io::copy(&mut unpacked.take(claimed + 1), &mut io::sink());
    match unpacked.map_err(|error| ParquetError::External(error.into()))? {
        length if length <= claimed => Ok(()),
        _ => Err(damage(format!("{claimed} bytes, but the page holds more"))),
    }
}

/// Some bytes of a file.
struct PageBytes<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for PageBytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let n_read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += n_read as u64;
        Ok(n_read)
    }
}

/// The fewest bytes of a value in a dictionary.
fn least_width(chunk: &ColumnChunkMetaData) -> i64 {
    match chunk.column_type() {
        Type::INT64 | Type::DOUBLE => 8,
        Type::INT96 => 12,
        Type::FIXED_LEN_BYTE_ARRAY => i64::from(chunk.column_descr().type_length()).max(1),
        // Byte arrays start with their length.
        Type::BOOLEAN | Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
    }
}

fn damage(got: String) -> ParquetError {
    ParquetError::General(format!("a page header claims {got}"))
}

/// What a header claims about its page.
#[derive(Debug, Default, PartialEq)]
struct PageClaims {
    uncompressed_bytes: i64,
    compressed_bytes: i64,
    /// Number of values in a dictionary page.
    dictionary_values: i64,
    /// Bytes that stand uncompressed before the values of a page of version 2.
    level_bytes: i64,
    /// Whether the values of a page of version 2 are not compressed either.
    is_stored: bool,
}

/// Reads the header at an offset in the file, and returns it with its length.
fn read_header(file: &File, at: u64, end: u64) -> Result<(PageClaims, u64), ParquetError> {
    let mut most = 1 << 10;
    loop {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(most);
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at).map_err(|error| ParquetError::External(error.into()))?;
        let mut reader = Compact { bytes: &bytes, at: 0 };
        match reader.page_header() {
            Some(header) => return Ok((header, reader.at as u64)),
            // The header may continue after the bytes that were read.
            None if length == most && most < MOST_HEADER_BYTES => most *= 4,
            None => return Err(ParquetError::General("a page header that is damaged".into())),
        }
    }
}

/// The fields of a struct that the format has, while they are read.
struct Fields {
    /// The types of fields 1, 2, 3 ...
    types: &'static [u8],
    /// The number of the current field.
    id: i64,
    /// A bit for each of the types that there was a field of.
    seen: u32,
}

impl Fields {
    fn of(types: &'static [u8]) -> Fields {
        Fields { types, id: 0, seen: 0 }
    }
}

/// Types of the fields of `PageHeader`, from field 1.
const PAGE_HEADER: [u8; 8] = [I32, I32, I32, I32, STRUCT, STRUCT, STRUCT, STRUCT];

/// Types of the fields of `DataPageHeader`: an enumeration is a number of 32 bits.
const DATA_PAGE: [u8; 5] = [I32, I32, I32, I32, STRUCT];

/// Types of the fields of `DictionaryPageHeader`.
const DICTIONARY_PAGE: [u8; 3] = [I32, I32, TRUE];

/// Types of the fields of `DataPageHeaderV2`.
const DATA_PAGE_V2: [u8; 8] = [I32, I32, I32, I32, I32, I32, TRUE, STRUCT];

/// Reads Thrift's compact protocol. Every method returns `None` if the bytes end or are invalid.
struct Compact<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Compact<'_> {
    fn page_header(&mut self) -> Option<PageClaims> {
        let mut claims = PageClaims::default();
        let mut fields = Fields::of(&PAGE_HEADER);
        while let Some(kind) = self.field_of(&mut fields)? {
            match fields.id {
                2 => claims.uncompressed_bytes = self.integer()?,
                3 => claims.compressed_bytes = self.integer()?,
                5 => {
                    self.first_integer(&DATA_PAGE)?;
                }
                7 => claims.dictionary_values = self.first_integer(&DICTIONARY_PAGE)?,
                8 => (claims.level_bytes, claims.is_stored) = self.version_2()?,
                _ => self.skip(kind, 0)?,
            }
        }
        Some(claims)
    }

    /// Reads the integer in field 1 of a struct whose fields have these types, and skips its other fields.
    fn first_integer(&mut self, types: &'static [u8]) -> Option<i64> {
        let (mut fields, mut first) = (Fields::of(types), 0);
        while let Some(kind) = self.field_of(&mut fields)? {
            match fields.id {
                1 => first = self.integer()?,
                _ => self.skip(kind, 1)?,
            }
        }
        Some(first)
    }

    /// The bytes of levels of a page of version 2, and whether its values are not compressed.
    fn version_2(&mut self) -> Option<(i64, bool)> {
        let (mut fields, mut levels, mut is_stored) = (Fields::of(&DATA_PAGE_V2), [0, 0], false);
        while let Some(kind) = self.field_of(&mut fields)? {
            match fields.id {
                5 => levels[0] = self.integer()?,
                6 => levels[1] = self.integer()?,
                7 => is_stored = kind == FALSE,
                _ => self.skip(kind, 1)?,
            }
        }
        Some((levels[0].checked_add(levels[1])?, is_stored))
    }

    /// The type of the next field of a struct; `None` outside also where the format has the field and gives it another
    /// type, or where it stands there twice.
    fn field_of(&mut self, fields: &mut Fields) -> Option<Option<u8>> {
        let Some(kind) = self.field(&mut fields.id)? else { return Some(None) };
        let place = usize::try_from(fields.id).ok().and_then(|id| id.checked_sub(1));
        let Some((place, expected)) = place.and_then(|at| Some((at, *fields.types.get(at)?)))
        else {
            return Some(Some(kind));
        };
        // A boolean has no bytes of its own: its type is its value.
        let is_expected = kind == expected || (expected == TRUE && kind == FALSE);
        let is_repeated = fields.seen & (1 << place) != 0;
        fields.seen |= 1 << place;
        (is_expected && !is_repeated).then_some(Some(kind))
    }

    /// The type of the next field, and its number in `id`; `None` inside where the struct ends.
    fn field(&mut self, id: &mut i64) -> Option<Option<u8>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(None);
        }
        *id = match byte >> 4 {
            // Field numbers have 16 bits, and the decoder truncates them to these.
            0 => i64::from(self.integer()? as i16),
            delta => id.checked_add(i64::from(delta))?,
        };
        Some(Some(byte & 15))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > MOST_DEPTH {
            return None;
        }
        match kind {
            TRUE | FALSE => {}
            BYTE => self.advance(1)?,
            I16 | I32 | I64 => {
                self.integer()?;
            }
            DOUBLE => self.advance(8)?,
            BINARY => {
                let length = usize::try_from(self.unsigned()?).ok()?;
                self.advance(length)?;
            }
            LIST | SET => {
                let byte = self.byte()?;
                let length = match byte >> 4 {
                    15 => self.unsigned()?,
                    length => u64::from(length),
                };
                for _ in 0..length {
                    match byte & 15 {
                        // Each has a byte, which the decoder does not skip.
                        TRUE | FALSE => return None,
                        kind => self.skip(kind, depth + 1)?,
                    }
                }
            }
            STRUCT => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
            }
            // Page headers contain no maps.
            _ => return None,
        }
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn advance(&mut self, n: usize) -> Option<()> {
        self.at = self.at.checked_add(n).filter(|at| *at <= self.bytes.len())?;
        Some(())
    }

    /// Reads an unsigned number in groups of seven bits, the lowest first.
    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Some(value);
            }
        }
        None
    }

    /// Reads a signed number in zigzag encoding: 0, -1, 1, -2 ... are written as 0, 1, 2, 3 ...
    fn integer(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const STRUCT: u8 = 12;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(bytes: &[u8]) -> Option<PageClaims> {
        Compact { bytes, at: 0 }.page_header()
    }

    #[test]
    fn a_header_is_read_with_what_it_does_not_know() {
        // Type 2 (dictionary), 4096 bytes, 100 compressed, a struct 7 of 300 values with an encoding, a list, the end.
        let header = [
            0x15, 4, 0x15, 0x80, 0x40, 0x15, 0xc8, 1, 0x4c, 0x15, 0xd8, 4, 0x15, 4, 0, 0x29, 0x23,
            1, 1, 0,
        ];
        let expected = PageClaims {
            uncompressed_bytes: 4096,
            compressed_bytes: 100,
            dictionary_values: 300,
            ..PageClaims::default()
        };
        assert_eq!(read(&header), Some(expected));
        for length in 0..header.len() {
            assert_eq!(read(&header[..length]), None, "cut off after {length} bytes");
        }
    }

    #[test]
    fn levels_of_version_2_stand_before_what_is_compressed() {
        // 4096 bytes, 100 compressed, a struct 8: its fields 5 (10 bytes) and 6 (2 bytes), and 7, which is false.
        let header = [0x25, 0x80, 0x40, 0x15, 0xc8, 1, 0x5c, 0x55, 20, 0x15, 4, 0x12, 0, 0];
        let expected = PageClaims {
            uncompressed_bytes: 4096,
            compressed_bytes: 100,
            level_bytes: 12,
            is_stored: true,
            ..PageClaims::default()
        };
        assert_eq!(read(&header), Some(expected));
    }

    #[test]
    fn a_page_that_holds_more_than_its_header_claims_is_refused() {
        const N_BYTES: i64 = 1 << 20;
        let mut packed = b"levels".to_vec();
        let mut writer = brotli::CompressorWriter::new(&mut packed, 4096, 1, 22);
        writer.write_all(&vec![0; N_BYTES as usize]).unwrap();
        drop(writer);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&packed).unwrap();
        assert!(packed.len() < 4096, "{} bytes", packed.len());
        let checked = |claimed: i64| {
            let page = PageClaims {
                uncompressed_bytes: claimed + 6,
                compressed_bytes: packed.len() as i64,
                level_bytes: 6,
                ..PageClaims::default()
            };
            check_unpacked(&file, 0, &page, Compression::BROTLI(Default::default()))
        };
        checked(N_BYTES).unwrap();
        let error = checked(N_BYTES - 1).unwrap_err().to_string();
        assert!(error.contains("1048575 bytes, but the page holds more"), "{error}");
        assert!(checked(-1).is_err());
    }

    #[test]
    fn a_size_of_another_type_or_under_a_longer_number_is_not_passed_over() {
        assert_eq!(read(&[0x26, 0x80, 0x40, 0]), None, "field 2 as a number of 64 bits");
        assert_eq!(read(&[0x7c, 0x16, 0x80, 0x40, 0, 0]), None, "values of a dictionary alike");
        // Field 65,538, which is 2 in 16 bits, is 131,076 in zigzag encoding.
        let header = read(&[0x05, 0x84, 0x80, 0x08, 0x80, 0x40, 0]).unwrap();
        assert_eq!(header.uncompressed_bytes, 4096);
    }

    #[test]
    fn a_field_of_the_format_is_of_its_type_and_stands_there_once() {
        // The decoder reads field 4 as a number, and what this declares to be its text as more of the header.
        assert_eq!(read(&[0x48, 2, 0x15, 4, 0]), None, "field 4 as a text");
        assert_eq!(read(&[0x15, 0, 0x38, 1, 0, 0]), None, "field 4 as a text, after field 1");
        let others: [(&[u8], &str); 11] = [
            (&[0x18, 0, 0], "field 1"),
            (&[0x58, 0, 0], "field 5"),
            (&[0x68, 0, 0], "field 6"),
            (&[0x5c, 0x28, 0, 0, 0], "field 2 of field 5"),
            (&[0x5c, 0x58, 0, 0, 0], "field 5 of field 5"),
            (&[0x7c, 0x28, 0, 0, 0], "field 2 of field 7"),
            (&[0x7c, 0x35, 0, 0, 0], "field 3 of field 7"),
            (&[0x8c, 0x48, 0, 0, 0], "field 4 of field 8"),
            (&[0x8c, 0x75, 0, 0, 0], "field 7 of field 8"),
            (&[0x8c, 0x88, 0, 0, 0], "field 8 of field 8"),
            (&[0x99, 0x12, 0, 0], "a list of booleans, which the decoder takes to be empty"),
        ];
        for (header, what) in others {
            assert_eq!(read(header), None, "{what}");
        }
        // Field 2, and again as the field that is 2 in zigzag encoding.
        assert_eq!(read(&[0x25, 4, 0x05, 4, 6, 0]), None);
        assert_eq!(read(&[0x8c, 0x71, 0x02, 14, 0, 0]), None);
        // All fields of a data page, with its statistics.
        let header = [
            0x15, 0, 0x15, 4, 0x15, 4, 0x15, 9, 0x1c, 0x15, 2, 0x15, 0, 0x15, 6, 0x15, 6, 0x1c,
            0x36, 0, 0x28, 1, b'a', 0, 0, 0,
        ];
        let sizes =
            read(&header).map(|claims| (claims.uncompressed_bytes, claims.compressed_bytes));
        assert_eq!(sizes, Some((2, 2)));
        let sorted = [0x7c, 0x15, 4, 0x15, 0, 0x12, 0, 0];
        assert_eq!(read(&sorted).map(|claims| claims.dictionary_values), Some(2));
    }

    #[test]
    fn a_header_without_an_end_is_refused() {
        let mut structs = [0x1c; 4096];
        structs[0] = 0x9c;
        assert_eq!(read(&structs), None, "structs in each other");
        assert_eq!(
            read(&[0x99, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]),
            None,
            "a list without its items"
        );
        assert_eq!(
            read(&[0x98, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            None,
            "a text without its bytes"
        );
        assert_eq!(
            read(&[0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            None
        );
    }
}
