//! The wire format of protocol buffers: a message is a sequence of numbered fields, each of which is a number or a run
//! of bytes, which may be a message again.

/// The content of a field.
pub(super) enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes, as of an f32 or f64.
    Fixed(&'a [u8]),
}

/// Visits the fields of a message; returns `None` if the bytes are not a message or `visit` returns `None`.
pub(super) fn fields<'a>(
    mut bytes: &'a [u8],
    mut visit: impl FnMut(u64, Content<'a>) -> Option<()>,
) -> Option<()> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let content = match key & 7 {
            0 => Content::Number(varint(&mut bytes)?),
            1 => Content::Fixed(skip(&mut bytes, 8)?),
            2 => {
                let length = varint(&mut bytes)?;
                Content::Bytes(skip(&mut bytes, usize::try_from(length).ok()?)?)
            }
            5 => Content::Fixed(skip(&mut bytes, 4)?),
            _ => return None,
        };
        visit(key >> 3, content)?;
    }
    Some(())
}

fn skip<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// Reads a varint: seven bits per byte, lowest first; the top bit means that another byte follows.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = skip(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
