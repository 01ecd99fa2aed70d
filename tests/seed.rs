//! The document that this program's database form comes from: its two entries, and its worked example.
//!
//! `fixtures/seed_entries.json` holds the entries of LlamaAttention and Linear letter by letter as the document prints
//! them, faults included. `fixtures/seed_transformer_block.json` holds the formulas of its "Complete Evaluation Example"
//! under names of their own.

mod common;

use bitcost::db::Db;
use bitcost::value::Value;
use common::{at, fixture, int, json, run, stdout};

const EXAMPLE: [&str; 5] = [
    "B=1",
    "S=2048",
    "hidden_size=4096",
    "num_heads=32",
    "intermediate_size=11008",
];

/// Runs a `db` command on the example's overlay.
fn example(args: &[&str]) -> Vec<String> {
    let overlay = fixture("seed_transformer_block.json");
    let args = ["db"]
        .iter()
        .chain(args)
        .copied()
        .chain(["--module-db", &overlay]);
    args.map(String::from).collect()
}

/// The FLOPs that `db eval` gives for a class of the example.
#[track_caller]
fn flops(class: &str, arguments: &[&str]) -> i128 {
    let args = example(&[&["eval", class, "--format", "json"], arguments].concat());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    int(&json(&args), "flops")
}

/// Claims that `db check` of the two entries ends with exit code 1 and a finding that mentions all of this.
#[track_caller]
fn found(mentions: &[&str]) {
    let ran = run(&["db", "check", &fixture("seed_entries.json")]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(1), ""));
    let fits = |line: &&str| mentions.iter().all(|mention| line.contains(mention));
    assert!(
        ran.out.lines().any(|line| fits(&line)),
        "no finding mentions {mentions:?}:\n{}",
        ran.out
    );
}

// ---- the two entries ------------------------------------------------------------------------------------------------

#[test]
fn the_seed_entries_load_as_they_are_written() {
    let text = std::fs::read_to_string(fixture("seed_entries.json")).unwrap();
    let mut db = Db::embedded().unwrap();
    db.overlay("seed_entries.json", &text).unwrap();
    for path in [
        "transformers.models.llama.modeling_llama.LlamaAttention",
        "torch.nn.Linear",
    ] {
        let key = db.resolve(path, "").unwrap();
        let entry = db.entry(&key).unwrap();
        assert_eq!(&*entry.path, path);
        assert_eq!(entry.overlay.as_deref(), Some("seed_entries.json"));
        assert!(entry.flop_analysis.is_some() && entry.memory_analysis.is_some());
    }
}

#[test]
fn linear_is_defined_with_4_parameters_and_called_with_3() {
    found(&[
        "LlamaAttention",
        "formula_template",
        "Linear",
        "defined with 4 parameters",
        "called with 3",
    ]);
}

#[test]
fn every_part_of_the_breakdown_that_calls_linear_is_found() {
    for part in ["q_proj", "k_proj", "v_proj", "o_proj"] {
        found(&[&format!("breakdown.{part}"), "called with 3"]);
    }
}

#[test]
fn the_key_is_not_that_of_its_path() {
    found(&[
        "modeling__llama__LlamaAttention",
        "transformers.models.llama.modeling_llama.LlamaAttention",
    ]);
}

#[test]
fn module_depends_of_the_memory_analysis_lists_what_no_template_calls() {
    found(&[
        "LlamaAttention",
        "memory_analysis.module_depends",
        "torch__nn__Linear",
        "no template",
    ]);
}

#[test]
fn replacing_linear_by_one_with_other_parameters_is_found() {
    found(&["torch__nn__Linear", "entries call it"]);
}

#[test]
fn llama_on_the_seed_entries_is_refused_for_the_call_that_does_not_fit() {
    let ran = run(&[
        "inspect",
        "meta-llama/Llama-2-7b-hf",
        "--module-db",
        &fixture("seed_entries.json"),
    ]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(3), ""));
    assert!(ran.err.contains("takes 4 arguments, got 3"), "{}", ran.err);
}

#[test]
fn the_seed_linear_costs_what_its_templates_say() {
    // FLOPs 2 * 1 * 2048 * 4096 * 4096; reads 4096 * 4096 * 2 of weights and 2048 * 4096 * 2 of activations at 2 bytes each.
    let entries = fixture("seed_entries.json");
    let cost = json(&[
        "db",
        "eval",
        "torch.nn.Linear",
        "B=1",
        "S=2048",
        "input_features=4096",
        "output_features=4096",
        "--module-db",
        &entries,
        "--format",
        "json",
    ]);
    assert_eq!(int(&cost, "flops"), 68_719_476_736);
    assert_eq!(int(&cost, "read_bytes"), 33_554_432 + 16_777_216);
    assert_eq!(int(&cost, "write_bytes"), 16_777_216);
    assert_eq!(int(&cost, "intermediate_bytes"), 0);
    // It says nothing about multiplications, so there are no MACs to report.
    assert_eq!(at(&cost, "macs"), Value::None);
}

// ---- the worked example ---------------------------------------------------------------------------------------------

/// The document prints 679,115,227,136. It multiplied 2 * 2048 * 4096 * 11008 to 184,885,575,680; the product is
/// 184,683,593,728, that is 201,981,952 less, and it stands there twice: 679,115,227,136 - 403,963,904.
#[test]
fn the_example_is_678_711_263_232_flops() {
    assert_eq!(2i128 * 2048 * 4096 * 11008, 184_683_593_728);
    assert_eq!(flops("TransformerBlock", &EXAMPLE), 678_711_263_232);
    assert_eq!(
        679_115_227_136 - 2 * (184_885_575_680 - 184_683_593_728),
        678_711_263_232i128
    );
}

