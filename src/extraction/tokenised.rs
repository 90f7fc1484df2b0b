//! Tokenises the documents of an extraction in the order in which they are planned, and cuts them into shards: while
//! one shard is encoded, the next ones are tokenised.

use std::{collections::VecDeque, sync::Arc};

use frostbert_cache::plan::{CutShard, PlanDocument, PlanGroup, PlannedShard, ShardCutter};
use rayon::prelude::*;

use crate::{
    data::Source,
    encoder::{tokenizer::TextTokenizer, windows::Encoding},
    error::{Error, Result},
    extraction::spool::{Spool, SpooledTexts},
};

/// Number of documents that are tokenised at a time.
const CHUNK_DOCUMENTS: usize = 2048;

/// Number of bytes of text that are tokenised at a time.
const CHUNK_BYTES: u64 = 1 << 20;

/// A shard whose documents are tokenised.
pub(crate) struct TokenisedShard {
    pub(crate) planned: PlannedShard,
    /// The numbers of its documents in the spool.
    pub(crate) members: Vec<u32>,
    /// Their encodings; several commits to one shard share them.
    pub(crate) encodings: Arc<Vec<Encoding>>,
}

/// The shards of an extraction, in order. Each is made when it is asked for. If a document fails, the error comes last,
/// after the shards that were cut before it.
pub(crate) struct TokenisedShards<'a> {
    spool: &'a Spool,
    tokenizer: &'a TextTokenizer,
    /// The data files, for messages.
    sources: &'a [Source],
    /// Whether tokens or words are stored, so that their positions are needed.
    aligned: bool,
    cutter: ShardCutter,
    /// The encodings of documents that are not in a shard yet.
    open: VecDeque<Encoding>,
    /// Shards that were not asked for yet.
    ready: VecDeque<TokenisedShard>,
    has_failed: bool,
    /// What failed, until the shards that were cut before it are asked for.
    failure: Option<Error>,
    /// Number of documents so far whose end is cut off.
    pub(crate) truncated: u64,
}

impl<'a> TokenisedShards<'a> {
    pub(crate) fn new(
        spool: &'a Spool,
        tokenizer: &'a TextTokenizer,
        sources: &'a [Source],
        aligned: bool,
        cutter: ShardCutter,
    ) -> TokenisedShards<'a> {
        TokenisedShards {
            spool,
            tokenizer,
            sources,
            aligned,
            cutter,
            open: VecDeque::new(),
            ready: VecDeque::new(),
            has_failed: false,
            failure: None,
            truncated: 0,
        }
    }

    /// Tokenises until a shard is ready and, with the shard that is not full yet, so many tokens are ahead of what was
    /// asked for; or until all documents are tokenised.
    ///
    /// # Errors
    /// Returns an error if the tokenizer fails or makes no token of a document.
    pub(crate) fn tokenise_ahead(&mut self, n_tokens: u64) -> Result<()> {
        while self.ready.is_empty() || self.tokens_ahead() < n_tokens {
            if !self.tokenise_chunk()? {
                break;
            }
        }
        Ok(())
    }

    fn tokens_ahead(&self) -> u64 {
        let ready = self.ready.iter().map(|shard| shard.planned.tokens);
        let open = self.open.iter().map(|encoding| encoding.n_tokens() as u64);
        ready.chain(open).sum()
    }

    /// Returns the shards that are ready and were not asked for yet.
    pub(crate) fn ahead(&self) -> impl Iterator<Item = &TokenisedShard> {
        self.ready.iter()
    }

    /// Returns the groups of documents that are not in a shard yet, with their numbers.
    pub(crate) fn remaining(&self) -> impl Iterator<Item = (&PlanGroup, usize)> {
        self.cutter.remaining()
    }

    /// Whether all documents are tokenised.
    pub(crate) fn is_complete(&self) -> bool {
        self.cutter.upcoming().is_empty()
    }

    /// Tokenises the next documents; returns whether there were any.
    fn tokenise_chunk(&mut self) -> Result<bool> {
        let spool = self.spool;
        let mut n_bytes = 0;
        let upcoming = self.cutter.upcoming().iter().take(CHUNK_DOCUMENTS);
        let documents: Vec<_> = upcoming
            .map(|number| spool.document(*number))
            .take_while(|document| {
                let is_taken = n_bytes < CHUNK_BYTES;
                n_bytes += document.n_bytes;
                is_taken
            })
            .collect();
        // In parallel, as they are tokenised: reads one after the other would leave all cores but one idle.
        let texts = documents.par_iter().map(|document| spool.read(document));
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let inputs: Vec<_> = texts.iter().map(SpooledTexts::document).collect();
        let encodings = self.tokenizer.encode(&inputs, self.aligned)?;
        for (document, encoding) in documents.iter().zip(encodings) {
            if encoding.has_empty_window() {
                return Err(document.without_tokens(self.sources));
            }
            self.truncated += u64::from(encoding.truncated);
            let size = PlanDocument {
                key: document.key,
                n_tokens: encoding.n_tokens() as u32,
                n_words: if self.aligned { encoding.words.len() as u32 } else { 0 },
            };
            self.open.push_back(encoding);
            for CutShard { shards, members } in self.cutter.push(size) {
                let encodings: Arc<Vec<Encoding>> =
                    Arc::new(self.open.drain(..members.len()).collect());
                self.ready.extend(shards.into_iter().map(|planned| TokenisedShard {
                    planned,
                    members: members.clone(),
                    encodings: Arc::clone(&encodings),
                }));
            }
        }
        Ok(!documents.is_empty())
    }
}

