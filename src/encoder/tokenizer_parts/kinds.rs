//! The kinds of tokenizers that can be built, as data.

use super::{settings::SpecialTokens, vocabulary::PieceOrder};

/// A kind of tokenizer.
pub(super) struct TokenizerKind {
    /// The names of its class, without `Fast`.
    pub(super) classes: &'static [&'static str],
    /// The `model_type` of the models that have it unless they name another class.
    pub(super) model_types: &'static [&'static str],
    /// What it is built from; the first is the vocabulary.
    pub(super) files: &'static [&'static str],
    pub(super) algorithm: Algorithm,
    pub(super) special: SpecialTokens,
    pub(super) frame: Frame,
    /// Whether texts are converted to lower case if no file says so; `None` if they never are.
    pub(super) lower_cases: Option<bool>,
}

/// How a word becomes pieces, and a text words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    WordPiece,
    ByteLevel,
    SentencePiece(PieceOrder, SentenceRules),
}

/// How a text is prepared for the pieces of a SentencePiece model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SentenceRules {
    /// XLM-RoBERTa's: replaced by the model's own table, then split at white space.
    Table,
    /// ALBERT's: quotes made alike, accents and case removed first.
    Albert,
    /// DeBERTa's: stripped, the table, and spaces joined.
    Deberta,
}

/// The special tokens around a text and a pair of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// `[CLS] A [SEP]`, and `B [SEP]` of type 1.
    Typed,
    /// `<s> A </s>`, and `</s> B </s>`, all of type 0.
    Doubled,
    /// The same, by the part of tokenizer.json that also leaves white space out of the places of tokens.
    Roberta,
}

const BERT_TOKENS: SpecialTokens = SpecialTokens {
    texts: &[
        ("unk_token", "[UNK]"),
        ("sep_token", "[SEP]"),
        ("pad_token", "[PAD]"),
        ("cls_token", "[CLS]"),
        ("mask_token", "[MASK]"),
    ],
    mask_takes_space: false,
};

const ROBERTA_TOKENS: SpecialTokens = SpecialTokens {
    texts: &[
        ("bos_token", "<s>"),
        ("eos_token", "</s>"),
        ("unk_token", "<unk>"),
        ("sep_token", "</s>"),
        ("pad_token", "<pad>"),
        ("cls_token", "<s>"),
        ("mask_token", "<mask>"),
    ],
    mask_takes_space: false,
};

/// All kinds that can be built.
pub(super) static KINDS: [TokenizerKind; 7] = [
    TokenizerKind {
        classes: &[
            "BertTokenizer",
            "DistilBertTokenizer",
            "ElectraTokenizer",
            "MobileBertTokenizer",
            "SqueezeBertTokenizer",
        ],
        model_types: &[
            "bert",
            "distilbert",
            "electra",
            "mobilebert",
            "squeezebert",
            "megatron-bert",
            "nomic_bert",
        ],
        files: &["vocab.txt"],
        algorithm: Algorithm::WordPiece,
        special: BERT_TOKENS,
        frame: Frame::Typed,
        lower_cases: Some(true),
    },
    TokenizerKind {
        classes: &["MPNetTokenizer"],
        model_types: &["mpnet"],
        files: &["vocab.txt"],
        algorithm: Algorithm::WordPiece,
        special: SpecialTokens {
            texts: &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("unk_token", "[UNK]"),
                ("sep_token", "</s>"),
                ("pad_token", "<pad>"),
                ("cls_token", "<s>"),
                ("mask_token", "<mask>"),
            ],
            mask_takes_space: true,
        },
        frame: Frame::Roberta,
        lower_cases: Some(true),
    },
    TokenizerKind {
        classes: &["RobertaTokenizer"],
        model_types: &["roberta"],
        files: &["vocab.json", "merges.txt"],
        algorithm: Algorithm::ByteLevel,
        special: ROBERTA_TOKENS,
        frame: Frame::Roberta,
        lower_cases: None,
    },
    TokenizerKind {
        classes: &["XLMRobertaTokenizer"],
        model_types: &["xlm-roberta"],
        files: &["sentencepiece.bpe.model"],
        algorithm: Algorithm::SentencePiece(PieceOrder::XlmRoberta, SentenceRules::Table),
        special: ROBERTA_TOKENS,
        frame: Frame::Doubled,
        lower_cases: None,
    },
    TokenizerKind {
        classes: &["CamembertTokenizer"],
        model_types: &["camembert"],
        files: &["sentencepiece.bpe.model"],
        algorithm: Algorithm::SentencePiece(PieceOrder::Camembert, SentenceRules::Table),
        special: SpecialTokens { mask_takes_space: true, ..ROBERTA_TOKENS },
        frame: Frame::Doubled,
        lower_cases: None,
    },
    TokenizerKind {
        classes: &["DebertaV2Tokenizer"],
        model_types: &["deberta-v2"],
        files: &["spm.model"],
        algorithm: Algorithm::SentencePiece(PieceOrder::OfModel, SentenceRules::Deberta),
        special: SpecialTokens {
            texts: &[
                ("bos_token", "[CLS]"),
                ("eos_token", "[SEP]"),
                ("unk_token", "[UNK]"),
                ("sep_token", "[SEP]"),
                ("pad_token", "[PAD]"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
            mask_takes_space: false,
        },
        frame: Frame::Typed,
        lower_cases: Some(false),
    },
    TokenizerKind {
        classes: &["AlbertTokenizer"],
        model_types: &["albert"],
        files: &["spiece.model"],
        algorithm: Algorithm::SentencePiece(PieceOrder::OfModel, SentenceRules::Albert),
        special: SpecialTokens {
            texts: &[
                ("bos_token", "[CLS]"),
                ("eos_token", "[SEP]"),
                ("unk_token", "<unk>"),
                ("sep_token", "[SEP]"),
                ("pad_token", "<pad>"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
            mask_takes_space: false,
        },
        frame: Frame::Typed,
        lower_cases: Some(true),
    },
];