#[test]
fn the_parts_of_the_example_are_the_documents() {
    // 3 * 68,719,476,736 + 34,359,738,368 + 68,719,476,736.
    assert_eq!(
        flops("SeedMultiHeadAttention", &EXAMPLE[..4]),
        309_237_645_312
    );
    assert_eq!(
        flops(
            "SeedLayerNorm",
            &["batch_elements=2048", "hidden_size=4096"]
        ),
        41_943_040
    );
    assert_eq!(
        flops(
            "SeedLinear",
            &[
                "batch_elements=2048",
                "input_features=4096",
                "output_features=4096"
            ]
        ),
        68_719_476_736
    );
}

#[test]
fn the_mlp_of_the_example_is_two_products_and_an_activation() {
    // 2 * 184,683,593,728 + 22,544,384; the document has 369,793,695,744 from its wrong products.
    assert_eq!(
        flops(
            "SeedMLP",
            &[
                "B=1",
                "S=2048",
                "hidden_size=4096",
                "intermediate_size=11008"
            ]
        ),
        369_389_731_840
    );
}

#[test]
fn the_example_has_no_findings() {
    let ran = run(&["db", "check", &fixture("seed_transformer_block.json")]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", ran.out);
}

#[test]
fn the_explanation_is_the_documents_tree_with_its_numbers() {
    let args = example(&[&["explain", "TransformerBlock"][..], &EXAMPLE].concat());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let tree = stdout(&args);
    let steps = [
        "TransformerBlock(1, 2048, 4096, 32, 11008): 678,711,263,232 FLOPs",
        "{SeedMultiHeadAttention}(1, 2048, 4096, 32)",
        "309,237,645,312",
        "3 * {SeedLinear}",
        "206,158,430,208",
        "2 * 2048 * 4096 * 4096",
        "68,719,476,736",
        "2 * 1 * 32 * 2048 * 2048 * (4096 // 32)",
        "34,359,738,368",
        "{SeedLayerNorm}(1 * 2048, 4096)",
        "5 * 2048 * 4096",
        "41,943,040",
        "{SeedMLP}(1, 2048, 4096, 11008)",
        "369,389,731,840",
        "2 * 2048 * 4096 * 11008",
        "184,683,593,728",
        "1 * 2048 * 11008",
        "22,544,384",
        "2 * 2048 * 11008 * 4096",
    ];
    // In the order of the document: each step stands behind the one before it.
    let mut from = 0;
    for step in steps {
        match tree[from..].find(step) {
            Some(found) => from += found,
            None => panic!("`{step}` is missing or stands too early:\n{tree}"),
        }
    }
    assert!(
        !tree.contains("184,885,575,680") && !tree.contains("679,115,227,136"),
        "{tree}"
    );
}

#[test]
fn the_steps_of_an_explanation_add_up() {
    let args = example(
        &[
            &["explain", "TransformerBlock", "--format", "json"][..],
            &EXAMPLE,
        ]
        .concat(),
    );
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let tree = json(&args);
    let steps = common::list(&tree, "steps");
    let sum: i128 = steps.iter().map(|step| int(step, "value")).sum();
    assert_eq!((sum, steps.len()), (678_711_263_232, 4));
    assert_eq!(int(&tree, "value"), sum);
}

#[test]
fn the_example_grows_with_the_square_of_the_length_only_in_its_scores() {
    // Twice the tokens: everything doubles but the scores, which are four times 34,359,738,368.
    let twice = flops(
        "TransformerBlock",
        &[
            "B=1",
            "S=4096",
            "hidden_size=4096",
            "num_heads=32",
            "intermediate_size=11008",
        ],
    );
    assert_eq!(twice, 2 * 678_711_263_232 + 2 * 34_359_738_368);
}

#[test]
fn the_order_of_arguments_means_nothing() {
    let reversed: Vec<&str> = EXAMPLE.iter().rev().copied().collect();
    assert_eq!(flops("TransformerBlock", &reversed), 678_711_263_232);
}

#[test]
fn an_overlay_entry_does_not_take_over_a_class_of_the_same_name_in_another_file() {
    // DistilBERT has a TransformerBlock of its own, in its own file.
    let overlay = fixture("seed_transformer_block.json");
    let without = json(&[
        "inspect",
        "distilbert/distilbert-base-uncased",
        "--format",
        "json",
    ]);
    let with = json(&[
        "inspect",
        "distilbert/distilbert-base-uncased",
        "--format",
        "json",
        "--module-db",
        &overlay,
    ]);
    assert_eq!(at(&with, "modules"), at(&without, "modules"));
}

#[test]
fn an_overlay_changes_nothing_of_models_that_do_not_use_it() {
    let overlay = fixture("seed_transformer_block.json");
    let without = json(&["inspect", "meta-llama/Llama-2-7b-hf", "--format", "json"]);
    let with = json(&[
        "inspect",
        "meta-llama/Llama-2-7b-hf",
        "--format",
        "json",
        "--module-db",
        &overlay,
    ]);
    assert_eq!(at(&with, "totals"), at(&without, "totals"));
    assert_ne!(at(&with, "db.sha256"), at(&without, "db.sha256"));
    assert_eq!(at(&with, "db.overlays.0"), Value::str(&overlay));
}
