use frostbert_cache::fingerprint;
use serde_json::{Value, json};

use super::*;

/// The shape of a model of this family with some keys changed, or the message that refuses it.
fn shape(family: &str, changed: Value) -> std::result::Result<FusedShape, String> {
    let mut fields = json!({
        "model_type": family, "num_hidden_layers": 6, "hidden_size": 8, "num_attention_heads": 2,
        "intermediate_size": 16, "vocab_size": 10, "max_position_embeddings": 64,
    });
    for (key, value) in changed.as_object().unwrap() {
        fields[key] = value.clone();
    }
    let Value::Object(fields) = fields else { panic!("an object") };
    let file =
        ConfigFile { path: "config.json".into(), blake3: fingerprint::hash_bytes(b""), fields };
    file.fused_shape().map_err(|error| error.to_string())
}

fn refused(family: &str, changed: Value) -> String {
    shape(family, changed).unwrap_err()
}

#[test]
fn both_spellings_of_a_modernbert_are_one_model() {
    let older = shape(
        "modernbert",
        json!({"global_rope_theta": 80000.0, "local_rope_theta": 5000.0, "local_attention": 16,
            "global_attn_every_n_layers": 2}),
    )
    .unwrap();
    let kinds = [WHOLE, WINDOW, WHOLE, WINDOW, WHOLE, WINDOW];
    let plain = |theta: f64| json!({"rope_type": "default", "rope_theta": theta});
    let newer = shape(
        "modernbert",
        json!({"layer_types": kinds, "local_attention": 16,
            "rope_parameters": {WHOLE: plain(80000.0), WINDOW: plain(5000.0)}}),
    )
    .unwrap();
    assert_eq!(older, newer);
    let rotary = older.rotary.unwrap();
    assert_eq!(rotary[0], RotaryLayer { theta: 80_000.0, divisor: 1.0, window: None });
    assert_eq!(rotary[5], RotaryLayer { theta: 5_000.0, divisor: 1.0, window: Some(8) });
    assert_eq!((older.layer_norm_epsilon, older.norm_bias), (1e-5, false));

    let default = shape("modernbert", json!({})).unwrap().rotary.unwrap();
    let windows: Vec<Option<usize>> = default.iter().map(|layer| layer.window).collect();
    assert_eq!(windows, [None, Some(64), Some(64), None, Some(64), Some(64)]);
    assert_eq!((default[0].theta, default[1].theta), (160_000.0, 10_000.0));
}

#[test]
fn what_would_turn_angles_otherwise_is_refused() {
    for (family, changed, what) in [
        ("modernbert", json!({"layer_types": [WHOLE]}), "layer_types"),
        ("modernbert", json!({"attention_bias": true}), "attention_bias false"),
        ("modernbert", json!({"rope_parameters": {WINDOW: {"rope_type": "yarn"}}}), "default"),
        ("gte", json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}), "rope_scaling"),
        ("gte", json!({"rope_scaling": {"type": "ntk"}}), "factor"),
        ("gte", json!({"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.5}}), "ntk"),
        ("gte", json!({"rope_theta": "far"}), "rope_theta"),
        ("nomic_bert", json!({"num_experts": 8}), "experts"),
        ("albert", json!({"inner_group_num": 2}), "inner_group_num 1"),
        ("albert", json!({"num_hidden_groups": 7}), "num_hidden_groups"),
        ("deberta-v2", json!({}), "relative_attention true"),
    ] {
        let message = refused(family, changed);
        assert!(message.contains(what), "{message}");
    }
}

#[test]
fn scaled_angles_that_are_the_same_for_all_texts_are_computed() {
    let angles = |changed: Value| shape("gte", changed).unwrap().rotary.unwrap()[0];
    let scaled =
        |kind: &str| json!({"rope_theta": 500, "rope_scaling": {"type": kind, "factor": 4}});
    // Heads are 4 values wide.
    let expected = RotaryLayer { theta: 2_000.0, divisor: 2.0, window: None };
    assert_eq!(angles(scaled("ntk")), expected);
    let expected = RotaryLayer { theta: 500.0, divisor: 4.0, window: None };
    assert_eq!(angles(scaled("linear")), expected);
    let newer = json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0});
    assert_eq!(angles(json!({"rope_parameters": newer})), expected);
}

