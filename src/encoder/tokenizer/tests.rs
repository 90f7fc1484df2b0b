use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Opens a byte-pair tokenizer of single characters without an unknown token.
fn open(characters: &[&str]) -> Result<TextTokenizer> {
    let special = |id: usize, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    };
    let mut vocabulary = json!({ "[CLS]": 0, "[SEP]": 1 });
    for (id, character) in characters.iter().enumerate() {
        vocabulary[character] = json!(id + 2);
    }
    let json = json!({
        "version": "1.0",
        "added_tokens": [special(0, "[CLS]"), special(1, "[SEP]")],
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 1], "cls": ["[CLS]", 0] },
        "model": { "type": "BPE", "vocab": vocabulary, "merges": [] },
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    TextTokenizer::open(&path, 16, Overflow::Truncate)
}

#[test]
fn a_vocabulary_without_the_letter_that_is_tried_first_is_tried_with_others() {
    let tokenizer = open(&["0", "x"]).unwrap();
    let encodings = tokenizer.encode(&[Document::Text("x0 x"), Document::Pair("x", "0")], true);
    let ids: Vec<Vec<u32>> =
        encodings.unwrap().iter().map(|encoding| encoding.windows[0].ids.clone()).collect();
    assert_eq!(ids, [vec![0, 3, 2, 3, 1], vec![0, 3, 1, 2, 1]]);
}

/// The number of windows of a document, or why it is refused.
fn n_windows(tokenizer: &TextTokenizer, input: Document<'_>) -> Result<usize, String> {
    let encoded = tokenizer.encode(&[input], false);
    encoded.map(|encodings| encodings[0].windows.len()).map_err(|error| error.to_string())
}

fn with_prompt(text: &str) -> Document<'_> {
    Document::Prompted { prompt: "the film ", text }
}

#[test]
fn a_document_with_more_windows_than_are_allowed_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny_bert");
    let all = Overflow::Windows { stride: 1 };
    let tokenizer = TextTokenizer::open(&folder.join("tokenizer.json"), 8, all).unwrap();
    let tokenizer = tokenizer.with_most_windows(3);
    let text = |n: usize| "cold ".repeat(n);
    let words = |n: usize| vec!["cold".to_string(); n];
    assert_eq!(n_windows(&tokenizer, Document::Text(&text(16))), Ok(3), "6 tokens, and twice 5");
    assert_eq!(n_windows(&tokenizer, Document::Words(&words(16))), Ok(3));
    assert_eq!(
        n_windows(&tokenizer, Document::Pair("snow", &text(10))),
        Ok(3),
        "4 tokens, and twice 3"
    );
    assert_eq!(n_windows(&tokenizer, with_prompt(&text(10))), Ok(3), "4 tokens, and twice 3");
    for more in [1, 5000] {
        for refused in [
            n_windows(&tokenizer, Document::Text(&text(16 + more))),
            n_windows(&tokenizer, Document::Words(&words(16 + more))),
            n_windows(&tokenizer, Document::Pair("snow", &text(10 + more))),
            n_windows(&tokenizer, with_prompt(&text(10 + more))),
        ] {
            let error = refused.unwrap_err();
            assert!(error.contains("takes more than 3 windows"), "{error}");
        }
    }
    // Of a long first text of a pair only the beginning is kept.
    assert_eq!(n_windows(&tokenizer, Document::Pair(&text(5000), "snow")), Ok(1));
}

#[test]
fn a_tokenizer_that_spells_none_of_them_is_refused() {
    let error = open(&["x"]).err().unwrap();
    assert!(error.to_string().contains("expected a tokenizer.json that makes tokens"), "{error}");
}

/// Returns a tokenizer.json of the fixtures with some of its parts replaced.
fn fixture(name: &str, parts: &[(&str, Value)]) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let bytes = std::fs::read(folder.join(name).join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_slice(&bytes).unwrap();
    for (part, value) in parts {
        json[part] = value.clone();
    }
    json
}

fn made(json: &Value, max_length: usize, overflow: Overflow) -> Result<TextTokenizer> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    TextTokenizer::open(&path, max_length, overflow)
}

