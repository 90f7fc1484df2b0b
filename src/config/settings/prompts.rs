//! The prompts that are put before texts. Names of the model's prompts become their texts when a pipeline file is read, so
//! that its lock holds the texts themselves, and the model's default prompt is taken where the file chooses none.

use std::path::{Path, PathBuf};

use frostbert_cache::{states::StateKind, wording::shorten};

use crate::{
    config::{
        file::{DataSection, PipelineFile},
        names::{HeadPooling, Pair, Store},
        settings::{
            Pipeline, extraction::read_store, model_folder::FolderDefaults, models::swept_models,
            refusal, unfreezing::unfreezings,
        },
    },
    data::{Prompts, Source},
    encoder::{prompts::FolderPrompts, sentence_folder::SentenceFolder},
    error::{Error, Result},
};

/// What is to be said about the prompts of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PromptMessages {
    /// That the model's default prompt is taken, or why not.
    pub(crate) notes: Vec<String>,
    /// That the model has prompts and none is chosen.
    pub(crate) warnings: Vec<String>,
    /// Whether the model's default prompt is taken.
    pub(crate) takes_default: bool,
}

/// How the prompt of a model is given, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PromptInput {
    /// By `model.prompt` of a pipeline file.
    Key,
    /// By `--prompt` of a command that reads no pipeline file.
    Flag,
}

impl PromptInput {
    fn name(self) -> &'static str {
        match self {
            PromptInput::Key => "model.prompt",
            PromptInput::Flag => "--prompt",
        }
    }

    /// What stands for no prompt.
    fn none(self) -> &'static str {
        match self {
            PromptInput::Key => "model.prompt = \"\"",
            PromptInput::Flag => "--prompt \"\"",
        }
    }
}

