//! A SentencePiece model (spm.model, spiece.model, sentencepiece.bpe.model): its pieces with their scores, and the
//! table by which it normalises texts. `sentencepiece_model.proto` defines the numbers of the fields.

use crate::encoder::protobuf::{Content, fields};

/// What a tokenizer is built from.
pub(super) struct SentencePieceModel {
    pub(super) pieces: Vec<SentencePiece>,
    /// The compiled table of replacements; empty if nothing is replaced.
    pub(super) charsmap: Vec<u8>,
}

/// A piece of the vocabulary.
pub(super) struct SentencePiece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: PieceKind,
}

/// What a piece stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    /// A part of texts.
    Normal,
    /// Whatever has no piece.
    Unknown,
    /// A token that no text contains.
    Control,
    /// A token that is never split.
    UserDefined,
    /// A piece that is not used, or a byte.
    Other,
}

/// The number of the algorithm that chooses the most likely pieces; the others are BPE, words and characters.
const UNIGRAM: u64 = 1;

/// Reads a model.
///
/// # Errors
/// Describes what is damaged, or made by another algorithm.
pub(super) fn read(bytes: &[u8]) -> Result<SentencePieceModel, String> {
    let mut model = SentencePieceModel { pieces: Vec::new(), charsmap: Vec::new() };
    let mut algorithm = UNIGRAM;
    let (mut has_training, mut has_normalizer) = (false, false);
    let whole = fields(bytes, |number, content| {
        match (number, content) {
            (1, Content::Bytes(piece)) => model.pieces.push(read_piece(piece)?),
            (2, Content::Bytes(training)) => {
                has_training = true;
                fields(training, |number, content| {
                    if let (3, Content::Number(kind)) = (number, content) {
                        algorithm = kind;
                    }
                    Some(())
                })?;
            }
            (3, Content::Bytes(normalizer)) => {
                has_normalizer = true;
                fields(normalizer, |number, content| {
                    if let (2, Content::Bytes(charsmap)) = (number, content) {
                        model.charsmap = charsmap.to_vec();
                    }
                    Some(())
                })?;
            }
            _ => {}
        }
        Some(())
    });
    if whole.is_none() || model.pieces.is_empty() {
        return Err(format!("{} bytes that are none, or not all of one", bytes.len()));
    }
    // Both follow the pieces, so a file that is cut off between two fields lacks one of them.
    for (there, what) in
        [(has_training, "how it was trained"), (has_normalizer, "how texts are normalised")]
    {
        if !there {
            return Err(format!("{} bytes that do not say {what}: they are cut off", bytes.len()));
        }
    }
    if algorithm != UNIGRAM {
        return Err(format!("one of algorithm {algorithm} (2 is BPE), where unigram is 1"));
    }
    let unknown = model.pieces.iter().filter(|piece| piece.kind == PieceKind::Unknown).count();
    if unknown != 1 {
        return Err(format!("one with {unknown} pieces for the unknown"));
    }
    Ok(model)
}

fn read_piece(bytes: &[u8]) -> Option<SentencePiece> {
    let mut piece = SentencePiece { text: String::new(), score: 0.0, kind: PieceKind::Normal };
    fields(bytes, |number, content| {
        match (number, content) {
            (1, Content::Bytes(text)) => piece.text = String::from_utf8(text.to_vec()).ok()?,
            (2, Content::Fixed(score)) => piece.score = f32::from_le_bytes(score.try_into().ok()?),
            (3, Content::Number(kind)) => {
                piece.kind = match kind {
                    1 => PieceKind::Normal,
                    2 => PieceKind::Unknown,
                    3 => PieceKind::Control,
                    4 => PieceKind::UserDefined,
                    _ => PieceKind::Other,
                }
            }
            _ => {}
        }
        Some(())
    })?;
    piece.score.is_finite().then_some(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of bytes.
    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }

    fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
        let score = [&[2 << 3 | 5][..], &score.to_le_bytes()].concat();
        bytes(1, &[&bytes(1, text.as_bytes())[..], &score, &[3 << 3, kind]].concat())
    }

    #[test]
    fn pieces_and_the_table_are_read_and_the_rest_is_passed_over() {
        let unknown = piece("<unk>", 0.0, 2);
        let training = bytes(2, &[3 << 3, 1]);
        let normalizer = bytes(3, &[bytes(1, b"nmt_nfkc"), bytes(2, b"table")].concat());
        let end = [training, normalizer.clone()].concat();
        let file = [unknown.clone(), piece("\u{2581}a", -1.5, 1), end.clone()].concat();
        let model = read(&file).ok().unwrap();
        assert_eq!(model.charsmap, b"table");
        assert_eq!((&model.pieces[1].text[..], model.pieces[1].score), ("\u{2581}a", -1.5));
        assert_eq!(model.pieces[0].kind, PieceKind::Unknown);

        let bpe = bytes(2, &[3 << 3, 2]);
        for (file, what) in [
            (vec![], "0 bytes"),
            (file[..file.len() - 1].to_vec(), "not all of one"),
            (file[..file.len() - end.len()].to_vec(), "do not say how it was trained"),
            (file[..file.len() - normalizer.len()].to_vec(), "how texts are normalised"),
            ([unknown.clone(), normalizer.clone()].concat(), "do not say how it was trained"),
            (b"version https://git-lfs".to_vec(), "none, or not all"),
            ([unknown.clone(), bpe, normalizer].concat(), "algorithm 2"),
            ([unknown.clone(), unknown.clone(), end.clone()].concat(), "2 pieces for the unknown"),
            ([piece("a", 0.0, 1), end].concat(), "0 pieces for the unknown"),
            ([unknown, piece("a", f32::NAN, 1)].concat(), "not all of one"),
        ] {
            let problem = read(&file).err().unwrap();
            assert!(problem.contains(what), "{problem}");
        }
    }
}
