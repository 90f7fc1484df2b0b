//! Event files of TensorBoard: protocol buffers in records with checksums, as TensorFlow writes them. So few kinds of
//! messages are needed that they are written out here.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use toml::Value;

use crate::{
    config::settings::show,
    error::{Error, Result},
};

/// The first event of every file says this.
const FILE_VERSION: &str = "brain.Event:2";

/// The plugin of TensorBoard that compares settings, and its two tags of a session.
const HPARAMS: &str = "hparams";
const SESSION_START: &str = "_hparams_/session_start_info";
const SESSION_END: &str = "_hparams_/session_end_info";

/// The events of a run of TensorBoard, in memory.
pub(super) struct EventFile {
    path: PathBuf,
    /// All events have the time at which they were written: epochs have none of their own.
    wall_time: f64,
    bytes: Vec<u8>,
}

/// Removes the event files that an earlier run of the same name wrote to a folder: TensorBoard would show both as one.
///
/// # Errors
/// Returns an error if the folder cannot be read, or a file cannot be removed.
pub(super) fn remove_events(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("events.out.tfevents.") && name.ends_with(".frostbert") {
            fs::remove_file(&path).map_err(Error::io("delete", &path))?;
        }
    }
    Ok(())
}

impl EventFile {
    /// One without events, of now, for the folder of a run.
    pub(super) fn new(folder: &Path) -> EventFile {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("events.out.tfevents.{:010}.frostbert", now.as_secs());
        let path = folder.join(name);
        let mut file = EventFile { path, wall_time: now.as_secs_f64(), bytes: Vec::new() };
        file.add(0, |event| event.bytes(3, FILE_VERSION.as_bytes()));
        file
    }

    /// A number at a step.
    pub(super) fn scalar(&mut self, tag: &str, step: usize, value: f64) {
        let value = Message::default().bytes(1, tag.as_bytes()).float(2, value as f32);
        self.summary(step, &value);
    }

    /// The settings that the numbers come from, and whether they came to an end.
    pub(super) fn session(&mut self, settings: &[(String, Value)], has_succeeded: bool) {
        let start = settings.iter().fold(Message::default(), |start, (key, value)| {
            let entry = Message::default().bytes(1, key.as_bytes()).message(2, &setting(value));
            start.message(1, &entry)
        });
        let start = start.double(5, self.wall_time);
        self.hparams(SESSION_START, &Message::default().message(3, &start));
        let status = if has_succeeded { 1 } else { 2 };
        let end = Message::default().varint(1, status).double(2, self.wall_time);
        self.hparams(SESSION_END, &Message::default().message(4, &end));
    }

    /// Writes the file, and its folder where there is none.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn write(self) -> Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        remove_events(folder)?;
        // A reader takes what is whole of a file that is still being written.
        fs::write(&self.path, &self.bytes).map_err(Error::io("write", &self.path))
    }

    fn hparams(&mut self, tag: &str, content: &Message) {
        let plugin = Message::default().bytes(1, HPARAMS.as_bytes()).message(2, content);
        let metadata = Message::default().message(1, &plugin);
        let value = Message::default().bytes(1, tag.as_bytes()).message(9, &metadata);
        self.summary(0, &value);
    }

    fn summary(&mut self, step: usize, value: &Message) {
        let summary = Message::default().message(1, value);
        self.add(step, |event| event.message(5, &summary));
    }

    /// Adds an event as a record: its length and its bytes, each with a checksum.
    fn add(&mut self, step: usize, what: impl FnOnce(Message) -> Message) {
        let event = Message::default().double(1, self.wall_time).varint(2, step as u64);
        let Message(event) = what(event);
        let length = (event.len() as u64).to_le_bytes();
        self.bytes.extend(length);
        self.bytes.extend(masked_crc32c(&length).to_le_bytes());
        self.bytes.extend(&event);
        self.bytes.extend(masked_crc32c(&event).to_le_bytes());
    }
}

/// A value of a setting as the plugin takes it: numbers, texts and what is true or false.
fn setting(value: &Value) -> Message {
    match value {
        Value::Integer(number) => Message::default().double(2, *number as f64),
        Value::Float(number) => Message::default().double(2, *number),
        Value::Boolean(is_true) => Message::default().varint(4, u64::from(*is_true)),
        other => Message::default().bytes(3, show(other).as_bytes()),
    }
}

/// A protocol buffer, field after field.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    /// A whole number, written in groups of seven bits.
    fn varint(mut self, field: u8, value: u64) -> Message {
        self.key(field, 0);
        self.number(value);
        self
    }

    fn double(mut self, field: u8, value: f64) -> Message {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn float(mut self, field: u8, value: f32) -> Message {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Bytes, a text or another message.
    fn bytes(mut self, field: u8, bytes: &[u8]) -> Message {
        self.key(field, 2);
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn message(self, field: u8, message: &Message) -> Message {
        self.bytes(field, &message.0)
    }

    /// The number of a field, below 16, and how its value is written.
    fn key(&mut self, field: u8, kind: u8) {
        self.0.push((field << 3) | kind);
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// What eight steps of the checksum do to each byte.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// CRC-32C (Castagnoli).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| CRC_TABLE[usize::from((crc as u8) ^ byte)] ^ (crc >> 8);
    !bytes.iter().fold(!0_u32, step)
}

/// The checksum as records hold it, so that one of a record in a record is none of it.
fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard_and_of_tensorflow() {
        // RFC 3720, B.4, and the check value of the catalogue of CRCs.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        // The first bytes of a file that TensorBoard's own writer begins with an event of 24 bytes.
        assert_eq!(masked_crc32c(&24_u64.to_le_bytes()), 0x224B_7FA3);
    }

    #[test]
    fn messages_are_written_as_protocol_buffers_are() {
        let inner = Message::default().bytes(1, b"loss").float(2, 0.5);
        let message = Message::default().varint(2, 300).message(1, &inner).double(3, -2.0);
        let mut expected = vec![0x10, 0xAC, 0x02, 0x0A, 11, 0x0A, 4];
        expected.extend(b"loss");
        expected.extend([0x15, 0, 0, 0, 0x3F, 0x19, 0, 0, 0, 0, 0, 0, 0, 0xC0]);
        assert_eq!(message.0, expected);
    }

    #[test]
    fn records_are_whole_and_carry_their_lengths() {
        let mut file = EventFile::new(Path::new("logs"));
        file.scalar("loss/train", 3, 0.25);
        file.session(&[("lr".into(), 0.01.into()), ("kind".into(), "mlp".into())], true);
        let (mut rest, mut events) = (&file.bytes[..], Vec::new());
        while !rest.is_empty() {
            let (length, others) = rest.split_at(8);
            let n_bytes = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            let (sum, others) = others.split_at(4);
            assert_eq!(sum, masked_crc32c(length).to_le_bytes());
            let (event, others) = others.split_at(n_bytes);
            let (sum, others) = others.split_at(4);
            assert_eq!(sum, masked_crc32c(event).to_le_bytes());
            events.push(event);
            rest = others;
        }
        assert_eq!(events.len(), 4);
        assert!(events[0].ends_with(FILE_VERSION.as_bytes()));
        let holds = |event: &[u8], text: &str| {
            event.windows(text.len()).any(|window| window == text.as_bytes())
        };
        assert!(holds(events[1], "loss/train"));
        assert!(holds(events[2], SESSION_START) && holds(events[2], "mlp"));
        assert!(holds(events[3], SESSION_END));
        assert!(file.path.starts_with("logs"));
    }
}