#[test]
fn a_deberta_must_say_what_its_attention_knows_of_positions() {
    let v3 = json!({"relative_attention": true, "position_biased_input": false, "type_vocab_size": 0,
        "pos_att_type": "p2c|c2p", "position_buckets": 16, "max_relative_positions": -1,
        "share_att_key": true, "norm_rel_ebd": "layer_norm"});
    let with = |key: &str, value: Value| {
        let mut changed = v3.clone();
        changed[key] = value;
        changed
    };
    let found = shape("deberta-v2", v3.clone()).unwrap();
    let disentangled = found.disentangled.unwrap();
    assert_eq!((disentangled.span(), disentangled.furthest), (16, 64));
    assert!(disentangled.shares_projections && disentangled.is_normed);
    assert_eq!((found.token_types, found.layer_norm_epsilon), (0, 1e-7));
    let listed = shape("deberta-v2", with("pos_att_type", json!(["c2p"]))).unwrap();
    assert!(!listed.disentangled.unwrap().queries_of_distances);
    for (key, value) in [
        ("conv_kernel_size", json!(4)),
        ("conv_kernel_size", json!("3")),
        ("position_biased_input", json!(true)),
        ("pos_att_type", json!(["p2p"])),
        ("pos_att_type", json!([])),
        ("position_buckets", json!(1)),
    ] {
        let message = refused("deberta-v2", with(key, value));
        assert!(message.contains(key), "{message}");
    }
}

#[test]
fn a_deberta_may_have_a_convolution_after_its_first_layer() {
    let with = |changed: Value| {
        let mut fields = json!({"relative_attention": true, "position_biased_input": false,
            "pos_att_type": ["c2p", "p2c"], "position_buckets": 16});
        for (key, value) in changed.as_object().unwrap() {
            fields[key] = value.clone();
        }
        shape("deberta-v2", fields).map(|shape| shape.convolution)
    };
    for none in [json!({}), json!({"conv_kernel_size": 0}), json!({"conv_kernel_size": -1})] {
        assert_eq!(with(none), Ok(None));
    }
    let plain = Convolution { tensors: "encoder.conv", kernel: 3, groups: 1, is_tanh: true };
    assert_eq!(with(json!({"conv_kernel_size": 3})), Ok(Some(plain)));
    let published = json!({"conv_kernel_size": 3, "conv_act": "gelu", "conv_groups": 4});
    let expected = Convolution { groups: 4, is_tanh: false, ..plain };
    assert_eq!(with(published), Ok(Some(expected)));
    // States are 8 values wide.
    for (key, value) in
        [("conv_groups", json!(3)), ("conv_act", json!("relu")), ("conv_act", json!(1))]
    {
        let mut changed = json!({"conv_kernel_size": 3});
        changed[key] = value;
        let message = with(changed).unwrap_err();
        assert!(message.contains(key), "{message}");
    }
    // Other families have no such layer, whatever the key means to them.
    assert_eq!(shape("bert", json!({"conv_kernel_size": 9})).unwrap().convolution, None);
}

