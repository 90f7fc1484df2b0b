//! What can be done today with a model that the fused graph does not compute: the hint of its refusal.

/// The script of frostbert's source that exports a model with the states of every layer.
const SCRIPT: &str = "scripts/export-onnx.py";

/// Families, by `model_type`, whose export was tried or, of those with a fused graph, differs in no operator.
const ENCODERS: [&str; 14] = [
    "albert",
    "bert",
    "camembert",
    "deberta-v2",
    "distilbert",
    "electra",
    "eurobert",
    "gte",
    "modernbert",
    "mpnet",
    "nomic_bert",
    "roberta",
    "roformer",
    "xlm-roberta",
];

/// Families with an encoder and a decoder, of which the script exports the encoder.
const PAIRS: [&str; 6] = ["longt5", "mt5", "switch_transformers", "t5", "t5gemma", "umt5"];

/// Families of which each token sees only those before it, unless their config says otherwise.
const DECODERS: [&str; 13] = [
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "llama",
    "mistral",
    "modernbert-decoder",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
];

/// What config.json says of a model, as far as it decides what can be done with it.
#[derive(Clone, Copy)]
pub(super) struct UnsupportedModel<'a> {
    /// `model_type`.
    pub(super) model_type: &'a str,
    /// The class in `auto_map` that computes the model, if it is the repository's own.
    pub(super) own_code: Option<&'a str>,
    /// Whether there are several experts, of which each token takes a few.
    pub(super) has_experts: bool,
    /// Whether there is an adapter for each task, of which the code chooses one.
    pub(super) has_adapters: bool,
}

impl UnsupportedModel<'_> {
    /// Returns what can be done, or why nothing can.
    pub(super) fn way_out(&self) -> String {
        let export = |options: &str| {
            format!(
                "`python {SCRIPT} MODEL FOLDER{options}` of frostbert's source (with torch, transformers, onnx, \
                 onnxscript and onnxruntime) writes a folder with a model.onnx that puts out every layer: set \
                 model.path to it"
            )
        };
        if self.has_adapters {
            return "the model cannot be used: its layers have an adapter for each task, which the repository's own \
                    code chooses and model.onnx takes as an input that frostbert has not; name another model"
                .into();
        }
        if self.has_experts {
            return "the model cannot be used: it sends each token through experts of its choice, which neither \
                    frostbert's graph nor the export by its script computes; name another model"
                .into();
        }
        if ENCODERS.contains(&self.model_type) && self.own_code.is_none_or(|_| self.is_native()) {
            return export("");
        }
        if PAIRS.contains(&self.model_type) {
            return format!("{}; of this family, it exports the encoder alone", export(""));
        }
        if DECODERS.contains(&self.model_type) {
            return format!(
                "{}; but its authors' vector of a text may be the state of the last token, and frostbert pools by \
                 cls, mean and max only",
                export("")
            );
        }
        match self.own_code {
            Some(_) => format!(
                "frostbert runs no code of a repository. If the repository has a model.onnx, `frostbert model pull` \
                 takes it; otherwise read the code, and if you trust it, {}",
                export(" --trust-remote-code")
            ),
            None => format!("if transformers has this family, {}", export("")),
        }
    }

    /// Returns whether `transformers` computes the family by itself although repositories still bring code for it.
    fn is_native(&self) -> bool {
        ["eurobert", "gte", "nomic_bert"].contains(&self.model_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way_out(model_type: &str, own_code: Option<&str>) -> String {
        let model =
            UnsupportedModel { model_type, own_code, has_experts: false, has_adapters: false };
        model.way_out()
    }

    #[test]
    fn each_family_gets_the_way_out_that_exists_for_it() {
        let script = "export-onnx.py MODEL FOLDER`";
        for family in ["albert", "deberta-v2", "modernbert", "eurobert", "nomic_bert"] {
            assert!(way_out(family, None).starts_with("`python scripts/"), "{family}");
            assert!(way_out(family, None).contains(script), "{family}");
        }
        assert!(!way_out("nomic_bert", Some("hub.NomicBertModel")).contains("trust"));
        assert!(way_out("t5", None).contains("the encoder alone"));
        assert!(way_out("qwen3", None).contains("the last token"));
        assert!(way_out("something", None).starts_with("if transformers has this family"));
        for family in ["new", "bert", "xlm-roberta"] {
            let way = way_out(family, Some("hub.OwnModel"));
            assert!(way.contains("--trust-remote-code") && way.contains("model pull"), "{way}");
        }
    }

    #[test]
    fn where_there_is_no_way_out_none_is_named() {
        let experts = UnsupportedModel {
            model_type: "nomic_bert",
            own_code: None,
            has_experts: true,
            has_adapters: false,
        };
        let adapters = UnsupportedModel { has_adapters: true, ..experts };
        for way in [experts.way_out(), adapters.way_out()] {
            assert!(way.starts_with("the model cannot be used"), "{way}");
            assert!(!way.contains(SCRIPT), "{way}");
        }
    }
}