impl Iterator for TokenisedShards<'_> {
    type Item = Result<TokenisedShard>;

    fn next(&mut self) -> Option<Result<TokenisedShard>> {
        while self.ready.is_empty() {
            if self.has_failed {
                return self.failure.take().map(Err);
            }
            match self.tokenise_chunk() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.has_failed = true;
                    self.failure = Some(error);
                }
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use frostbert_cache::{
        fingerprint::Key,
        index::DocumentIndex,
        manifest::Manifest,
        plan::{PlanSettings, Planner},
        states::{Dtype, Pooling, StateId},
    };

    use super::*;
    use crate::{
        config::{file::PipelineFile, settings::Pipeline},
        data::{Record, document::Document},
        encoder::{checkpoint::Checkpoint, device::Precision, fingerprint_inputs},
        extraction::spool::Admission,
    };

    /// A pipeline over the tiny model; its data file is not read here.
    fn pipeline() -> (Pipeline, Checkpoint) {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny_bert");
        let text = format!(
            "[model]\npath = {model:?}\ndevice = \"cpu\"\n[data]\ntrain = {{ path = \"t.txt\", format = \"lines\" }}\n\
             [cache]\nmax_length = 16\nstore = [\"mean\"]\nshard_tokens = 500\n"
        );
        let file: PipelineFile = toml::from_str(&text).unwrap();
        let pipeline = Pipeline::check("test.toml".as_ref(), file).unwrap();
        let checkpoint = pipeline.extraction.checkpoint().unwrap();
        (pipeline, checkpoint)
    }

    #[test]
    fn the_first_shard_is_ready_before_the_last_text_is_tokenised_and_all_are_those_of_a_plan() {
        let (pipeline, checkpoint) = pipeline();
        let settings = &pipeline.extraction;
        let texts: Vec<String> = (0..2 * CHUNK_DOCUMENTS)
            .map(|n| format!("text {n}{}", " more".repeat(n % 9)))
            .collect();
        let record = |text: &String| Ok(Record { text: text.clone(), ..Record::default() });
        let folder = tempfile::tempdir().unwrap();
        let examples = texts.iter().map(record);
        let admission = Admission::new(settings);
        let (spool, counts) = Spool::fill(folder.path(), examples, admission, |_| None).unwrap();
        assert_eq!(counts.unique as usize, texts.len());

        let inputs = fingerprint_inputs(
            &checkpoint,
            "cpu",
            Precision::F32,
            Dtype::F16,
            settings.max_length,
            settings.overflow,
        );
        let manifest = Manifest::empty(&inputs, 2, 32, Dtype::F16);
        let (index, wanted) = (DocumentIndex::default(), [StateId::pooled(Pooling::Mean, 2)]);
        let planner = Planner::new(&wanted, &manifest, &index, 64);
        let limits = PlanSettings { shard_tokens: settings.shard_tokens, batch_tokens: 64 };
        let tokenizer = settings.tokenizer(&checkpoint).unwrap();

        // What is planned of documents that were all tokenised before.
        let mut whole: Vec<(Key, Encoding)> = texts
            .iter()
            .map(|text| {
                let document = Document::Text(text);
                (document.key(), tokenizer.encode(&[document], false).unwrap().remove(0))
            })
            .collect();
        whole.sort_by_key(|(key, _)| *key);
        let size = |number: usize| PlanDocument {
            key: whole[number].0,
            n_tokens: whole[number].1.n_tokens() as u32,
            n_words: 0,
        };
        let expected = planner.plan(whole.len(), size, limits.clone());
        assert!(expected.shards.len() > 20);

        let cutter = || planner.cutter(whole.len(), |number| whole[number].0, limits.clone());
        let sources = &settings.sources;
        let mut shards = TokenisedShards::new(&spool, &tokenizer, sources, false, cutter());
        let first = shards.next().unwrap().unwrap();
        assert!(!shards.is_complete(), "half of the texts are still to be tokenised");
        let left: usize = shards.remaining().map(|(_, n)| n).sum();
        let ready: usize = shards.ahead().map(|shard| shard.members.len()).sum();
        assert_eq!(first.members.len() + ready + left, texts.len());
        let all: Vec<TokenisedShard> =
            std::iter::once(Ok(first)).chain(&mut shards).map(Result::unwrap).collect();
        assert!(shards.is_complete());
        for (number, shard) in all.iter().enumerate() {
            assert_eq!(shard.planned, expected.shards[number]);
            assert_eq!(shard.members, expected.members[number]);
            let members = shard.members.iter().map(|document| &whole[*document as usize].1);
            assert!(members.eq(shard.encodings.iter()));
        }
        assert_eq!(all.len(), expected.shards.len());
        let n_truncated = whole.iter().filter(|(_, encoding)| encoding.truncated).count();
        assert_eq!(shards.truncated, n_truncated as u64);

        let mut failing = TokenisedShards::new(&spool, &tokenizer, sources, false, cutter());
        failing.tokenise_ahead(1).unwrap();
        let n_ready = failing.ahead().count();
        assert!(n_ready > 0);
        failing.has_failed = true;
        failing.failure = Some(Error::Encoder { action: "test", reason: "it fails".into() });
        let good: Vec<bool> = failing.map(|shard| shard.is_ok()).collect();
        assert_eq!(good, [vec![true; n_ready], vec![false]].concat());
    }
}