#[test]
fn a_nomic_bert_of_the_hub_has_keys_of_its_own() {
    let hub = json!({"hidden_size": null, "n_layer": 3, "n_embd": 12, "n_head": 3, "n_inner": 20, "n_positions": 8192,
        "activation_function": "swiglu", "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0,
        "qkv_proj_bias": false, "mlp_fc1_bias": false, "mlp_fc2_bias": false, "prenorm": false, "layer_norm_epsilon": 1e-12,
        "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"}});
    let found = shape("nomic_bert", hub.clone()).unwrap();
    assert_eq!((found.layers, found.hidden, found.intermediate), (3, 12, 20));
    assert_eq!((found.positions, found.token_types), (8192, 2));
    let mut scaled = hub;
    scaled["rotary_scaling_factor"] = json!(2);
    assert_eq!(shape("nomic_bert", scaled.clone()).unwrap().positions, 2048);
    scaled["prenorm"] = json!(true);
    assert!(refused("nomic_bert", scaled.clone()).contains("prenorm false"));
    // The class of the hub has biases where the config does not say.
    scaled.as_object_mut().unwrap().remove("mlp_fc1_bias");
    scaled["prenorm"] = json!(false);
    assert!(refused("nomic_bert", scaled).contains("mlp_fc1_bias false"));
    assert_eq!(shape("nomic_bert", json!({})).unwrap().hidden, 8);
}

#[test]
fn a_jina_v2_is_told_from_the_bert_that_it_calls_itself() {
    let class = |path: &str| json!({"AutoModel": format!("{path}JinaBertModel")});
    let code = class("jinaai/jina-bert-implementation--modeling_bert.");
    let jina =
        json!({"position_embedding_type": "alibi", "feed_forward_type": "geglu", "auto_map": code});
    let with = |key: &str, value: Value| {
        let mut changed = jina.clone();
        changed[key] = value;
        changed
    };
    let found = shape("bert", jina.clone()).unwrap();
    assert_eq!((found.family.class, found.token_types), ("JinaBert", 2));
    assert_eq!(found.stored("encoder.layer.1.mlp.gate.weight").part, 1);
    assert!(found.has_bias("encoder.layer.1.mlp.wo"));
    for known in [class("modeling_bert."), Value::Null] {
        assert_eq!(shape("bert", with("auto_map", known)), Ok(found.clone()));
    }
    for (key, value, what) in [
        ("feed_forward_type", json!("reglu"), "feed_forward_type \"geglu\""),
        ("feed_forward_type", Value::Null, "feed_forward_type \"geglu\""),
        ("hidden_act", json!("relu"), "hidden_act"),
        ("auto_map", class("jinaai/jina-bert-v2-qk-post-norm--modeling_bert."), "qk-post-norm"),
        ("position_embedding_type", json!("absolute"), "jina-bert-implementation"),
    ] {
        let message = refused("bert", with(key, value));
        assert!(message.contains(what), "{message}");
    }
    // Without code of its own it is a BERT again, whatever the key of another family says.
    let plain = json!({"position_embedding_type": "absolute", "feed_forward_type": "geglu"});
    assert_eq!(shape("bert", plain).unwrap().family.class, "Bert");
}

#[test]
fn a_tensor_of_the_graph_is_found_where_the_weights_have_it() {
    let stored = |shape: &FusedShape, name: &str| {
        let found = shape.stored(name);
        (found.name, found.part, found.of)
    };
    let albert = shape("albert", json!({"num_hidden_groups": 2, "embedding_size": 8})).unwrap();
    let of_group =
        |group: usize| format!("encoder.albert_layer_groups.{group}.albert_layers.0.ffn.bias");
    for (layer, group) in [(0, 0), (2, 0), (3, 1), (5, 1)] {
        let name = format!("encoder.albert_layer_groups.{layer}.ffn.bias");
        assert_eq!(stored(&albert, &name), (of_group(group), 0, 1));
    }
    assert!(albert.projects_embeddings());
    let gte = shape("gte", json!({})).unwrap();
    let joined = "encoder.layer.4.attention.qkv_proj.bias".to_string();
    assert_eq!(stored(&gte, "encoder.layer.4.attention.key.bias"), (joined, 1, 3));
    let plain = "encoder.layer.4.mlp_ln.weight";
    assert_eq!(stored(&gte, plain), (plain.to_string(), 0, 1));
    assert!(gte.has_bias("encoder.layer.4.mlp.down_proj"));
    let modernbert = shape("modernbert", json!({})).unwrap();
    assert!(!modernbert.has_bias("layers.4.mlp.Wo"));
    assert_eq!(stored(&modernbert, "embeddings.norm.weight").2, 1);
}