/// Replaces the names of prompts in a file by their texts, and puts the model's default prompt where the file chooses
/// none. A model folder that is missing has no prompts: whatever needs the model reports that.
///
/// # Errors
/// Returns an error if a prompt is the name of none of the model's, or if a sweep compares models whose prompts of a name
/// differ.
pub(crate) fn choose(
    file: &mut PipelineFile,
    input: PromptInput,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<PromptMessages> {
    if file.data.has_given_states() {
        return Ok(PromptMessages::default());
    }
    let mut folders: Vec<PathBuf> =
        swept_models(file, refuse)?.into_iter().map(|model| model.path).collect();
    if folders.is_empty() {
        folders.push(file.model.path.clone());
    }
    let prompts = folders.iter().map(|folder| FolderPrompts::read(folder));
    let prompts = prompts.collect::<Result<Vec<FolderPrompts>>>()?;
    let resolve = |key: &str, given: &str| text_of(&prompts, key, given, refuse);

    let is_chosen = given(file).next().is_some();
    if let Some(prompt) = &mut file.model.prompt {
        *prompt = resolve(input.name(), prompt)?;
    }
    for source in file.data.sources_mut() {
        for (key, prompt) in
            [("prompt", &mut source.prompt), ("pair_prompt", &mut source.pair_prompt)]
        {
            if let Some(prompt) = prompt {
                *prompt = resolve(&format!("`{key}` of a source"), prompt)?;
            }
        }
    }
    if file.model.prompt.is_some() {
        return Ok(PromptMessages::default());
    }
    let obstacle = obstacle(file);
    let (notes, default) = default_prompt(&prompts, obstacle.as_deref(), input, refuse)?;
    let takes_default = default.is_some();
    file.model.prompt = default;
    let unchosen = folders.iter().zip(&prompts).filter_map(|(folder, prompts)| {
        // A default is a choice of the folder, even if it is empty.
        let described = prompts.described().filter(|_| prompts.default_prompt().is_none())?;
        Some(format!(
            "the model {} was made for prompts, and none is chosen: it has {described}; set {} to one of them, or to \
             \"\" for none",
            folder.display(),
            input.name()
        ))
    });
    let warnings = unchosen.filter(|_| !is_chosen && obstacle.is_none()).collect();
    Ok(PromptMessages { notes, warnings, takes_default })
}

/// Returns the default prompt of the models, if there is one that can be put before texts, and what to say about it.
fn default_prompt(
    prompts: &[FolderPrompts],
    obstacle: Option<&str>,
    input: PromptInput,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<(Vec<String>, Option<String>)> {
    let of = |prompts: &FolderPrompts| prompts.default_prompt().map(|(_, text)| text.to_string());
    let own = prompts.iter().map(|prompts| of(prompts).unwrap_or_default());
    let texts: Vec<String> = own.collect();
    if texts.iter().any(|text| *text != texts[0]) && obstacle.is_none() {
        return Err(refuse(
            "the models that the sweep compares have different default prompts".into(),
            "set model.prompt to the text of one prompt for all of them, or to \"\" for none"
                .into(),
        ));
    }
    let default = prompts.iter().find_map(FolderPrompts::default_prompt);
    let Some((name, text)) = default.filter(|(_, text)| !text.is_empty()) else {
        return Ok((Vec::new(), None));
    };
    let shown = format!("the model's default prompt `{name}` (\"{}\")", shorten(text, 60));
    Ok(match obstacle {
        None => {
            let note = format!("{shown} is put before texts; {} leaves it out", input.none());
            (vec![note], Some(text.to_string()))
        }
        Some(obstacle) => (vec![format!("{shown} is not used: {obstacle}")], None),
    })
}

/// Returns the text of a prompt, which must be the same with all models.
fn text_of(
    prompts: &[FolderPrompts],
    key: &str,
    given: &str,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<String> {
    let mut text = given;
    for (number, prompts) in prompts.iter().enumerate() {
        let own = prompts.text_of(given);
        let own =
            own.map_err(|unknown| refuse(format!("{key} is {}", unknown.problem), unknown.hint))?;
        if number > 0 && own != text {
            return Err(refuse(
                format!("{key} is `{given}`, by which the models of the sweep mean other texts"),
                "give the text of the prompt, which is then the same for all of them".into(),
            ));
        }
        text = own;
    }
    Ok(text.to_string())
}

/// Checks that prompts are only given where they can be put before texts.
pub(super) fn check(file: &PipelineFile, refuse: &impl Fn(String, String) -> Error) -> Result<()> {
    let first = given(file).find(|(_, prompt)| !prompt.is_empty());
    if let (Some((key, _)), Some(obstacle)) = (first, obstacle(file)) {
        return Err(refuse(
            format!("{key} gives a prompt, but {obstacle}"),
            format!("leave {key} out"),
        ));
    }
    let is_single = |source: &&Source| source.pair_prompt.is_some() && source.text_pair.is_none();
    match sources(&file.data).find(is_single) {
        Some(source) => Err(refuse(
            format!(
                "`pair_prompt` is given of the source `{}`, which has no second texts",
                source.path.display()
            ),
            "leave it out, or name the column of the second texts with `text_pair`".into(),
        )),
        None => Ok(()),
    }
}

/// Iterates over the prompts that a file gives, with their keys.
fn given(file: &PipelineFile) -> impl Iterator<Item = (&'static str, &str)> {
    let model = file.model.prompt.as_deref().map(|prompt| ("model.prompt", prompt));
    model.into_iter().chain(sources(&file.data).flat_map(given_of_source))
}

fn given_of_source(source: &Source) -> impl Iterator<Item = (&'static str, &str)> {
    let prompt = source.prompt.as_deref().map(|prompt| ("`prompt` of a source", prompt));
    let pair = source.pair_prompt.as_deref().map(|prompt| ("`pair_prompt` of a source", prompt));
    prompt.into_iter().chain(pair)
}

fn sources(data: &DataSection) -> impl Iterator<Item = &Source> {
    let given = [Some(&data.train), data.validation.as_ref(), data.test.as_ref()];
    given.into_iter().flatten().flat_map(|sources| &sources.0)
}

/// Returns why no prompt can be put before the texts of a file, if that is so.
fn obstacle(file: &PipelineFile) -> Option<String> {
    let (data, cache) = (&file.data, &file.cache);
    if !data.task.reads_pooled() {
        return Some(format!(
            "the task `{}` finds words and answers by their place in the text, which a prompt would shift",
            data.task
        ));
    }
    if data.pair == Some(Pair::Joint) && sources(data).any(|source| source.text_pair.is_some()) {
        return Some(
            "data.pair = \"joint\" puts both texts into one input, which has no prompt".into(),
        );
    }
    // Whatever the model's folder names, it is a pooling of a whole text.
    let defaults = FolderDefaults { pooling: HeadPooling::Mean, ..FolderDefaults::default() };
    let store = cache.store.clone().unwrap_or_else(|| read_store(file, &defaults));
    let has_token_vectors = || has_token_vectors(&file.model.path);
    let is_free = |store: &&Store| match store.kind() {
        StateKind::Pooled(_) => true,
        // The vectors of a text's tokens are those of the text with its prompt.
        StateKind::Tokens => has_token_vectors(),
        StateKind::Words => false,
    };
    let other = store.iter().find(|store| !is_free(store))?;
    if *other == Store::Tokens && unfreezings(file).iter().any(Option::is_some) {
        return Some(
            "unfreeze trains layers from states of tokens, which are stored with their place in the text, which a \
             prompt would shift"
                .into(),
        );
    }
    Some(format!(
        "states of {other} are stored with their place in the text, which a prompt would shift (store \"mean\", \"cls\" \
         or \"max\")"
    ))
}

/// Whether a folder is that of a multi-vector model. What is wrong with it is reported when the model is opened.
fn has_token_vectors(folder: &Path) -> bool {
    let folder = SentenceFolder::read(folder).ok().flatten();
    folder.is_some_and(|folder| folder.has_token_vectors().is_ok_and(|has| has))
}

/// A source with the prompts that apply to it: its own, or that of the model.
pub(super) fn with_prompts(source: Source, file: &PipelineFile) -> Source {
    let applied = |own: &Option<String>| {
        let prompt = own.as_ref().or(file.model.prompt.as_ref());
        prompt.filter(|prompt| !prompt.is_empty()).cloned()
    };
    let pair_prompt = applied(&source.pair_prompt).filter(|_| source.text_pair.is_some());
    Source { prompt: applied(&source.prompt), pair_prompt, ..source }
}

/// Returns the prompts of the first source of a checked file, which are those of new texts too.
pub(crate) fn train_prompts(file: &PipelineFile) -> Prompts {
    with_prompts(file.data.train.0[0].clone(), file).prompts()
}

impl Pipeline {
    /// Returns the prompt of a query: the one given, by its name or as it is, or else `model.prompt`.
    ///
    /// # Errors
    /// Returns an error if it is the name of none of the model's prompts.
    pub(crate) fn query_prompt(&self, given: Option<&str>) -> Result<String> {
        let Some(given) = given else {
            return Ok(self.file.model.prompt.clone().unwrap_or_default());
        };
        let prompts = [FolderPrompts::read(&self.extraction.model)?];
        text_of(&prompts, "--prompt", given, &refusal(&self.path))
    }

    /// Returns the prompt of a query for a multi-vector model: the one given, by its name or as it is, or else the
    /// model's prompt of queries.
    ///
    /// # Errors
    /// Returns an error if it is the name of none of the model's prompts.
    pub(crate) fn multi_vector_query_prompt(&self, given: Option<&str>) -> Result<String> {
        match given {
            Some(_) => self.query_prompt(given),
            None => Ok(FolderPrompts::read(&self.extraction.model)?.of_queries().to_string()),
        }
    }

    /// Says that a text that comes with no prompt of its own has none, although the texts of a source have one, as only
    /// `model.prompt` is also that of a query; `None` if the file says what a query has, or no source has a prompt.
    pub fn lacking_query_prompt(&self) -> Option<String> {
        if self.file.model.prompt.is_some() {
            return None;
        }
        let mut own = self.extraction.sources.iter().flat_map(|source| {
            given_of_source(source).map(move |(key, prompt)| (source, key, prompt))
        });
        let (source, key, prompt) = own.find(|(_, _, prompt)| !prompt.is_empty())?;
        Some(format!(
            "what is compared has no prompt, but the texts of `{}` have (\"{}\", from {key}): give one with --prompt or \
             model.prompt, or say with --prompt \"\" that there is none",
            source.path.display(),
            shorten(prompt, 60)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model folder with these prompts.
    fn model(prompts: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config_sentence_transformers.json"), prompts).unwrap();
        folder
    }

    const BOTH: &str = r#"{"prompts": {"query": "query: ", "passage": "passage: "}}"#;

    fn file(model: &Path, prompt: &str, data: &str) -> PipelineFile {
        let path = model.display();
        toml::from_str(&format!("[model]\npath = \"{path}\"\n{prompt}\n[data]\n{data}\n")).unwrap()
    }

    const PLAIN: &str = "train = { path = \"a.csv\" }";

    fn chosen(file: &mut PipelineFile) -> Result<PromptMessages> {
        choose(file, PromptInput::Key, &refusal(Path::new("p.toml")))
    }

    #[test]
    fn names_become_texts_and_a_source_has_its_own_before_that_of_the_model() {
        let folder = model(BOTH);
        let data = "task = \"similarity\"\ntrain = [{ path = \"a.csv\", text_pair = \"b\", prompt = \"query\" }, \
                    { path = \"b.csv\", text_pair = \"b\", prompt = \"\", pair_prompt = \"given: \" }]";
        let mut file = file(folder.path(), "prompt = \"passage\"", data);
        assert_eq!(chosen(&mut file).unwrap(), PromptMessages::default());
        assert_eq!(file.model.prompt.as_deref(), Some("passage: "));
        let pipeline = Pipeline::check(Path::new("p.toml"), file).unwrap();
        let prompts: Vec<Prompts> =
            pipeline.extraction.sources.iter().map(Source::prompts).collect();
        let expected =
            [Prompts::new(Some("query: "), Some("passage: ")), Prompts::new(None, Some("given: "))];
        assert_eq!(prompts, expected);
        assert_eq!(train_prompts(pipeline.file()), expected[0]);
        // What the lock holds is read as it is, also where it is no text any more by the rules of a file.
        let mut file = pipeline.file().clone();
        file.model.prompt = Some("word".into());
        let of_lock = Pipeline::check(Path::new("lock.json"), file).unwrap();
        assert_eq!(of_lock.query_prompt(None).unwrap(), "word");
        assert_eq!(of_lock.query_prompt(Some("query")).unwrap(), "query: ");
        assert!(of_lock.query_prompt(Some("word")).is_err());
    }

    #[test]
    fn a_query_without_a_prompt_is_noticed_where_a_source_has_one() {
        let lacking = |prompt: &str, data: &str| {
            let file = file(Path::new("no such model"), prompt, data);
            Pipeline::check(Path::new("p.toml"), file).unwrap().lacking_query_prompt()
        };
        let with_own = PLAIN.replace(" }", ", prompt = \"passage: \" }");
        let said = lacking("", &with_own).unwrap();
        assert!(said.contains("`a.csv` have (\"passage: \", from `prompt` of a source)"), "{said}");
        assert!(said.contains("--prompt or model.prompt"), "{said}");
        let without = PLAIN.replace(" }", ", prompt = \"\" }");
        for (prompt, data) in [
            ("", PLAIN),
            ("", without.as_str()),
            ("prompt = \"\"", with_own.as_str()),
            ("prompt = \"query: \"", with_own.as_str()),
        ] {
            assert_eq!(lacking(prompt, data), None, "{prompt} {data}");
        }
    }

    #[test]
    fn a_name_of_no_prompt_is_refused_with_the_key() {
        let folder = model(BOTH);
        for (prompt, data, key) in [
            ("prompt = \"pasage\"", PLAIN.to_string(), "model.prompt"),
            ("", PLAIN.replace(" }", ", prompt = \"pasage\" }"), "`prompt` of a source"),
            ("", PLAIN.replace(" }", ", pair_prompt = \"pasage\" }"), "`pair_prompt` of a source"),
        ] {
            let error = chosen(&mut file(folder.path(), prompt, &data)).unwrap_err();
            let expected = format!(
                "p.toml: {key} is `pasage`, which is no name of a prompt of the model (there are: `passage`, `query`)"
            );
            assert_eq!(error.to_string(), expected);
            assert!(error.hint().unwrap().starts_with("did you mean `passage`?"), "{error}");
        }
    }

    #[test]
    fn prompts_of_which_none_is_chosen_are_a_warning_and_a_default_is_taken() {
        let warned = |folder: &tempfile::TempDir, prompt: &str, data: &str| {
            let mut file = file(folder.path(), prompt, data);
            let messages = chosen(&mut file).unwrap();
            (messages.notes.join("\n"), messages.warnings.join("\n"), file.model.prompt)
        };
        let folder = model(BOTH);
        let (notes, warnings, prompt) = warned(&folder, "", PLAIN);
        let named = "none is chosen: it has `passage` (\"passage: \"), `query` (\"query: \"); set model.prompt";
        assert!(warnings.contains(named), "{warnings}");
        assert_eq!((notes.as_str(), prompt), ("", None));
        let silent = ("".to_string(), "".to_string());
        let with_own = PLAIN.replace(" }", ", prompt = \"query\" }");
        let tokens = "task = \"tokens\"\ntrain = { path = \"a.conll\" }";
        for (prompt, data) in [("prompt = \"\"", PLAIN), ("", with_own.as_str()), ("", tokens)] {
            let (notes, warnings, _) = warned(&folder, prompt, data);
            assert_eq!((notes, warnings), silent, "{prompt} {data}");
        }
        let of_default = |name: &str| {
            model(&format!(
                "{{\"prompts\": {{\"query\": \"query: \", \"none\": \"\"}}, \"default_prompt_name\": \"{name}\"}}"
            ))
        };
        let (notes, warnings, prompt) = warned(&of_default("query"), "", PLAIN);
        assert!(
            notes.starts_with("the model's default prompt `query` (\"query: \") is put before"),
            "{notes}"
        );
        assert_eq!((warnings.as_str(), prompt.as_deref()), ("", Some("query: ")));
        let (notes, warnings, prompt) = warned(&of_default("query"), "prompt = \"\"", PLAIN);
        assert_eq!(((notes, warnings), prompt.as_deref()), (silent.clone(), Some("")));
        let (notes, warnings, prompt) = warned(&of_default("none"), "", PLAIN);
        assert_eq!(((notes, warnings), prompt), (silent, None));
        let (notes, _, prompt) = warned(&of_default("query"), "", tokens);
        assert!(notes.contains("is not used: the task `tokens` finds words"), "{notes}");
        assert_eq!(prompt, None);
    }

    #[test]
    fn a_prompt_where_it_would_shift_places_is_refused() {
        let none = Path::new("no such model");
        let words = format!("{PLAIN}\n[cache]\nstore = [\"mean\", \"words\"]");
        let attention = format!("{PLAIN}\n[head]\npooling = \"attention\"");
        let pair = "train = { path = \"a.csv\", text_pair = \"b\" }\npair = \"joint\"";
        for (data, problem) in [
            ("task = \"tokens\"\ntrain = { path = \"a.conll\" }", "the task `tokens` finds"),
            ("task = \"qa\"\ntrain = { path = \"a.json\" }", "the task `qa` finds"),
            (pair, "data.pair = \"joint\" puts both"),
            (words.as_str(), "states of words are"),
            (attention.as_str(), "states of tokens are"),
        ] {
            let check = |prompt: &str| {
                Pipeline::check(Path::new("p.toml"), file(none, prompt, data)).map(drop)
            };
            let error = check("prompt = \"a: \"").unwrap_err().to_string();
            let expected = format!("p.toml: model.prompt gives a prompt, but {problem}");
            assert!(error.starts_with(&expected), "{error}");
            check("prompt = \"\"").unwrap();
            check("").unwrap();
        }
        let single = PLAIN.replace(" }", ", pair_prompt = \"a: \" }");
        let error = Pipeline::check(Path::new("p.toml"), file(none, "", &single)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "p.toml: `pair_prompt` is given of the source `a.csv`, which has no second texts"
        );
    }

    #[test]
    fn models_of_a_sweep_must_mean_the_same_text() {
        let (one, other) =
            (model(BOTH), model(r#"{"prompts": {"query": "Q: ", "passage": "passage: "}}"#));
        let sweep = |prompt: &str| {
            let data = format!(
                "{PLAIN}\n[sweep]\nmodel.path = [\"{}\", \"{}\"]",
                one.path().display(),
                other.path().display()
            );
            let mut file = file(one.path(), prompt, &data);
            chosen(&mut file).map(|_| file.model.prompt)
        };
        assert_eq!(sweep("prompt = \"passage\"").unwrap().as_deref(), Some("passage: "));
        assert_eq!(sweep("prompt = \"Q: \"").unwrap().as_deref(), Some("Q: "));
        let error = sweep("prompt = \"query\"").unwrap_err().to_string();
        assert!(error.contains("by which the models of the sweep mean other texts"), "{error}");
    }
}