/// Returns tokenizers of every kind (words, bytes, SentencePiece), with various steps between a text and its words.
fn kinds() -> Vec<Value> {
    // An empty map: 256 units of nothing.
    let size = 1024u32.to_le_bytes();
    let map: Vec<u8> = size.into_iter().chain([0; 1024]).collect();
    let precompiled = json!({ "type": "Precompiled", "precompiled_charsmap": base64(&map) });
    let replace = |pattern: Value, content: &str| json!({ "type": "Replace", "pattern": pattern, "content": content });
    let sentence_piece = json!({ "type": "Sequence", "normalizers": [
        replace(json!({ "String": "``" }), "\""), precompiled,
        { "type": "Strip", "strip_left": true, "strip_right": true },
        replace(json!({ "Regex": " {2,}" }), " "),
    ] });
    let metaspace = json!({ "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": true });
    let split =
        json!({ "type": "Sequence", "pretokenizers": [{ "type": "WhitespaceSplit" }, metaspace] });
    let bytes = json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Digits", "individual_digits": true },
        { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
    ] });
    let token = |content: &str, id: usize| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": true, "rstrip": true,
                "normalized": false, "special": true })
    };
    let strips = json!([
        token("<s>", 0),
        token("<pad>", 1),
        token("</s>", 2),
        token("<unk>", 3),
        token("co mask>", 57)
    ]);
    vec![
        fixture("tiny_bert", &[]),
        fixture("tiny_bert", &[("pre_tokenizer", json!({ "type": "Whitespace" }))]),
        fixture("families/roberta", &[]),
        fixture(
            "families/roberta",
            &[("pre_tokenizer", bytes), ("normalizer", json!({ "type": "NFC" }))],
        ),
        fixture("families/camembert_bf16", &[]),
        fixture(
            "families/xlm_roberta_f16",
            &[("pre_tokenizer", split), ("normalizer", sentence_piece.clone())],
        ),
        fixture(
            "families/xlm_roberta_f16",
            &[("normalizer", sentence_piece), ("added_tokens", strips)],
        ),
    ]
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let of_three = |three: &[u8]| {
        let bits =
            (0..3).fold(0u32, |bits, place| bits << 8 | u32::from(*three.get(place).unwrap_or(&0)));
        let digit = |place: usize| char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63]);
        let digits: String = (0..=three.len()).map(digit).collect();
        format!("{digits:=<4}")
    };
    bytes.chunks(3).map(of_three).collect()
}

/// Generates a text from these pieces, each repeated.
fn text() -> impl Strategy<Value = String> {
    const PIECES: [&str; 30] = [
        "the",
        " ",
        " ",
        " cold",
        "snow",
        " film",
        "un",
        "\n",
        "\r\n",
        "\t",
        "7",
        ",",
        "``",
        "'s",
        "[MASK]",
        "<mask>",
        "co mask>",
        "日",
        "本語",
        "é",
        "e\u{301}",
        "\u{301}",
        "\u{200b}",
        "\u{ad}",
        "\u{1}",
        "👩\u{200d}👩\u{200d}👧",
        "\u{600}",
        "\u{d4e}",
        "Ж",
        "\u{3000}",
    ];
    let piece = (0..PIECES.len(), prop_oneof![6 => 1usize..3, 1 => 50usize..200]);
    let one = move |(piece, times): (usize, usize)| PIECES[piece].repeat(times);
    let pieces = proptest::collection::vec(piece.prop_map(one), 0..300);
    // Many texts have long plain stretches.
    (pieces, any::<bool>(), 0usize..400).prop_map(|(mut pieces, plain, at)| {
        if plain {
            pieces.insert(at.min(pieces.len()), " the cold snow, 7 film".repeat(60));
        }
        pieces.concat()
    })
}

/// Tokenises an input twice: normally, and with the tokenizer reading all of it.
fn both(
    tokenizer: &mut TextTokenizer,
    input: Document<'_>,
    aligned: bool,
) -> [Result<Vec<Encoding>>; 2] {
    let cut = tokenizer.encode(&[input], aligned);
    let prefixes = tokenizer.prefixes.take();
    let whole = tokenizer.encode(&[input], aligned);
    tokenizer.prefixes = prefixes;
    [cut, whole]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_beginning_of_a_text_gives_what_the_whole_text_gives(
        first in text(), second in text(), kind in 0usize..7, max_length in 5usize..40, aligned: bool,
    ) {
        let mut tokenizer = made(&kinds()[kind], max_length, Overflow::Truncate).unwrap();
        prop_assert!(tokenizer.prefixes.is_some());
        for input in [Document::Text(&first), Document::Pair(&first, &second), Document::Pair(&second, &first)] {
            let [cut, whole] = both(&mut tokenizer, input, aligned).map(Result::unwrap);
            prop_assert_eq!(cut, whole, "{} {:?}", kind, input);
        }
    }

    #[test]
    fn the_first_of_given_words_give_what_all_of_them_give(
        words in proptest::collection::vec(prop_oneof!["", "\u{200b}", "[a-z]{1,3}", "cold"], 0..300),
        kind in 0usize..7, max_length in 5usize..40, aligned: bool,
    ) {
        let tokenizer = made(&kinds()[kind], max_length, Overflow::Truncate).unwrap();
        let cut = tokenizer.encode(&[Document::Words(&words)], aligned).unwrap();
        let all = tokenizer.first_words(&words, aligned, None).unwrap();
        let whole = super::cut(&all, None, &tokenizer.template, max_length, Overflow::Truncate);
        prop_assert_eq!(&cut[0], &whole);
    }
}

