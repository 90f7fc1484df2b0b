//! The central directory of a zip archive, as far as torch.save uses the format: entries are stored as they are, so
//! each is a range of the file's bytes. Nothing is unpacked.

use std::{collections::BTreeMap, ops::Range};

use frostbert_cache::wording::shorten;

/// The signatures of the parts of an archive.
const END: &[u8; 4] = b"PK\x05\x06";
const END_64: &[u8; 4] = b"PK\x06\x06";
const LOCATOR_64: &[u8; 4] = b"PK\x06\x07";
const DIRECTORY_ENTRY: &[u8; 4] = b"PK\x01\x02";
pub(super) const LOCAL_ENTRY: &[u8; 4] = b"PK\x03\x04";

/// The number of bytes of the end record, which a comment of up to 65,535 bytes may follow.
const END_BYTES: usize = 22;

/// Stands for a size or place that is in a record of 64 bits.
const IN_64: u64 = 0xffff_ffff;

const CUT_OFF: &str = "a zip archive without a complete directory: it is cut off";

/// Returns the place of the content of every entry by its name.
///
/// # Errors
/// Describes what is damaged, or is not stored as it is.
pub(super) fn entries(bytes: &[u8]) -> Result<BTreeMap<String, Range<usize>>, String> {
    let (count, mut at) = directory(bytes)?;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let entry = field::<46>(bytes, at).filter(|entry| entry.starts_with(DIRECTORY_ENTRY));
        let entry = entry.ok_or(CUT_OFF)?;
        let [n_name, n_extra, n_comment] = [28, 30, 32].map(|place| u16_at(entry, place));
        let name_at = at + entry.len();
        let extra_at = name_at + n_name;
        let name = slice(bytes, name_at, n_name).ok_or(CUT_OFF)?;
        let extra = slice(bytes, extra_at, n_extra).ok_or(CUT_OFF)?;
        at = extra_at + n_extra + n_comment;
        let name =
            std::str::from_utf8(name).map_err(|_| "a name in the archive that is not UTF-8")?;
        let shown = shorten(name, 80);
        let (flags, method) = (u16_at(entry, 8), u16_at(entry, 10));
        if method != 0 || flags & 1 != 0 {
            let how = if flags & 1 != 0 { "encrypted" } else { "compressed" };
            return Err(format!("`{shown}` in the archive {how}, which torch.save never does"));
        }
        let [compressed, size, local] = sizes(entry, extra)
            .ok_or_else(|| format!("an archive that does not say where `{shown}` is"))?;
        if compressed != size {
            return Err(format!(
                "`{shown}` in the archive with two sizes, {compressed} and {size}"
            ));
        }
        let place = content(bytes, local, size).ok_or_else(|| {
            format!("`{shown}` in the archive with {size} bytes, which the file does not hold")
        })?;
        if entries.insert(name.to_string(), place).is_some() {
            return Err(format!("`{shown}` twice in the archive"));
        }
    }
    Ok(entries)
}

/// Returns the number of entries and the place of the first.
fn directory(bytes: &[u8]) -> Result<(u64, usize), String> {
    let last = bytes.len().checked_sub(END_BYTES).ok_or(CUT_OFF)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    let is_end = |place: &usize| bytes[*place..].starts_with(END);
    let end_at = (first..=last).rev().find(is_end).ok_or(CUT_OFF)?;
    let locator = end_at.checked_sub(20).and_then(|place| field::<20>(bytes, place));
    let (count, place) = match locator.filter(|locator| locator.starts_with(LOCATOR_64)) {
        Some(locator) => {
            let place = usize::try_from(u64_at(locator, 8)).map_err(|_| CUT_OFF)?;
            let end = field::<56>(bytes, place).filter(|end| end.starts_with(END_64));
            let end = end.ok_or(CUT_OFF)?;
            (u64_at(end, 32), u64_at(end, 48))
        }
        None => {
            let end = field::<END_BYTES>(bytes, end_at).ok_or(CUT_OFF)?;
            (u16_at(end, 10) as u64, u32_at(end, 16))
        }
    };
    Ok((count, usize::try_from(place).map_err(|_| CUT_OFF)?))
}

/// Returns the compressed and the real size of an entry, and the place of its local header.
fn sizes(entry: &[u8], extra: &[u8]) -> Option<[u64; 3]> {
    let mut wide = wide_sizes(extra);
    // Those that do not fit into 32 bits stand in the extra field, in this order.
    let mut size_at = |place: usize| match u32_at(entry, place) {
        IN_64 => {
            let (first, rest) = wide.split_at_checked(8)?;
            wide = rest;
            Some(u64_at(first, 0))
        }
        size => Some(size),
    };
    let (size, compressed, local) = (size_at(24)?, size_at(20)?, size_at(42)?);
    Some([compressed, size, local])
}

/// Returns the content of the extra field that holds sizes of 64 bits; empty if there is none.
fn wide_sizes(mut extra: &[u8]) -> &[u8] {
    while let Some((header, rest)) = extra.split_at_checked(4) {
        let Some((content, others)) = rest.split_at_checked(u16_at(header, 2)) else {
            break;
        };
        if u16_at(header, 0) == 1 {
            return content;
        }
        extra = others;
    }
    &[]
}

/// Returns the place of an entry's content, which follows its local header.
fn content(bytes: &[u8], local: u64, size: u64) -> Option<Range<usize>> {
    let (local, size) = (usize::try_from(local).ok()?, usize::try_from(size).ok()?);
    let header = field::<30>(bytes, local).filter(|header| header.starts_with(LOCAL_ENTRY))?;
    let start = local + header.len() + u16_at(header, 26) + u16_at(header, 28);
    let end = start.checked_add(size).filter(|end| *end <= bytes.len())?;
    Some(start..end)
}

fn slice(bytes: &[u8], at: usize, length: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(length)?)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8]> {
    slice(bytes, at, N)
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    (u16_at(bytes, at) as u64) | (u16_at(bytes, at + 2) as u64) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u32_at(bytes, at) | u32_at(bytes, at + 4) << 32
}
