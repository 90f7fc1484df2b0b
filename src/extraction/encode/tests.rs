use std::{
    iter,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use frostbert_cache::{
    plan::{Planner, ShardCutter},
    states::{Pooling, StateId},
    writer::CacheShape,
};

use super::*;
use crate::{
    config::{file::PipelineFile, settings::Pipeline},
    data::Record,
    encoder::{checkpoint::Checkpoint, device::Precision, fingerprint_inputs},
    extraction::{forecast::TOKENS_BEFORE_START, spool::Admission, tokenised::TokenisedShards},
};

/// Made-up texts, spooled for an extraction with the tokenizer of the tiny model.
struct SpooledTexts {
    folder: tempfile::TempDir,
    pipeline: Pipeline,
    checkpoint: Checkpoint,
    spool: Spool,
    /// The state that is extracted.
    wanted: [StateId; 1],
}

impl SpooledTexts {
    fn new(n_texts: usize, shard_tokens: usize) -> SpooledTexts {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny_bert");
        let text = format!(
            "[model]\npath = {model:?}\ndevice = \"cpu\"\n[data]\ntrain = {{ path = \"t.txt\", format = \"lines\" }}\n\
             [cache]\nmax_length = 16\nstore = [\"mean\"]\nshard_tokens = {shard_tokens}\n"
        );
        let file: PipelineFile = toml::from_str(&text).unwrap();
        let pipeline = Pipeline::check("test.toml".as_ref(), file).unwrap();
        let checkpoint = pipeline.extraction.checkpoint().unwrap();
        let records = (0..n_texts).map(|n| {
            Ok(Record { text: format!("text {n}{}", " more".repeat(n % 9)), ..Record::default() })
        });
        let folder = tempfile::tempdir().unwrap();
        let admission = Admission::new(&pipeline.extraction);
        let (spool, counts) = Spool::fill(folder.path(), records, admission, |_| None).unwrap();
        assert_eq!(counts.unique as usize, n_texts);
        let wanted = [StateId::pooled(Pooling::Mean, checkpoint.config.layers)];
        SpooledTexts { folder, pipeline, checkpoint, spool, wanted }
    }

    /// Returns the writer of an empty cache.
    fn writer(&self) -> CacheWriter {
        let settings = &self.pipeline.extraction;
        let inputs = fingerprint_inputs(
            &self.checkpoint,
            "cuda",
            Precision::F32,
            Dtype::F16,
            settings.max_length,
            settings.overflow,
        );
        let config = &self.checkpoint.config;
        let shape =
            CacheShape { model_layers: config.layers, hidden: config.hidden, dtype: Dtype::F16 };
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        CacheWriter::open(&folder, &inputs, shape, &()).unwrap()
    }

    fn cutter(&self, writer: &CacheWriter, limits: &PlanSettings) -> ShardCutter {
        let row_bytes = self.checkpoint.config.hidden * Dtype::F16.size_bytes();
        let planner = Planner::new(&self.wanted, writer.manifest(), writer.index(), row_bytes);
        let documents = self.spool.documents();
        planner.cutter(documents.len(), |number| documents[number].key, limits.clone())
    }

    /// Returns the seconds that it takes to tokenise all texts, and the number of their tokens.
    fn tokenise(&self, batch_tokens: usize) -> (f64, u64) {
        let settings = &self.pipeline.extraction;
        let limits = PlanSettings { shard_tokens: settings.shard_tokens, batch_tokens };
        let tokenizer = settings.tokenizer(&self.checkpoint).unwrap();
        let cutter = self.cutter(&self.writer(), &limits);
        let start = Instant::now();
        let shards =
            TokenisedShards::new(&self.spool, &tokenizer, &settings.sources, false, cutter);
        let tokens = shards.map(|shard| shard.unwrap().planned.tokens).sum();
        (start.elapsed().as_secs_f64(), tokens)
    }

    /// Encodes all texts, of which so many tokens are tokenised before. `watch` is called after each shard with the
    /// number of texts that are in no shard yet. Returns the seconds that it takes, and what was encoded.
    fn extract(
        &self,
        encoder: &mut Encoder,
        batch_tokens: usize,
        tokens_before: u64,
        mut watch: impl FnMut(usize) + Send,
    ) -> (f64, EncodingTotals) {
        let settings = &self.pipeline.extraction;
        let limits = PlanSettings { shard_tokens: settings.shard_tokens, batch_tokens };
        let tokenizer = settings.tokenizer(&self.checkpoint).unwrap();
        let mut writer = self.writer();
        let cutter = self.cutter(&writer, &limits);
        let job = ExtractionJob {
            settings: limits,
            spool: &self.spool,
            sources: &settings.sources,
            hidden: self.checkpoint.config.hidden,
            dtype: Dtype::F16,
        };
        let computer =
            ComputedBy { device: "stub".into(), placement: None, onnxruntime: "none".into() };
        let start = Instant::now();
        let mut shards =
            TokenisedShards::new(&self.spool, &tokenizer, &settings.sources, false, cutter);
        shards.tokenise_ahead(tokens_before).unwrap();
        let watched = iter::from_fn(|| {
            let shard = shards.next();
            watch(shards.remaining().map(|(_, n_texts)| n_texts).sum());
            shard
        });
        let totals = job.run(watched, encoder, &mut writer, &computer, &()).unwrap();
        let seconds = start.elapsed().as_secs_f64();
        assert_eq!(writer.manifest().documents as usize, self.spool.documents().len());
        assert_eq!(writer.manifest().tokens, totals.tokens);
        (seconds, totals)
    }

    fn stub(&self, work: impl FnMut(&TokenBatch) -> Result<()> + Send + 'static) -> Encoder {
        let config = &self.checkpoint.config;
        Encoder::stub(config.layers, config.hidden, work)
    }
}

#[test]
fn while_a_batch_is_encoded_the_next_shards_are_tokenised_but_not_all() {
    // A shard of these takes about as many texts as are tokenised at a time.
    let texts = SpooledTexts::new(16_000, 20_000);
    let (sender, made) = mpsc::channel::<usize>();
    let (report, held) = mpsc::channel::<Vec<usize>>();
    let mut is_first = true;
    let mut encoder = texts.stub(move |_| {
        if std::mem::take(&mut is_first) {
            // The shard of this batch, those that wait, and one for which there is no room. That is all that can come:
            // a shard has more batches than can wait.
            let left: Vec<usize> = (0..SHARDS_AHEAD + 2)
                .map_while(|_| made.recv_timeout(Duration::from_secs(60)).ok())
                .collect();
            report.send(left).unwrap();
        }
        Ok(())
    });
    let (_, totals) = texts.extract(&mut encoder, 1_000, 0, move |left| {
        // The encoder no longer listens after its first batch, but its end of the channel stays.
        sender.send(left).unwrap();
    });
    assert!(totals.tokens > 140_000, "{}", totals.tokens);
    let left = held.recv().unwrap();
    assert_eq!(left.len(), SHARDS_AHEAD + 2, "the tokenizer waited for the encoder: {left:?}");
    assert!(left[0] > left[SHARDS_AHEAD + 1], "{left:?}");
    assert!(left[SHARDS_AHEAD + 1] > 0, "the encoder waited for all of the texts: {left:?}");
}

#[test]
fn the_tokens_of_a_shard_that_is_not_full_count_as_tokenised_ahead_but_a_shard_must_be_full() {
    // A chunk of these is half of them, and has 29,000 tokens.
    for (shard_tokens, n_tokens, n_ready) in [(20_000, 25_000, 1), (40_000, 1, 2)] {
        let texts = SpooledTexts::new(4_096, shard_tokens);
        let settings = &texts.pipeline.extraction;
        let limits = PlanSettings { shard_tokens, batch_tokens: 1_000 };
        let tokenizer = settings.tokenizer(&texts.checkpoint).unwrap();
        let cutter = texts.cutter(&texts.writer(), &limits);
        let mut shards =
            TokenisedShards::new(&texts.spool, &tokenizer, &settings.sources, false, cutter);
        shards.tokenise_ahead(n_tokens).unwrap();
        assert_eq!(shards.ahead().count(), n_ready, "{shard_tokens}");
        assert_eq!(shards.is_complete(), n_ready == 2, "{shard_tokens}");
    }
}

/// Measures what `scripts/bench-overlap` prints.
#[test]
#[ignore = "a measurement of three minutes, for scripts/bench-overlap"]
fn tokenising_and_encoding_together_are_measured_beside_each_alone() {
    const BATCH_TOKENS: usize = 32_768;
    const ROUNDS: usize = 3;
    let texts = SpooledTexts::new(600_000, 131_072);
    let (mut alone, tokens) = texts.tokenise(BATCH_TOKENS);
    let encodings = [0.5, 1.0, 2.0].map(|speed| alone / speed);
    let mut measured = encodings.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        alone = alone.min(texts.tokenise(BATCH_TOKENS).0);
        for (encoding, measured) in encodings.iter().zip(&mut measured) {
            let per_token = encoding / tokens as f64;
            let (sender, late) = mpsc::channel();
            let mut encoder = texts.stub(move |batch| {
                let wanted = Duration::from_secs_f64(per_token * batch.tokens() as f64);
                let start = Instant::now();
                thread::sleep(wanted);
                sender.send(start.elapsed().saturating_sub(wanted)).unwrap();
                Ok(())
            });
            let (together, totals) =
                texts.extract(&mut encoder, BATCH_TOKENS, TOKENS_BEFORE_START, |_| {});
            assert_eq!(totals.tokens, tokens);
            drop(encoder);
            let late: Duration = late.iter().sum();
            measured.push((together, late.as_secs_f64(), totals.busy));
        }
    }
    println!(
        "| encoding | tokenising | together | of the longer | of their sum | late | at work |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---|");
    for (encoding, measured) in encodings.iter().zip(measured) {
        let fastest = measured.into_iter().min_by(|one, other| one.0.total_cmp(&other.0));
        let (together, late, busy) = fastest.expect("there are rounds");
        let busy: Vec<String> =
            busy.iter().map(|(part, share)| format!("{part} {share:.2}")).collect();
        println!(
            "| {encoding:.2} s | {alone:.2} s | {together:.2} s | **{:.3}** | {:.3} | {late:.2} s | {} |",
            together / alone.max(*encoding),
            together / (alone + encoding),
            busy.join(", ")
        );
    }
}
