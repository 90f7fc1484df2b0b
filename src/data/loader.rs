//! Loads labelled examples from files: every source is read, cleaned, labelled and split.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::HashMap,
};

use frostbert_cache::{
    fingerprint::{Key, Mode},
    wording::counted,
};

use crate::{
    data::{
        CleanCounts, CleanOptions, ColumnName, DataTask, LabelColumn, LabelMap, Part, Record,
        Source, SwallowedLines, Target, WantedFields,
        bad_rows::BadRows,
        checks::{DataChecks, FileChecks},
        clean,
        dataset::{Dataset, DatasetSettings, distribution_of, numbered},
        example::{Example, FileRecord, part_name},
        label_ids,
        odd_labels::{Unlabelled, label_warnings},
        open_file::OpenFile,
        open_source::OpenSource,
        read_open, require_texts,
        split_check::SplitCheck,
        split_plan,
        strata::split_rows,
        summary::{question_summaries, value_summaries},
        target::{TargetReader, require_contrast},
        vector_rows::VectorWidth,
    },
    error::{Error, Result},
};

/// Given validation and test files are never thinned out.
const KEEP_ALL: CleanOptions =
    CleanOptions { drop_empty: false, drop_duplicates: false, drop_unlabelled: false };

impl Dataset {
    /// Reads, cleans, labels and splits the examples.
    ///
    /// - Classification, multilabel: the labels are given, or those of train. Any other label is an error.
    /// - Regression: targets are finite numbers.
    /// - Tokens: tags are labels like others, with one exception: if train has only `B-x`, an `I-x` in a given file
    ///   becomes a label after the others. No row of train has it, but the metrics count it where it is missed.
    /// - Qa: answers are left as they are.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, has no record or is of a format without such targets; if a target is
    /// missing, is not one of the labels or is not a number; or if all rows of train have the same target.
    pub fn load(settings: &DatasetSettings<'_>) -> Result<Dataset> {
        let columns = settings.label_columns.iter().cloned();
        let mut loader = Loader {
            given_labels: settings.labels.is_some(),
            labels: settings.labels.clone().unwrap_or_default(),
            label_columns: columns.map(LabelColumn::new).collect(),
            ..Loader::new(settings.task, settings.joint_pairs)
        };
        let train = with_label_columns(settings.train, &settings.label_columns);
        let mut given = loader.read(Part::Train, train, settings.clean)?;
        for (sources, part) in
            [(settings.validation, Part::Validation), (settings.test, Part::Test)]
        {
            let teaches = part == Part::Validation && settings.teaches_validation;
            let columns = settings.label_columns.iter().filter(|_| teaches);
            let columns: Vec<ColumnName> = columns.cloned().collect();
            if let Some(sources) = sources {
                let sources = with_label_columns(sources, &columns);
                let drop_unlabelled = settings.clean.drop_unlabelled;
                let options = CleanOptions { drop_unlabelled, ..KEEP_ALL };
                given.extend(loader.read(part, sources, options)?);
            }
        }
        given.sort_by_key(|read| read.part);
        loader.find_first_id(given.iter())?;
        let train = given.remove(0);
        loader.add_rows(train)?;
        let targets: Vec<&Target> = loader.rows.iter().map(|row| &row.target).collect();
        require_contrast(settings.task, &targets, &loader.labels, &settings.train[0])?;
        for column in &loader.label_columns {
            column.require_contrast(&loader.labels, &settings.train[0])?;
        }

        let groups: Vec<Option<u64>> = loader.rows.iter().map(|row| row.group).collect();
        let is_given = |part: Part| given.iter().any(|read| read.part == part);
        let fractions =
            split_plan(is_given(Part::Validation), is_given(Part::Test), settings.split);
        let parts = split_rows(&targets, &groups, fractions, settings.seed);
        for (row, part) in loader.rows.iter_mut().zip(parts) {
            row.part = part;
        }
        if fractions.train < 1.0 {
            loader.split = Some(SplitCheck::of(settings.task, &loader.rows, fractions));
        }
        for part in given {
            loader.add_rows(part)?;
        }
        Ok(loader.finish())
    }