#[test]
fn of_a_long_text_the_beginning_is_read_whatever_the_kind_of_tokenizer() {
    let text = "the cold snow ".repeat(2000);
    for json in kinds() {
        let tokenizer = made(&json, 16, Overflow::Truncate).unwrap();
        let (tokens, all) = tokenizer.first_tokens(&text, true, Some(15)).unwrap();
        assert!(!all && tokens.ids.len() < 1000, "{}", tokens.ids.len());
        let encoding = &tokenizer.encode(&[Document::Text(&text)], false).unwrap()[0];
        assert!(encoding.truncated);
        assert_eq!(encoding.windows[0].ids.len(), 16);
        let windows = made(&json, 16, Overflow::Windows { stride: 0 }).unwrap();
        assert_eq!(windows.wanted(&windows.template.single), None);
    }
}

#[test]
fn a_text_whose_rest_makes_no_token_is_not_called_truncated() {
    let tokenizer = made(&fixture("tiny_bert", &[]), 8, Overflow::Truncate).unwrap();
    for (text, truncated) in [
        (format!("the cold snow{}", " \u{200b}\n".repeat(5000)), false),
        (format!("the cold snow{}film", " \u{200b}\n".repeat(5000)), false),
        (format!("the cold snow film the cold{}", " ".repeat(50_000)), false),
        (format!("the cold snow film the cold{}snow", " ".repeat(50_000)), true),
        ("日".repeat(10_000), true),
        ("x".repeat(10_000), false),
    ] {
        for aligned in [false, true] {
            let encoding = &tokenizer.encode(&[Document::Text(&text)], aligned).unwrap()[0];
            assert_eq!(encoding.truncated, truncated, "{}", shorten(&text, 40));
        }
    }
}

#[test]
fn what_makes_the_tokenizers_library_panic_is_an_error_that_names_the_file() {
    let no_special = json!({ "type": "TemplateProcessing", "single": [{ "SpecialToken": { "id": "[CLS]", "type_id": 0 } },
        { "Sequence": { "id": "A", "type_id": 0 } }], "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }], "special_tokens": {} });
    let mut missing_merge = fixture("tiny_bert", &[]);
    missing_merge["model"]["type"] = json!("BPE");
    missing_merge["model"]["merges"] = json!(["q q"]);
    for json in [
        fixture("tiny_bert", &[("post_processor", no_special)]),
        fixture("tiny_bert", &[("pre_tokenizer", json!({ "type": "FixedLength", "length": 0 }))]),
        fixture(
            "tiny_bert",
            &[("normalizer", json!({ "type": "Precompiled", "precompiled_charsmap": "AAAAAAAA" }))],
        ),
        missing_merge,
    ] {
        let error = made(&json, 16, Overflow::Truncate).err().unwrap();
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_text_at_which_the_library_fails_is_named() {
    // Without `[UNK]`, a word that the vocabulary cannot spell is an error.
    let mut json = fixture("tiny_bert", &[]);
    json["model"]["unk_token"] = json!("[NONE]");
    let tokenizer = made(&json, 16, Overflow::Truncate).unwrap();
    let error = tokenizer.encode(&[Document::Text("the 日本 \u{7}")], true).unwrap_err();
    assert!(error.to_string().contains("fails at `the 日本"), "{error}");
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
}

#[test]
fn a_token_type_that_no_model_has_is_refused() {
    let mut json = fixture("tiny_bert", &[]);
    json["post_processor"]["single"][0]["SpecialToken"]["type_id"] = json!(300);
    let error = made(&json, 16, Overflow::Truncate).err().unwrap();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
}
