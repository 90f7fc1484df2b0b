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

/// A message that is being written.
#[derive(Clone, Debug, Default)]
pub(super) struct ProtoMessage(Vec<u8>);

impl ProtoMessage {
    /// Returns its fields so far.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds a number. A negative one is given as its two's complement.
    pub(super) fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    /// Adds an f32.
    pub(super) fn float(&mut self, field: u64, value: f32) {
        self.varint((field << 3) | 5);
        self.0.extend(value.to_le_bytes());
    }

    /// Adds a text.
    pub(super) fn text(&mut self, field: u64, value: &str) {
        self.key_of_bytes(field, value.len() as u64);
        self.0.extend(value.as_bytes());
    }

    /// Adds a message.
    pub(super) fn message(&mut self, field: u64, value: &ProtoMessage) {
        self.key_of_bytes(field, value.0.len() as u64);
        self.0.extend(&value.0);
    }

    /// Adds what precedes the bytes of a field that has so many of them.
    pub(super) fn key_of_bytes(&mut self, field: u64, n_bytes: u64) {
        self.varint((field << 3) | 2);
        self.varint(n_bytes);
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut inner = ProtoMessage::default();
        inner.text(2, "words");
        inner.number(3, (-2i64) as u64);
        let mut message = ProtoMessage::default();
        message.number(1, 300);
        message.message(15, &inner);
        message.float(20, 1.5);
        let mut seen = Vec::new();
        let whole = fields(message.bytes(), |field, content| {
            seen.push(match content {
                Content::Number(value) => (field, value.to_string()),
                Content::Bytes(bytes) => (field, format!("{} bytes", bytes.len())),
                Content::Fixed(bytes) => (field, format!("{bytes:?}")),
            });
            Some(())
        });
        assert!(whole.is_some());
        let expected = [(1, "300"), (15, "18 bytes"), (20, "[0, 0, 192, 63]")];
        assert_eq!(seen, expected.map(|(field, content)| (field, content.to_string())));
    }
}