    /// Reads files as they are, with all rows in the split `part` (whatever the files say), for labels that are known:
    /// to evaluate a head on other data. Cells may hold ids of labels, which count from `first_id`, or, if that is
    /// `None`, as inferred from the files. Records without a label are dropped if `drop_unlabelled` is set, and
    /// otherwise an error.
    ///
    /// # Errors
    /// Returns the errors of [`Dataset::load`], except that all rows may have the same target.
    pub fn of_part(
        task: DataTask,
        joint_pairs: bool,
        sources: &[Source],
        labels: LabelMap,
        first_id: Option<usize>,
        part: Part,
        drop_unlabelled: bool,
    ) -> Result<Dataset> {
        let mut loader = Loader {
            given_labels: true,
            labels,
            first_id,
            takes_all: true,
            ..Loader::new(task, joint_pairs)
        };
        let options = CleanOptions { drop_unlabelled, ..KEEP_ALL };
        let read = loader.read(part, sources.to_vec(), options)?;
        if first_id.is_none() {
            loader.find_first_id(read.iter())?;
        }
        for read in read {
            loader.add_rows(read)?;
        }
        Ok(loader.finish())
    }
}

/// The records of some files, before it is known how their cells count the ids of labels.
struct ReadPart {
    part: Part,
    sources: Vec<Source>,
    /// The index of the first source among all files.
    first_file: usize,
    examples: Vec<Record>,
}

/// The state that is built up while files are read.
struct Loader {
    task: DataTask,
    joint_pairs: bool,
    labels: LabelMap,
    given_labels: bool,
    first_id: Option<usize>,
    /// Whether every record belongs to the split that its file is read as, whatever the file says.
    takes_all: bool,
    rows: Vec<Example>,
    label_columns: Vec<LabelColumn>,
    files: Vec<FileRecord>,
    /// Files of labels that belong to files of texts.
    label_files: Vec<FileRecord>,
    checks: Vec<FileChecks>,
    split: Option<SplitCheck>,
    /// Records that cannot be read.
    bad_rows: BadRows,
    /// The width of vectors, in all files.
    width: VectorWidth,
    /// Number of answers that were moved to a place where they occur.
    moved_answers: usize,
    /// Number of rows of the test files that were left out.
    lost_test_rows: usize,
    /// Warnings from reading, in addition to those of the checks.
    warnings: Vec<String>,
    /// The number of each document of a file (tokens) and of each context (qa).
    groups: HashMap<(Option<usize>, Key), u64>,
}

impl Loader {
    fn new(task: DataTask, joint_pairs: bool) -> Loader {
        Loader {
            task,
            joint_pairs,
            labels: LabelMap::default(),
            given_labels: false,
            first_id: None,
            takes_all: false,
            rows: Vec::new(),
            label_columns: Vec::new(),
            files: Vec::new(),
            label_files: Vec::new(),
            checks: Vec::new(),
            split: None,
            bad_rows: BadRows::default(),
            width: VectorWidth::default(),
            moved_answers: 0,
            lost_test_rows: 0,
            warnings: Vec::new(),
            groups: HashMap::new(),
        }
    }

    /// Reads some files as `part` and, if that is train, also as the splits that they assign their records to. Labels
    /// that are not given are collected from train.
    fn read(
        &mut self,
        part: Part,
        sources: Vec<Source>,
        options: CleanOptions,
    ) -> Result<Vec<ReadPart>> {
        let first_file = self.files.len();
        let targets = TargetReader { task: self.task, sources: &sources };
        let first_bad = self.bad_rows.count();
        let (examples, counts, others) = self.read_examples(part, &targets, options)?;
        let (bad, takes_all) = (self.bad_rows.parts_after(first_bad), self.takes_all);
        let n_bad = |wanted: Part| {
            let parts = bad.iter().map(|own| own_part(*own, part, takes_all));
            parts.filter(|own| *own == wanted).count()
        };
        self.lost_test_rows += n_bad(Part::Test);
        let files = &self.files[first_file..];
        let checks = FileChecks::of(part, counts, options, files);
        self.checks.push(FileChecks { bad_lines: n_bad(part), ..checks });
        match (self.given_labels, part) {
            (true, _) => {}
            (false, Part::Train) => {
                self.labels = targets.found_labels(&examples);
                self.warnings.extend(label_warnings(&self.labels));
            }
            (false, _) => targets.add_continuations(&examples, &mut self.labels),
        }
        let mut read = vec![ReadPart { part, sources: sources.clone(), first_file, examples }];
        for part in [Part::Validation, Part::Test] {
            let own = others.iter().filter(|record| record.part == Some(part)).cloned();
            let own: Vec<Result<Record>> = own.map(Ok).collect();
            if own.is_empty() {
                continue;
            }
            // Treated like a file that is given for the split: nothing is thinned out.
            let keys = |record: &Record| record.keys(self.joint_pairs);
            let (examples, counts) = clean(own, KEEP_ALL, keys, |record| targets.spell(record))?;
            let files = &self.files[first_file..];
            let checks = FileChecks::of(part, counts, KEEP_ALL, files);
            self.checks.push(FileChecks { bad_lines: n_bad(part), ..checks });
            if !self.given_labels {
                targets.add_continuations(&examples, &mut self.labels);
            }
            read.push(ReadPart { part, sources: sources.clone(), first_file, examples });
        }
        Ok(read)
    }

