//! The kinds of tokenizers that can be built, as data.

use super::settings::SpecialTokens;

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
}

/// The special tokens around a text and a pair of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// `[CLS] A [SEP]`, and `B [SEP]` of type 1.
    Typed,
    /// `<s> A </s>`, and `</s> B </s>`, all of type 0.
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
pub(super) static KINDS: [TokenizerKind; 3] = [
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
];
