//! The examples at the end of each command's help. A test runs every one of them in a folder like a checkout.

pub(super) const PROGRAM: &str = "\
Examples:
  frostbert run pipelines/sentiment.toml
  frostbert run pipelines/sentiment.toml --set train.lr=3e-3 --set head.pooling=cls
  frostbert predict runs/sentiment --text \"I would buy it again.\"
  frostbert evaluate runs/sentiment --data data/held_out.csv
  frostbert run --locked runs/sentiment/001/lock.json";

pub(super) const RUN: &str = "\
Examples:
  frostbert run pipelines/sentiment.toml --dry-run
  frostbert run pipelines/sentiment.toml --set head.kind=lda";

pub(super) const EXTRACT: &str = "\
Examples:
  frostbert extract pipelines/sweep.toml
  frostbert extract pipelines/embed.toml --set cache.max_length=64
  frostbert extract pipelines/embed.toml --out shared/lines --part 1/2";

pub(super) const PLAN: &str = "\
Examples:
  frostbert plan pipelines/embed.toml --out shared/lines
  frostbert plan pipelines/sentiment.toml --out shared/reviews --shards 4 --json";

pub(super) const WORK: &str = "\
Examples:
  frostbert work shared/lines 0
  frostbert work shared/reviews 0 --model models/minilm --threads 2";

pub(super) const COMMIT: &str = "\
Examples:
  frostbert commit shared/lines
  frostbert commit shared/reviews --json";

pub(super) const VACUUM: &str = "\
Examples:
  frostbert vacuum shared/lines
  frostbert vacuum shared/reviews --older-than 12h";

pub(super) const TRAIN: &str = "\
Examples:
  frostbert train pipelines/sentiment.toml
  frostbert train pipelines/sentiment.toml --set head.kind=logistic";

pub(super) const SWEEP: &str = "\
Examples:
  frostbert sweep pipelines/sweep.toml --dry-run
  frostbert sweep pipelines/sweep.toml --set 'sweep.kind=[\"ridge\", \"lda\"]'";

pub(super) const SWEEP_PAIRS: &str = "\
Examples:
  frostbert sweep pairs sweep
  frostbert sweep pairs runs/sweep/001 --best 5 --json";

pub(super) const EVALUATE: &str = "\
Examples:
  frostbert evaluate runs/sentiment --data data/held_out.csv
  frostbert evaluate runs/sentiment/001 --data data/held_out.csv --json";

pub(super) const REPORT: &str = "\
Examples:
  frostbert report runs/sentiment
  frostbert report runs/sentiment/001 runs/sentiment/002 --out compared.html --no-texts";

pub(super) const RUNS_LS: &str = "\
Examples:
  frostbert runs ls
  frostbert runs ls sentiment --sort accuracy";

pub(super) const RUNS_SHOW: &str = "\
Examples:
  frostbert runs show sentiment
  frostbert runs show runs/sentiment/001 --json";

pub(super) const RUNS_DIFF: &str = "\
Examples:
  frostbert runs diff sentiment/001 sentiment/002
  frostbert runs diff runs/sentiment/001 sentiment --limit 3";

pub(super) const RUNS_TAG: &str = "\
Examples:
  frostbert runs tag runs/sentiment production
  frostbert runs tag --remove production";

pub(super) const RUNS_RM: &str = "\
Examples:
  frostbert runs rm runs/sentiment/001 --yes
  frostbert runs rm sentiment/002 sentiment/003 --yes";

pub(super) const RUNS_PRUNE: &str = "\
Examples:
  frostbert runs prune --keep 5 --dry-run
  frostbert runs prune sentiment --keep 20 --older-than 30d --yes";

pub(super) const SIMILAR: &str = "\
Examples:
  frostbert similar pipelines/embed.toml --text \"A man plays the guitar.\" --text \"Music is played.\"
  frostbert similar pipelines/embed.toml --query \"music on a warm evening\" --top 3";

pub(super) const PRECISION_REPORT: &str = "\
Examples:
  frostbert precision-report pipelines/topics.toml
  frostbert precision-report pipelines/topics.toml --documents 32 --json";

pub(super) const DOCTOR: &str = "\
Examples:
  frostbert doctor
  frostbert doctor pipelines/sentiment.toml --set model.device=cpu";

pub(super) const TOKENIZE: &str = "\
Examples:
  frostbert tokenize --text \"Unbelievable!\"
  frostbert tokenize --model models/minilm --text \"An unaffordable flat\" --json";

pub(super) const COMPLETIONS: &str = "\
Examples:
  frostbert completions bash > frostbert.bash
  frostbert completions zsh > _frostbert";

pub(super) const MAN: &str = "\
Examples:
  frostbert man > frostbert.1
  frostbert man --out man/man1";

pub(super) const CACHE_LS: &str = "\
Examples:
  frostbert cache ls
  frostbert cache ls cache --json";

pub(super) const CACHE_INFO: &str = "\
Examples:
  frostbert cache info cache/397e9e01919ffd5e
  frostbert cache info cache/397e9e01919ffd5e --json";

pub(super) const CACHE_VERIFY: &str = "\
Examples:
  frostbert cache verify cache
  frostbert cache verify cache/397e9e01919ffd5e --repair";

pub(super) const CACHE_DIFF: &str = "\
Examples:
  frostbert cache diff cache/397e9e01919ffd5e cache/4542ca5da5cd99bc
  frostbert cache diff cache/397e9e01919ffd5e cache/4542ca5da5cd99bc --json";

pub(super) const CACHE_GC: &str = "\
Examples:
  frostbert cache gc cache
  frostbert cache gc cache --pipeline pipelines/sentiment.toml --pipeline pipelines/sweep.toml --yes";

pub(super) const CACHE_PRUNE: &str = "\
Examples:
  frostbert cache prune --older-than 30d --dry-run
  frostbert cache prune --max-size 20GB";

pub(super) const CACHE_PULL: &str = "\
Examples:
  frostbert cache pull shared/lines pulled
  frostbert cache pull shared/reviews pulled-reviews --max-size 20GB";

pub(super) const MODEL_INFO: &str = "\
Examples:
  frostbert model info models/minilm
  frostbert model info models/minilm --classes 77";

#[cfg(feature = "hub")]
pub(super) const MODEL_PULL: &str = "\
Examples:
  frostbert model pull hf:google-bert/bert-base-uncased
  frostbert model pull hf:sentence-transformers/all-mpnet-base-v2 --to models/mpnet";

pub(super) const MODEL_VERIFY: &str = "\
Examples:
  frostbert model verify models/minilm
  frostbert model verify models/minilm --json";