    /// Determines whether cells count the ids of given labels from 0 or from 1.
    fn find_first_id<'a>(&mut self, parts: impl Iterator<Item = &'a ReadPart>) -> Result<()> {
        if !self.given_labels || !self.task.has_labels() {
            return Ok(());
        }
        let task = self.task;
        let cells = parts.flat_map(|part| {
            let sources = &part.sources;
            part.examples.iter().flat_map(move |example| {
                let own = TargetReader { task, sources }.labels_in(example);
                let columns = example.label_cells.iter().map(|cell| Cow::Borrowed(cell.as_str()));
                let source = &sources[example.source];
                let labels = own.into_iter().chain(columns);
                labels.map(move |label| (label, source, example.line))
            })
        });
        self.first_id = label_ids::first_id(&self.labels, cells)?;
        Ok(())
    }

    /// Adds the rows of some files.
    fn add_rows(&mut self, read: ReadPart) -> Result<()> {
        let ReadPart { part, sources, first_file, examples } = read;
        let targets = TargetReader { task: self.task, sources: &sources };
        for example in examples {
            let read = |example: &Record| targets.read(example, &self.labels, self.first_id);
            let target = read(&example)?;
            let source = &sources[example.source];
            for (place, column) in self.label_columns.iter_mut().enumerate() {
                let cell = example.label_cells.get(place).map(String::as_str);
                column.push(&example, cell, &target, source, &self.labels, read)?;
            }
            let file = first_file + example.source;
            let group = self.group_of(&example, file);
            self.rows.push(Example {
                keys: example.keys(self.joint_pairs),
                group,
                id: example.id,
                text: example.text,
                text_pair: example.text_pair,
                words: example.words,
                target,
                part,
                file,
                line: example.line,
            });
        }
        Ok(())
    }

    /// Returns the cleaned records of `part`, and the records that their files assign to another split.
    fn read_examples(
        &mut self,
        part: Part,
        targets: &TargetReader<'_>,
        options: CleanOptions,
    ) -> Result<(Vec<Record>, CleanCounts, Vec<Record>)> {
        let (task, sources) = (targets.task, targets.sources);
        let first_file = self.files.len();
        for source in sources {
            task.check_format(source)?;
        }
        let files = RefCell::new(&mut self.files);
        let n_moved = Cell::new(self.moved_answers);
        let swallowed = RefCell::new(vec![SwallowedLines::default(); sources.len()]);
        // Only one file is open at a time.
        let examples = sources.iter().enumerate().flat_map(|(number, source)| {
            let want = WantedFields { label: true, text_pair: source.text_pair.is_some() };
            let examples = OpenSource::open(source).and_then(|mut file| {
                files.borrow_mut().push(FileRecord {
                    path: source.path.clone(),
                    blake3: file.blake3()?,
                    rows: 0,
                });
                read_open(file, source, want, &self.bad_rows)
            });
            numbered(examples, number, source)
        });
        let (labels, takes_all, width) = (&self.labels, self.takes_all, &mut self.width);
        let examples = examples.map(|example| width.check(example?, sources));
        let examples = examples.filter_map(|example| match example {
            Ok(example) => targets.readable(example, labels, &self.bad_rows),
            error => Some(error),
        });
        let examples = examples.inspect(|example| {
            if let Ok(example) = example {
                files.borrow_mut()[first_file + example.source].rows += 1;
                swallowed.borrow_mut()[example.source].count(example);
                n_moved.set(n_moved.get() + example.moved_answers);
            }
        });
        let unlabelled = RefCell::new(Unlabelled::default());
        let n_lost = Cell::new(self.lost_test_rows);
        let examples = examples.filter(|example| match example {
            Ok(example) if targets.lacks_label(example, labels) => {
                unlabelled.borrow_mut().count(example);
                let own = own_part(example.part, part, takes_all);
                n_lost.set(n_lost.get() + usize::from(own == Part::Test));
                !options.drop_unlabelled
            }
            _ => true,
        });
        let others = RefCell::new(Vec::new());
        let examples = examples.filter_map(|example| match example {
            Ok(example) if !takes_all && example.part.is_some_and(|other| other != part) => {
                if part != Part::Train {
                    return Some(Err(of_another_part(&example, part, &sources[example.source])));
                }
                others.borrow_mut().push(example);
                None
            }
            example => Some(example),
        });
        let joint_pairs = self.joint_pairs;
        let keys = |record: &Record| record.keys(joint_pairs);
        let (examples, mut counts) =
            clean(examples, options, keys, |example| targets.spell(example))?;
        (self.moved_answers, self.lost_test_rows) = (n_moved.get(), n_lost.get());
        let n_read: usize = self.files[first_file..].iter().map(|file| file.rows).sum();
        if let Some(warning) = unlabelled.into_inner().settle(sources, n_read, options)? {
            self.warnings.push(warning);
        }
        for (source, swallowed) in sources.iter().zip(swallowed.into_inner()) {
            let words = swallowed.in_words();
            let path = source.path.display();
            self.warnings.extend(words.map(|words| format!("{path}: {words}")));
        }
        let files = &self.files[first_file..];
        let n_records: Vec<usize> = files.iter().map(|file| file.rows).collect();
        for (source, rows) in sources.iter().zip(&n_records) {
            if let Some(path) = source.label_path.clone() {
                let blake3 = OpenFile::open(&path)?.blake3()?;
                self.label_files.push(FileRecord { path, blake3, rows: *rows });
            }
        }
        if examples.is_empty() && !others.borrow().is_empty() {
            return Err(sources[0].malformed(
                None,
                "rows of train",
                "only rows of validation and test",
                "name a file with rows of train too, or leave `split_column` out",
            ));
        }
        require_texts(sources, &n_records, examples.len(), counts.empty as u64)?;
        if task == DataTask::Qa {
            // A question may have other answers in another file; they do not contradict each other.
            counts.conflicting = 0;
            counts.conflicts.clear();
        }
        Ok((examples, counts, others.into_inner()))
    }

    fn group_of(&mut self, example: &Record, file: usize) -> Option<u64> {
        let (name, is_of_file) = self.task.group_of(example)?;
        let group = (is_of_file.then_some(file), Key::of(Mode::Text, &[name]));
        let next = self.groups.len() as u64;
        Some(*self.groups.entry(group).or_insert(next))
    }

    fn finish(self) -> Dataset {
        let Loader {
            task,
            labels,
            first_id,
            rows,
            label_columns,
            mut files,
            label_files,
            checks,
            split,
            bad_rows,
            moved_answers,
            lost_test_rows,
            mut warnings,
            ..
        } = self;
        if lost_test_rows > 0 {
            warnings.push(format!(
                "{} left out: metrics on the others are not those of the whole test set, and cannot be compared with \
                 published ones; correct these rows to keep them",
                match lost_test_rows {
                    1 => "1 given test row is".to_owned(),
                    n => format!("{} are", counted(n, "given test row")),
                }
            ));
        }
        let distribution = distribution_of(&labels, &rows);
        let checks = DataChecks {
            bad_rows: bad_rows.rows(),
            moved_answers,
            ..DataChecks::of(checks, split, &rows, &files, distribution.balance())
        };
        files.extend(label_files);
        Dataset {
            values: value_summaries(&rows),
            questions: if task == DataTask::Qa { question_summaries(&rows) } else { Vec::new() },
            warnings: warnings
                .into_iter()
                .chain(checks.warnings())
                .chain(label_columns.iter().filter_map(LabelColumn::warning))
                .collect(),
            checks,
            distribution,
            labels,
            first_id,
            rows,
            label_columns,
            files,
        }
    }
}

/// The part that a record is for: the one that its file says, unless all are taken, or else the one that it is read as.
fn own_part(own: Option<Part>, read_as: Part, takes_all: bool) -> Part {
    own.filter(|_| !takes_all).unwrap_or(read_as)
}

/// The error for a record of a validation or test file that says it is of another part.
fn of_another_part(example: &Record, part: Part, source: &Source) -> Error {
    source.malformed(
        example.line,
        format!("only rows of {}", part_name(part)),
        format!("one of {}", example.part.map_or("none", part_name)),
        "name a file that assigns its rows to parts only in data.train: each row goes to the part that it names",
    )
}

/// Returns the sources with these columns as their label columns.
fn with_label_columns(sources: &[Source], columns: &[ColumnName]) -> Vec<Source> {
    let asked =
        sources.iter().map(|source| Source { label_columns: columns.to_vec(), ..source.clone() });
    asked.collect()
}
