//! The program as a user meets it: tables, JSON, CSV and Markdown, gates, and the commands around the database.
//!
//! The numbers of Llama-2-7b (batch 1, 2048 tokens, 16 bits) are derived by hand where they first appear.

mod common;

use bitcost::value::Value;
use common::schema::conforms;
use common::{
    Folder, TIME_LIMIT, at, fixture, int, json, keys, list, parse, program, run, stdout, wait,
};
use std::process::Stdio;

const LLAMA: &str = "meta-llama/Llama-2-7b-hf";

/// One model of each kind: dense, tied, mixture, latent attention, encoder, vision, state space, encoder and decoder.
const KINDS: [&str; 10] = [
    LLAMA,
    "openai-community/gpt2",
    "mistralai/Mixtral-8x7B-v0.1",
    "deepseek-ai/DeepSeek-V3",
    "google-bert/bert-base-uncased",
    "google/vit-base-patch16-224",
    "torchvision/resnet50",
    "state-spaces/mamba-130m-hf",
    "google-t5/t5-base",
    "openai/whisper-tiny",
];

/// `inspect` as JSON.
#[track_caller]
fn inspect(args: &[&str]) -> Value {
    json(&[&["inspect", "--format", "json"], args].concat())
}

/// Claims that a path of the JSON of an `inspect` holds this integer.
#[track_caller]
fn check(args: &[&str], path: &str, expected: i128) {
    assert_eq!(int(&inspect(args), path), expected, "{path} of {args:?}");
}

// ---- numbers --------------------------------------------------------------------------------------------------------

#[test]
fn llama_2_7b_has_6_738_415_616_parameters() {
    // Embedding and head 2 * 32000 * 4096; each of 32 layers 4 * 4096 ** 2 + 3 * 4096 * 11008 + 2 * 4096; last norm 4096.
    check(
        &[LLAMA],
        "totals.params",
        2 * 32_000 * 4096 + 32 * (4 * 4096 * 4096 + 3 * 4096 * 11_008 + 2 * 4096) + 4096,
    );
    check(&[LLAMA], "totals.params", 6_738_415_616);
    check(&[LLAMA], "totals.params_active", 6_738_415_616);
    check(&[LLAMA], "totals.weight_bytes", 2 * 6_738_415_616);
}

#[test]
fn llama_2_7b_multiplies_29_261_612_187_648_flops_with_full_attention() {
    // Products with weights: 2048 * (32 * (4 * 4096 ** 2 + 3 * 4096 * 11008) + 32000 * 4096) = 13,531,294,466,048;
    // scores and their sums: 2 * 32 layers * 32 heads * 128 * 2048 ** 2 = 1,099,511,627,776; two FLOPs per MAC.
    check(
        &[LLAMA, "--count", "matmul"],
        "totals.flops",
        2 * (13_531_294_466_048 + 1_099_511_627_776),
    );
    check(
        &[LLAMA, "--count", "matmul"],
        "totals.flops",
        29_261_612_187_648,
    );
    check(&[LLAMA], "totals.macs", 14_630_806_093_824);
}

#[test]
fn llama_2_7b_multiplies_28_162_637_430_784_flops_with_causal_attention() {
    // 2048 * 2049 / 2 pairs instead of 2048 ** 2.
    let causal = [LLAMA, "--attention", "causal", "--count", "matmul"];
    check(
        &causal,
        "totals.flops",
        2 * (13_531_294_466_048 + 2 * 32 * 32 * 128 * 2048 * 2049 / 2),
    );
    check(&causal, "totals.flops", 28_162_637_430_784);
}

#[test]
fn llama_2_7b_adds_22_405_971_968_elementwise_flops() {
    // Per layer, of 2048 * 4096 = 8,388,608 elements and 32 * 2048 ** 2 = 134,217,728 scores:
    // rotation 3 * 2048 * 64 * 128 = 50,331,648; scaling 134,217,728; softmax 402,653,184; activation and gate 2 * 22,544,384;
    // two residuals 16,777,216; two norms 2 * 3 * 8,388,608 = 50,331,648. That is 699,400,192. Last norm 25,165,824.
    check(
        &[LLAMA],
        "totals.flops",
        29_261_612_187_648 + 32 * 699_400_192 + 25_165_824,
    );
}

#[test]
fn bops_are_macs_times_both_widths() {
    check(&[LLAMA], "totals.bops", 14_630_806_093_824 * 16 * 16);
    // Weights of 4 bits: 13,531,294,466,048 MACs at 4 x 16, the others of activations with the cache at 16 x 16.
    check(
        &[LLAMA, "--weight-bits", "4"],
        "totals.bops",
        13_531_294_466_048 * 64 + 1_099_511_627_776 * 256,
    );
}

#[test]
fn decoding_reads_the_weights_once_and_one_row_of_the_embedding() {
    let decode = [LLAMA, "--phase", "decode", "--past-len", "2047"];
    // (6,738,415,616 - 31,999 * 4096) * 2 bytes.
    check(&decode, "totals.read_bytes.weights", 13_214_695_424);
    // Keys and values of 2048 positions: 2 * 32 layers * 4096 * 2048 * 2 bytes; one position written.
    check(&decode, "totals.read_bytes.kv_cache", 1_073_741_824);
    check(&decode, "totals.write_bytes.kv_cache", 524_288);
    check(&decode, "totals.kv_cache_bytes", 1_073_741_824);
    check(&decode, "totals.kv_cache_bytes_per_token", 524_288);
    check(&decode, "workload.seq_len", 1);
}

#[test]
fn decoding_without_a_past_given_follows_2047_tokens() {
    assert_eq!(
        at(&inspect(&[LLAMA, "--phase", "decode"]), "totals"),
        at(
            &inspect(&[LLAMA, "--phase", "decode", "--past-len", "2047"]),
            "totals"
        )
    );
}

#[test]
fn a_batch_multiplies_the_work_and_not_the_weights() {
    check(&[LLAMA, "-b", "3"], "totals.macs", 3 * 14_630_806_093_824);
    check(&[LLAMA, "-b", "3"], "totals.params", 6_738_415_616);
    check(
        &[LLAMA, "-b", "3"],
        "totals.kv_cache_bytes",
        3 * 1_073_741_824,
    );
    check(
        &[LLAMA, "-b", "3"],
        "totals.kv_cache_bytes_per_token",
        524_288,
    );
}

#[test]
fn the_last_logits_alone_save_the_head() {
    // 2047 positions of 4096 * 32000.
    check(
        &[LLAMA, "--logits", "last"],
        "totals.macs",
        14_630_806_093_824 - 2047 * 4096 * 32_000,
    );
}

#[test]
fn training_runs_three_times_the_forward_macs() {
    // The embedding multiplies nothing, so every product has both gradients: backward = 2 * forward.
    let train = inspect(&[LLAMA, "--phase", "train"]);
    assert_eq!(int(&train, "totals.train.forward_macs"), 14_630_806_093_824);
    assert_eq!(
        int(&train, "totals.train.backward_macs"),
        29_261_612_187_648
    );
    assert_eq!(int(&train, "totals.train.total_macs"), 43_892_418_281_472);
    // Adam keeps two f32 states and a f32 copy of each parameter.
    assert_eq!(
        int(&train, "totals.train.optimizer_bytes"),
        8 * 6_738_415_616
    );
    assert_eq!(int(&train, "totals.train.master_bytes"), 4 * 6_738_415_616);
    assert_eq!(
        int(&train, "totals.train.gradient_bytes"),
        2 * 6_738_415_616
    );
}

#[test]
fn linear_reads_its_weights_and_inputs_once_and_writes_its_outputs_once() {
    let cost = json(&[
        "db",
        "eval",
        "torch.nn.Linear",
        "N=2048",
        "in_features=4096",
        "out_features=4096",
        "bias=False",
        "--format",
        "json",
    ]);
    // 4096 ** 2 * 2 bytes; 2048 * 4096 * 2 bytes in and out; 2048 * 4096 ** 2 MACs.
    assert_eq!(int(&cost, "read_bytes.weights"), 33_554_432);
    assert_eq!(int(&cost, "read_bytes.activations"), 16_777_216);
    assert_eq!(int(&cost, "read_bytes.kv_cache"), 0);
    assert_eq!(int(&cost, "write_bytes.activations"), 16_777_216);
    assert_eq!(int(&cost, "macs"), 34_359_738_368);
    assert_eq!(int(&cost, "flops"), 68_719_476_736);
    assert_eq!(int(&cost, "params"), 16_777_216);
    assert_eq!(int(&cost, "bops"), 34_359_738_368 * 256);
}

// ---- the table ------------------------------------------------------------------------------------------------------

/// The lines of the table itself: between the blank line behind the title and the one behind the rows.
fn body(report: &str) -> Vec<&str> {
    let lines = report.lines().skip_while(|line| !line.is_empty()).skip(1);
    lines.take_while(|line| !line.is_empty()).collect()
}

/// The widest line, in characters.
fn width<'l>(lines: impl IntoIterator<Item = &'l str>) -> usize {
    lines
        .into_iter()
        .map(|line| line.trim_end().chars().count())
        .max()
        .unwrap_or(0)
}

/// Claims that a table fits 100 columns.
#[track_caller]
fn fits(args: &[&str]) {
    let report = stdout(&[&["inspect"], args].concat());
    let lines = body(&report);
    assert!(lines.len() > 3, "{report}");
    assert!(
        width(lines) <= 100,
        "{args:?} is {} columns wide\n{report}",
        width(body(&report))
    );
}

#[test]
fn the_tables_of_llama_fit_100_columns() {
    fits(&[LLAMA]);
    fits(&[LLAMA, "--flops"]);
    fits(&[LLAMA, "--bops"]);
    fits(&[LLAMA, "--memory"]);
    fits(&[LLAMA, "--phase", "decode", "--memory"]);
    fits(&[LLAMA, "--by", "class"]);
    fits(&[LLAMA, "--expand", "--filter", "*.31.*"]);
    fits(&[LLAMA, "--sort", "flops"]);
}

#[test]
fn the_tables_of_every_kind_of_model_fit_100_columns() {
    for model in KINDS {
        for columns in [&[][..], &["--flops"], &["--memory"], &["--bops"]] {
            fits(&[&[model], columns].concat());
        }
    }
}

#[test]
fn long_names_of_modules_fit_100_columns_too() {
    for model in [
        "ai21labs/Jamba-v0.1",
        "openai/gpt-oss-20b",
        "google/gemma-3-1b-pt",
        "facebook/deit-base-distilled-patch16-224",
    ] {
        fits(&[model]);
        fits(&[model, "--memory"]);
    }
}

#[test]
fn all_of_a_report_fits_100_columns() {
    for args in [
        &["inspect", LLAMA][..],
        &["inspect", "openai/whisper-tiny"],
        &["inspect", LLAMA, "-s", "1,2"],
        &["inspect", LLAMA, "google/gemma-2b"],
    ] {
        let report = stdout(args);
        assert!(
            width(report.lines()) <= 100,
            "{args:?} is {} columns wide\n{report}",
            width(report.lines())
        );
    }
}

#[test]
fn equal_layers_are_one_row_with_their_number() {
    let report = stdout(&["inspect", LLAMA]);
    assert!(
        body(&report)
            .iter()
            .any(|line| line.contains("layers.0-31 x32")),
        "{report}"
    );
    assert!(body(&report).len() < 25, "{report}");
}

#[test]
fn the_table_shows_totals_and_the_conventions() {
    let report = stdout(&["inspect", LLAMA]);
    for part in [
        "6,738,415,616",
        "13,476,831,232 bytes (12.55 GiB)",
        "14,630,806,093,824",
        "29,284,018,159,616",
        "29,261,612,187,648",
        "524,288 bytes per token",
        "conventions:",
        "attention full",
    ] {
        assert!(report.contains(part), "`{part}` is missing\n{report}");
    }
}

#[test]
fn the_title_says_what_was_asked() {
    let report = stdout(&[
        "inspect",
        LLAMA,
        "--phase",
        "decode",
        "-b",
        "4",
        "--past-len",
        "100",
    ]);
    let title = report.split("\n\n").next().unwrap();
    for part in [LLAMA, "LlamaForCausalLM", "decode", "4", "100", "16-bit"] {
        assert!(title.contains(part), "`{part}` is missing in {title}");
    }
}

/// The first cell of each row below the headings.
#[track_caller]
fn rows(args: &[&str]) -> Vec<String> {
    let report = stdout(&[&["inspect"], args].concat());
    body(&report)
        .iter()
        .skip(2)
        .map(|line| {
            line.split("  ")
                .map(str::trim)
                .find(|cell| !cell.is_empty())
                .unwrap_or("")
                .to_string()
        })
        .collect()
}

#[test]
fn a_depth_of_1_shows_the_root_and_what_is_right_below_it() {
    assert_eq!(
        rows(&[LLAMA, "--depth", "1"]),
        ["(model)", "model", "lm_head"]
    );
    assert_eq!(rows(&[LLAMA, "--depth", "0"]), ["(model)"]);
}

#[test]
fn a_filter_shows_the_rows_whose_whole_path_matches() {
    assert_eq!(
        rows(&[LLAMA, "--filter", "*.q_proj"]),
        ["model.layers.0-31.self_attn.q_proj x32"]
    );
    assert_eq!(rows(&[LLAMA, "--expand", "--filter", "*.1?.mlp"]).len(), 10);
    assert_eq!(rows(&[LLAMA, "--filter", "lm_head"]), ["lm_head"]);
}

#[test]
fn a_filter_that_matches_nothing_says_so() {
    let ran = run(&["inspect", LLAMA, "--filter", "*.no_such_module"]);
    assert!(
        format!("{}{}", ran.out, ran.err).contains("no_such_module"),
        "{}{}",
        ran.out,
        ran.err
    );
}

#[test]
fn sorting_puts_the_largest_first() {
    let sorted = rows(&[LLAMA, "--sort", "params"]);
    assert_eq!(sorted[..3], ["(model)", "model", "model.layers.0-31 x32"]);
    assert!(
        sorted.iter().position(|r| r.contains("mlp"))
            < sorted.iter().position(|r| r.contains("self_attn"))
    );
}

#[test]
fn columns_are_shown_as_they_are_named() {
    let report = stdout(&["inspect", LLAMA, "--columns", "bops,params"]);
    let heading = body(&report)[0];
    assert!(
        heading.find("BOPs") < heading.find("params") && heading.contains("BOPs"),
        "{heading}"
    );
    assert!(
        !heading.contains("class") && !heading.contains("FLOPs"),
        "{heading}"
    );
}

#[test]
fn modules_that_cost_nothing_are_shown_on_demand() {
    assert!(!rows(&[LLAMA]).iter().any(|row| row.contains("rotary_emb")));
    assert!(
        rows(&[LLAMA, "--all"])
            .iter()
            .any(|row| row.contains("rotary_emb"))
    );
}

#[test]
fn a_share_is_never_more_than_all() {
    for args in [
        &[LLAMA][..],
        &[LLAMA, "--by", "class"],
        &[LLAMA, "--expand", "--sort", "share"],
        &[LLAMA, "--bops"],
    ] {
        let report = stdout(&[&["inspect"], args].concat());
        for share in body(&report).iter().filter_map(|line| {
            line.trim_end()
                .strip_suffix('%')?
                .split_whitespace()
                .last()?
                .parse::<f64>()
                .ok()
        }) {
            assert!(share <= 100.0, "{report}");
        }
    }
}

// ---- JSON -----------------------------------------------------------------------------------------------------------

const METRICS: [&str; 8] = [
    "params",
    "weight_bytes",
    "macs",
    "flops",
    "bops",
    "read_bytes",
    "write_bytes",
    "intermediate_bytes",
];

/// Claims that an object has these keys first, in this order.
#[track_caller]
fn begins(value: &Value, expected: &[&str]) {
    let keys = keys(value);
    assert_eq!(keys[..expected.len().min(keys.len())], *expected);
}

#[test]
fn the_keys_of_inspect_stand_in_the_order_of_the_contract() {
    let analysis = inspect(&[LLAMA]);
    assert_eq!(
        keys(&analysis),
        [
            "schema",
            "tool",
            "db",
            "model",
            "workload",
            "conventions",
            "totals",
            "modules",
            "notes"
        ]
    );
    assert_eq!(at(&analysis, "schema"), Value::str("bitcost.inspect/1"));
    begins(&at(&analysis, "tool"), &["name", "version"]);
    begins(&at(&analysis, "db"), &["sha256", "overlays"]);
    begins(
        &at(&analysis, "model"),
        &["id", "revision", "source", "architecture", "model_type"],
    );
    begins(
        &at(&analysis, "conventions"),
        &[
            "attention",
            "logits",
            "counted",
            "bops",
            "ternary_bits",
            "baseline_bits",
        ],
    );
    begins(&at(&analysis, "totals"), &METRICS);
    begins(
        &at(&analysis, "totals.read_bytes"),
        &["weights", "activations", "kv_cache"],
    );
    begins(
        &at(&analysis, "totals.write_bytes"),
        &["activations", "kv_cache"],
    );
    begins(
        &at(&analysis, "modules.0"),
        &["path", "class", "count", "depth"],
    );
    begins(&at(&analysis, "modules.0.self"), &METRICS);
    for key in [
        "batch",
        "seq_len",
        "past_len",
        "phase",
        "weight_bits",
        "activation_bits",
        "kv_bits",
    ] {
        at(&analysis, &format!("workload.{key}"));
    }
    for key in [
        "params_active",
        "kv_cache_bytes",
        "kv_cache_bytes_per_token",
    ] {
        at(&analysis, &format!("totals.{key}"));
    }
}

#[test]
fn the_keys_of_db_eval_stand_in_the_order_of_the_contract() {
    let cost = json(&[
        "db",
        "eval",
        "torch.nn.Linear",
        "N=1",
        "in_features=2",
        "out_features=3",
        "--format",
        "json",
    ]);
    assert_eq!(
        keys(&cost),
        [
            "schema",
            "module",
            "arguments",
            "params",
            "macs",
            "flops",
            "bops",
            "read_bytes",
            "write_bytes",
            "intermediate_bytes"
        ]
    );
    assert_eq!(at(&cost, "schema"), Value::str("bitcost.db-eval/1"));
    assert_eq!(
        keys(&at(&cost, "arguments")),
        ["N", "in_features", "out_features"]
    );
    assert_eq!(
        keys(&at(&cost, "read_bytes")),
        ["weights", "activations", "kv_cache"],
        "as in inspect"
    );
}

#[test]
fn the_root_comes_first_under_the_empty_path() {
    let analysis = inspect(&[LLAMA]);
    assert_eq!(at(&analysis, "modules.0.path"), Value::str(""));
    assert_eq!(int(&analysis, "modules.0.depth"), 0);
    assert_eq!(
        at(&analysis, "modules.0.class"),
        Value::str("transformers.models.llama.modeling_llama.LlamaForCausalLM")
    );
}

#[test]
fn expanded_paths_are_those_of_torch() {
    let paths: Vec<String> = list(&inspect(&[LLAMA, "--expand"]), "modules")
        .iter()
        .map(|m| at(m, "path").as_str().unwrap().to_string())
        .collect();
    for path in [
        "",
        "model.embed_tokens",
        "model.layers",
        "model.layers.0.self_attn.q_proj",
        "model.layers.31.post_attention_layernorm",
        "model.norm",
        "model.rotary_emb",
        "lm_head",
    ] {
        assert!(paths.iter().any(|p| p == path), "{path}");
    }
    // Root, model, embedding, list, 32 layers of 13 modules, norm, rotary embedding, head.
    assert_eq!(paths.len(), 4 + 32 * 13 + 3);
}

#[test]
fn collapsed_and_expanded_reports_have_the_same_totals() {
    for model in KINDS {
        let (collapsed, expanded) = (inspect(&[model]), inspect(&[model, "--expand"]));
        assert_eq!(at(&collapsed, "totals"), at(&expanded, "totals"), "{model}");
        assert_eq!(at(&collapsed, "notes"), at(&expanded, "notes"), "{model}");
    }
}

/// Sum of `count * self.metric` over all rows.
#[track_caller]
fn sum(analysis: &Value, metric: &str) -> i128 {
    list(analysis, "modules")
        .iter()
        .map(|row| int(row, "count") * int(row, &format!("self.{metric}")))
        .sum()
}

#[test]
fn own_costs_add_up_to_the_totals_collapsed_or_expanded() {
    for model in KINDS {
        for extra in [&[][..], &["--expand"]] {
            let analysis = inspect(&[&[model], extra].concat());
            for metric in [
                "macs",
                "flops",
                "bops",
                "read_bytes.weights",
                "read_bytes.activations",
                "read_bytes.kv_cache",
                "write_bytes.activations",
                "write_bytes.kv_cache",
            ] {
                assert_eq!(
                    sum(&analysis, metric),
                    int(&analysis, &format!("totals.{metric}")),
                    "{metric} of {model} {extra:?}"
                );
            }
        }
    }
}

#[test]
fn own_costs_add_up_in_every_phase() {
    for (model, phase) in [
        (LLAMA, "decode"),
        (LLAMA, "forward"),
        (LLAMA, "train"),
        ("deepseek-ai/DeepSeek-V3", "decode"),
        ("google-t5/t5-base", "decode"),
        ("state-spaces/mamba-130m-hf", "decode"),
        ("openai/whisper-tiny", "decode"),
    ] {
        let analysis = inspect(&[model, "--phase", phase]);
        for metric in ["macs", "flops", "bops"] {
            assert_eq!(
                sum(&analysis, metric),
                int(&analysis, &format!("totals.{metric}")),
                "{metric} of {model} in {phase}"
            );
        }
    }
}

#[test]
fn a_tied_tensor_counts_at_each_owner_and_once_in_all() {
    // GPT-2: 124,439,808 parameters, the embedding of 50257 * 768 is the head too.
    let analysis = inspect(&["openai-community/gpt2"]);
    assert_eq!(int(&analysis, "totals.params"), 124_439_808);
    assert_eq!(sum(&analysis, "params"), 124_439_808 + 50_257 * 768);
}

#[test]
fn the_root_row_is_the_total() {
    for model in KINDS {
        let analysis = inspect(&[model]);
        for metric in METRICS {
            assert_eq!(
                at(&analysis, &format!("modules.0.{metric}")),
                at(&analysis, &format!("totals.{metric}")),
                "{metric} of {model}"
            );
        }
    }
}

#[test]
fn a_mixture_has_active_parameters_and_expected_experts() {
    // Mixtral: 2 of 8 experts of 3 * 4096 * 14336 in each of 32 layers are used.
    let analysis = inspect(&["mistralai/Mixtral-8x7B-v0.1"]);
    assert_eq!(int(&analysis, "totals.params"), 46_702_792_704);
    assert_eq!(
        int(&analysis, "totals.params_active"),
        46_702_792_704 - 32 * 6 * 3 * 4096 * 14_336
    );
}

#[test]
fn integers_are_written_as_integers_however_large() {
    // 405B at 131,072 tokens passes 2 ** 64 bit operations.
    let text = stdout(&[
        "inspect",
        "meta-llama/Llama-3.1-405B",
        "-s",
        "131072",
        "--format",
        "json",
    ]);
    let bops = int(&parse(&text), "totals.bops");
    assert!(bops > i128::from(u64::MAX));
    assert!(text.contains(&format!("\"bops\": {bops},")), "raw digits");
}

#[test]
fn a_sweep_is_bitcost_sweep_1_with_one_point_for_each_pair() {
    let sweep = inspect(&[LLAMA, "-s", "128,2048", "-b", "1,3"]);
    assert_eq!(at(&sweep, "schema"), Value::str("bitcost.sweep/1"));
    assert_eq!(keys(&sweep)[0], "schema");
    for key in ["model", "conventions", "points"] {
        at(&sweep, key);
    }
    let points = list(&sweep, "points");
    let asked: Vec<(i128, i128)> = points
        .iter()
        .map(|p| (int(p, "workload.batch"), int(p, "workload.seq_len")))
        .collect();
    assert_eq!(asked, [(1, 128), (1, 2048), (3, 128), (3, 2048)]);
    assert_eq!(int(&points[1], "totals.macs"), 14_630_806_093_824);
    assert_eq!(int(&points[3], "totals.macs"), 3 * 14_630_806_093_824);
}

#[test]
fn each_point_of_a_sweep_is_what_inspect_says_alone() {
    for model in [
        LLAMA,
        "google-t5/t5-base",
        "google/gemma-2-2b",
        "google-bert/bert-base-uncased",
    ] {
        let points = list(&inspect(&[model, "-s", "16,300"]), "points");
        for (point, s) in points.iter().zip(["16", "300"]) {
            let alone = inspect(&[model, "-s", s]);
            assert_eq!(at(point, "totals"), at(&alone, "totals"), "{model} at {s}");
            assert_eq!(
                at(point, "workload"),
                at(&alone, "workload"),
                "{model} at {s}"
            );
        }
    }
}

#[test]
fn several_models_are_a_list_of_inspections() {
    let both = inspect(&[LLAMA, "openai-community/gpt2"]);
    assert_eq!(at(&both, "schema"), Value::str("bitcost.models/1"));
    let models = list(&both, "models");
    assert_eq!(models.len(), 2);
    assert_eq!(models[0], inspect(&[LLAMA]));
    assert_eq!(models[1], inspect(&["openai-community/gpt2"]));
}

#[test]
fn several_models_are_one_table() {
    let report = stdout(&["inspect", LLAMA, "--model-id", "openai-community/gpt2"]);
    assert!(
        report.contains(LLAMA) && report.contains("openai-community/gpt2"),
        "{report}"
    );
    assert!(
        report.contains("6.74 G") && report.contains("124.4 M"),
        "{report}"
    );
}

// ---- CSV and Markdown -----------------------------------------------------------------------------------------------

fn csv(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split(',').collect()).collect()
}

#[test]
fn csv_has_a_heading_and_equally_long_lines_of_raw_digits() {
    let text = stdout(&[
        "inspect",
        LLAMA,
        "--format",
        "csv",
        "--columns",
        "class,params,macs,share",
    ]);
    let lines = csv(&text);
    assert_eq!(
        lines[0],
        ["path", "count", "class", "params", "macs", "share"]
    );
    assert_eq!(
        lines[1],
        [
            "",
            "1",
            "LlamaForCausalLM",
            "6738415616",
            "14630806093824",
            "1"
        ]
    );
    assert!(lines.iter().all(|line| line.len() == 6), "{text}");
    // A row stands for all its modules: 32 * 4096 * 4096 parameters.
    let q = lines
        .iter()
        .find(|line| line[0].ends_with("q_proj"))
        .unwrap();
    assert_eq!(
        q[..4],
        [
            "model.layers.0-31.self_attn.q_proj",
            "32",
            "Linear",
            "536870912"
        ]
    );
}

#[test]
fn csv_by_class_adds_up_to_the_totals() {
    let text = stdout(&[
        "inspect",
        LLAMA,
        "--by",
        "class",
        "--format",
        "csv",
        "--columns",
        "params,macs,flops,share",
    ]);
    let lines = csv(&text);
    let column = |i: usize| {
        lines
            .iter()
            .skip(1)
            .map(|line| line[i].parse::<u128>().unwrap())
            .sum::<u128>()
    };
    assert_eq!(
        (column(2), column(3), column(4)),
        (6_738_415_616, 14_630_806_093_824, 29_284_018_159_616)
    );
    let linear = lines
        .iter()
        .find(|line| line[0].contains("Linear"))
        .unwrap();
    // 7 in each of 32 layers, and the head.
    assert_eq!((linear[1], linear[3]), ("225", "13531294466048"));
}

#[test]
fn csv_of_a_sweep_has_a_line_for_each_point() {
    // 128 * (6,476,005,376 + 131,072,000) + 2 * 32 * 32 * 128 * 128 ** 2; 128 * 524,288 bytes of cache.
    let lines = stdout(&[
        "inspect",
        LLAMA,
        "-s",
        "128,2048",
        "--format",
        "csv",
        "--columns",
        "macs",
    ]);
    assert_eq!(
        csv(&lines),
        [
            vec!["batch", "seq_len", "macs", "kv_cache_bytes"],
            vec!["1", "128", "850000871424", "67108864"],
            vec!["1", "2048", "14630806093824", "1073741824"]
        ]
    );
}

#[test]
fn csv_of_several_models_has_a_line_for_each() {
    let lines = stdout(&[
        "inspect",
        LLAMA,
        "openai-community/gpt2",
        "--format",
        "csv",
        "--columns",
        "params",
    ]);
    // GPT-2 keeps 2 * 12 layers * 768 elements of 2 bytes per token, or 4 if its config says nothing of a dtype.
    let lines = csv(&lines);
    assert_eq!(lines[0], ["model", "params", "kv_cache_bytes_per_token"]);
    assert_eq!(lines[1], [LLAMA, "6738415616", "524288"]);
    assert_eq!(lines[2][..2], ["openai-community/gpt2", "124439808"]);
}

#[test]
fn csv_quotes_what_has_a_comma() {
    let folder = Folder::new();
    let overlay = folder.write("extra.json", r#"{"my.A": {"children": {"a": "[{my.B}(i // 2 * 2) for i in 4]", "b": "[{my.B}(i % 2) for i in 5]"}}, "my.B": {"parameters": ["k"], "rows": {"work": ["elementwise", "k + 1"]}}}"#);
    let config = folder.write("config.json", r#"{"architectures": ["my.A"]}"#);
    let text = stdout(&[
        "inspect",
        &config,
        "--module-db",
        &overlay,
        "--format",
        "csv",
        "--columns",
        "flops",
    ]);
    // Items 0, 2, 4 are equal, and 1, 3.
    assert!(
        text.contains("\n\"b.{0,2,4}\",3,3\n") && text.contains("\n\"b.{1,3}\",2,4\n"),
        "{text}"
    );
    assert!(
        text.contains("\na.0-1,2,2\n") && text.contains("\na.2-3,2,6\n"),
        "{text}"
    );
}

#[test]
fn markdown_is_a_table_that_markdown_reads() {
    let report = stdout(&["inspect", LLAMA, "--format", "markdown"]);
    let table: Vec<&str> = report
        .lines()
        .filter(|line| line.starts_with('|'))
        .collect();
    let bars = |line: &str| line.matches('|').count();
    assert!(table.len() > 15, "{report}");
    assert!(
        table.iter().all(|line| bars(line) == bars(table[0])),
        "{report}"
    );
    assert!(table[1].chars().all(|c| "|-: ".contains(c)), "{report}");
    assert!(report.lines().all(|line| !line.contains('─')), "{report}");
}

#[test]
fn markdown_of_a_sweep_and_of_several_models_is_a_table_too() {
    for args in [
        &["inspect", LLAMA, "-s", "1,2", "--format", "markdown"][..],
        &["inspect", LLAMA, "google/gemma-2b", "--format", "markdown"],
    ] {
        let report = stdout(args);
        let table: Vec<&str> = report
            .lines()
            .filter(|line| line.starts_with('|'))
            .collect();
        assert_eq!(table.len(), 4, "{report}");
    }
}

// ---- options --------------------------------------------------------------------------------------------------------

#[test]
fn an_explanation_shows_the_formula_and_then_its_numbers() {
    let tree = stdout(&[
        "inspect",
        LLAMA,
        "--explain",
        "model.layers.3.mlp.gate_proj",
    ]);
    let steps = [
        "184,683,593,728 FLOPs",
        "N * in_features * out_features",
        "2048 * 4096 * 11008",
        "92,341,796,864 MACs",
    ];
    let mut from = 0;
    for step in steps {
        from += tree[from..]
            .find(step)
            .unwrap_or_else(|| panic!("`{step}` is missing or stands too early:\n{tree}"));
    }
}

#[test]
fn the_root_is_explained_under_the_empty_path() {
    let tree = stdout(&["inspect", LLAMA, "--explain", ""]);
    assert!(
        tree.contains("29,284,018,159,616 FLOPs") && tree.contains("lm_head"),
        "{tree}"
    );
}

#[test]
fn an_option_that_has_no_effect_is_refused() {
    for args in [
        &["inspect", LLAMA, "google/gemma-2b", "--explain", "model"][..],
        &["inspect", LLAMA, "-s", "1,2", "--explain", "model"],
        &["inspect", LLAMA, "-s", "1,2", "--by", "class"],
        &["inspect", LLAMA, "google/gemma-2b", "--by", "class"],
    ] {
        assert_eq!(run(args).code, Some(2), "{args:?}");
    }
}

#[test]
fn classes_add_up_to_the_totals() {
    for model in KINDS {
        let summed = inspect(&[model, "--by", "class"]);
        assert_eq!(at(&summed, "schema"), Value::str("bitcost.by-class/1"));
        let classes = list(&summed, "classes");
        for metric in ["macs", "flops", "bops", "read_bytes.weights"] {
            let sum: i128 = classes.iter().map(|class| int(class, metric)).sum();
            assert_eq!(
                sum,
                int(&summed, &format!("totals.{metric}")),
                "{metric} of {model}"
            );
        }
        let modules: i128 = classes.iter().map(|class| int(class, "modules")).sum();
        let expanded = list(&inspect(&[model, "--expand"]), "modules").len();
        assert_eq!(modules, expanded as i128, "modules of {model}");
    }
}

#[test]
fn a_file_gets_the_whole_report_and_standard_output_nothing() {
    let folder = Folder::new();
    for format in ["table", "json", "csv", "markdown"] {
        let file = folder.file(&format!("report.{format}"));
        assert_eq!(
            stdout(&["inspect", LLAMA, "--format", format, "-o", &file]),
            ""
        );
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            stdout(&["inspect", LLAMA, "--format", format]),
            "{format}"
        );
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        4,
        "nothing else is left behind"
    );
}

#[test]
fn a_file_is_replaced_as_a_whole() {
    let folder = Folder::new();
    let file = folder.write("report.txt", "x".repeat(1 << 20));
    stdout(&["inspect", LLAMA, "-o", &file]);
    assert!(!std::fs::read_to_string(&file).unwrap().contains("xxx"));
}

#[test]
fn a_failed_run_leaves_the_old_file_as_it_was() {
    let folder = Folder::new();
    let file = folder.write("report.txt", "old");
    assert_eq!(
        run(&["inspect", "nobody/nothing", "-o", &file]).code,
        Some(3)
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
}

#[test]
fn quiet_prints_nothing() {
    assert_eq!(stdout(&["inspect", LLAMA, "--quiet"]), "");
    assert_eq!(stdout(&["inspect", LLAMA, "-q", "-s", "1,2"]), "");
    assert_eq!(stdout(&["inspect", LLAMA, "google/gemma-2b", "-q"]), "");
}

#[test]
fn spellings_with_underscores_mean_the_same() {
    assert_eq!(
        stdout(&[
            "inspect",
            "--model_id",
            LLAMA,
            "--flops",
            "--batch_size",
            "2",
            "--seq_len",
            "100"
        ]),
        stdout(&[
            "inspect",
            "--model-id",
            LLAMA,
            "--flops",
            "--batch-size",
            "2",
            "--seq-len",
            "100"
        ])
    );
    assert_eq!(
        stdout(&["inspect", "--model_id", LLAMA, "-s", "100"]),
        stdout(&["inspect", LLAMA, "-s", "100"])
    );
    assert_eq!(
        stdout(&["inspect", LLAMA, "--phase", "decode", "--past_len", "5"]),
        stdout(&["inspect", LLAMA, "--phase", "decode", "--past-len", "5"])
    );
}

#[test]
fn a_catalog_id_may_be_written_in_any_case() {
    assert_eq!(
        stdout(&["inspect", "META-LLAMA/llama-2-7B-HF"]),
        stdout(&["inspect", LLAMA])
    );
}

#[test]
fn offline_is_how_it_always_works() {
    assert_eq!(
        stdout(&["inspect", LLAMA, "--offline"]),
        stdout(&["inspect", LLAMA])
    );
}

#[test]
fn a_folder_and_its_config_cost_the_same() {
    let folder = Folder::new();
    let config = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 10}"#;
    let file = folder.write("config.json", config);
    let path = folder.path().to_str().unwrap();
    assert_eq!(
        at(&inspect(&[path]), "totals"),
        at(&inspect(&[&file]), "totals")
    );
    assert_eq!(at(&inspect(&[path]), "model.source"), Value::str("local"));
    // 2 * 10 * 64 + 4 * 64 ** 2 + 3 * 64 * 128 + 3 * 64.
    assert_eq!(
        int(&inspect(&[path]), "totals.params"),
        1280 + 16_384 + 24_576 + 192
    );
}

// ---- gates ----------------------------------------------------------------------------------------------------------

/// Claims that a gate holds.
#[track_caller]
fn holds(gate: &str, limit: &str) {
    assert_eq!(stdout(&["inspect", LLAMA, "--quiet", gate, limit]), "");
}

/// Claims that a gate fails, with one line on standard error that says by how much.
#[track_caller]
fn breaks(gate: &str, limit: &str, value: &str) {
    let ran = run(&["inspect", LLAMA, "--quiet", gate, limit]);
    assert_eq!(
        (ran.code, ran.out.as_str(), ran.err.lines().count()),
        (Some(1), "", 1),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains(gate) && ran.err.contains(value) && ran.err.contains(LLAMA),
        "{}",
        ran.err
    );
}

#[test]
fn a_gate_holds_up_to_its_limit_and_not_beyond() {
    holds("--max-params", "6738415616");
    breaks("--max-params", "6738415615", "6,738,415,616");
}

#[test]
fn every_gate_reads_the_units_that_people_write() {
    holds("--max-params", "7e9");
    breaks("--max-params", "6.7G", "6,738,415,616");
    holds("--max-flops", "30T");
    breaks("--max-flops", "29T", "29,284,018,159,616");
    holds("--max-macs", "15T");
    breaks("--max-macs", "14T", "14,630,806,093,824");
    // 14,630,806,093,824 * 256.
    holds("--max-bops", "3.75P");
    breaks("--max-bops", "3.7P", "3,745,486,360,018,944");
    // 12 GiB are 12,884,901,888 bytes, 13 GiB 13,958,643,712.
    holds("--max-weight-bytes", "13GiB");
    breaks("--max-weight-bytes", "12GiB", "13,476,831,232");
    holds("--max-kv-bytes-per-token", "512KiB");
    breaks("--max-kv-bytes-per-token", "128KiB", "524,288");
    holds("--max-kv-cache-bytes", "1GiB");
    breaks("--max-kv-cache-bytes", "1GB", "1,073,741,824");
}

#[test]
fn each_failed_gate_has_its_own_line_and_the_report_is_printed_all_the_same() {
    let ran = run(&[
        "inspect",
        LLAMA,
        "--max-params",
        "1",
        "--max-flops",
        "1",
        "--max-macs",
        "15T",
    ]);
    assert_eq!(
        (ran.code, ran.err.lines().count()),
        (Some(1), 2),
        "{}",
        ran.err
    );
    assert_eq!(ran.out, stdout(&["inspect", LLAMA]));
}

#[test]
fn a_gate_holds_for_each_model_and_each_point() {
    let ran = run(&[
        "inspect",
        LLAMA,
        "openai-community/gpt2",
        "-q",
        "--max-params",
        "1G",
    ]);
    assert_eq!(
        (ran.code, ran.err.lines().count()),
        (Some(1), 1),
        "{}",
        ran.err
    );
    let ran = run(&[
        "inspect",
        LLAMA,
        "-q",
        "-s",
        "128,2048,4096",
        "--max-flops",
        "2T",
    ]);
    assert_eq!(
        (ran.code, ran.err.lines().count()),
        (Some(1), 2),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains("2048") && ran.err.contains("4096"),
        "{}",
        ran.err
    );
}

// ---- the rest -------------------------------------------------------------------------------------------------------

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    for args in [
        &["inspect", LLAMA, "--expand", "--all", "--format", "json"][..],
        &["inspect", LLAMA],
        &["catalog"],
        &["db", "list"],
        &["db", "language"],
        &["man"],
        &["completions", "bash"],
        &["schema", "inspect"],
        &["--help"],
        &["inspect", "--help"],
    ] {
        let mut command = program(args);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command.stdout(writer).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        drop(command);
        let ended = child.wait_with_output().unwrap();
        assert_eq!(
            (
                ended.status.code(),
                String::from_utf8_lossy(&ended.stderr).as_ref()
            ),
            (Some(0), ""),
            "{args:?}"
        );
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for args in [
        &["inspect", "deepseek-ai/DeepSeek-V3"][..],
        &["inspect", LLAMA, "--expand", "--format", "json"],
        &["inspect", LLAMA, "-s", "1,2", "--format", "csv"],
        &["db", "list"],
        &["db", "show", "LlamaAttention"],
        &["db", "deps", "torch.nn.Linear"],
        &["catalog", "--format", "json"],
    ] {
        assert_eq!(run(args), run(args), "{args:?}");
    }
}

#[test]
fn a_pipe_gets_no_colour() {
    for args in [
        &["inspect", LLAMA][..],
        &["inspect", "nobody/nothing"],
        &["inspect", LLAMA, "-s", "0"],
        &["--help"],
        &["inspect", LLAMA, "--max-params", "1"],
    ] {
        for no_color in [false, true] {
            let mut command = program(args);
            command.env("TERM", "xterm-256color");
            if no_color {
                command.env("NO_COLOR", "1");
            }
            let ran = wait(command, TIME_LIMIT);
            assert!(
                !ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'),
                "{args:?}\n{}{}",
                ran.out,
                ran.err
            );
        }
    }
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let help = stdout(&["--help"]);
    for part in [
        "inspect",
        "db",
        "catalog",
        "schema",
        "completions",
        "man",
        "Exit codes",
    ] {
        assert!(help.contains(part), "{part}");
    }
    for command in [
        &["inspect", "--help"][..],
        &["db", "--help"],
        &["db", "eval", "--help"],
        &["catalog", "--help"],
    ] {
        assert!(width(stdout(command).lines()) <= 100, "{command:?}");
    }
}

#[test]
fn inspections_conform_to_their_schema() {
    for model in KINDS {
        conforms("inspect", &["inspect", model, "--format", "json"]);
    }
    conforms(
        "inspect",
        &[
            "inspect", LLAMA, "--phase", "train", "--expand", "--format", "json",
        ],
    );
    conforms(
        "inspect",
        &[
            "inspect",
            "google-t5/t5-base",
            "--phase",
            "decode",
            "--format",
            "json",
        ],
    );
    let folder = Folder::new();
    let config = folder.write(
        "config.json",
        r#"{"architectures": ["NobodysForCausalLM"]}"#,
    );
    conforms("inspect", &["inspect", &config, "--format", "json"]);
}

#[test]
fn sweeps_and_evaluations_conform_to_their_schemas() {
    conforms(
        "sweep",
        &["inspect", LLAMA, "-s", "1,2", "--format", "json"],
    );
    conforms(
        "sweep",
        &[
            "inspect", LLAMA, "-s", "1,2", "--phase", "train", "--format", "json",
        ],
    );
    conforms(
        "sweep",
        &[
            "inspect",
            "google-t5/t5-base",
            "-b",
            "1,2",
            "--format",
            "json",
        ],
    );
    conforms(
        "db-eval",
        &[
            "db",
            "eval",
            "torch.nn.Linear",
            "N=1",
            "in_features=2",
            "out_features=3",
            "--format",
            "json",
        ],
    );
    let overlay = common::fixture("seed_transformer_block.json");
    conforms(
        "db-eval",
        &[
            "db",
            "eval",
            "SeedLayerNorm",
            "batch_elements=2",
            "hidden_size=3",
            "--module-db",
            &overlay,
            "--format",
            "json",
        ],
    );
}

#[test]
fn deployed_models_conform_to_their_schema() {
    let folder = Folder::new();
    let source = common::fixture("deploy/f32");
    let packed = folder.file("packed");
    conforms(
        "deploy",
        &["deploy", &source, "-o", &packed, "--format", "json"],
    );
    // A file alone, which has no config and keeps some layers.
    let file = common::fixture("deploy/bf16/model.safetensors");
    let packed = folder.file("packed.safetensors");
    conforms(
        "deploy",
        &[
            "deploy", &file, "-o", &packed, "--layers", "*.q_proj", "--format", "json",
        ],
    );
}

#[test]
fn several_models_conform_to_their_schema() {
    conforms(
        "models",
        &["inspect", LLAMA, "google-t5/t5-base", "--format", "json"],
    );
}

#[test]
fn sums_by_class_conform_to_their_schema() {
    for model in [LLAMA, "mistralai/Mixtral-8x7B-v0.1", "google-t5/t5-base"] {
        conforms(
            "by-class",
            &["inspect", model, "--by", "class", "--format", "json"],
        );
    }
}

#[test]
fn comparisons_and_statistics_conform_to_their_schemas() {
    let model = |case: &str| fixture(&format!("compare/{case}/model.safetensors"));
    let (dense, half) = (
        model("toy_single_conv_dense"),
        model("toy_single_conv_half_sparse"),
    );
    conforms("compare", &["compare", &dense, &half, "--format", "json"]);
    let (dense, zeroed) = (
        model("resnet20_dense"),
        model("resnet20_zero_layer2.0.conv2"),
    );
    for bops in ["live-nnz", "uniq"] {
        conforms(
            "compare",
            &[
                "compare", &dense, &zeroed, "--bops", bops, "--format", "json",
            ],
        );
    }
    for model in [dense, model("toy_special_values_f32")] {
        conforms("stats", &["stats", &model]);
    }
    for format in ["bnb_nf4", "codeq", "awq_gemm"] {
        conforms("stats", &["stats", &fixture(&format!("packed/{format}"))]);
    }
}

#[test]
fn estimates_conform_to_their_schemas() {
    let chain =
        "embedding(rows=9, features=8); mlp(hiddens=[4]); lstm(hidden=4); transformer(heads=2)";
    let estimate = ["estimate", "--input", "5", chain, "--format", "json"];
    conforms("estimate", &estimate);
    let uneven = ["--precision", "SB_0.3", "--bops", "psqs"];
    conforms("estimate", &[&estimate[..], &uneven].concat());
    let several = ["--compare-precision", "dense,quantize_4_8,ternary,SB_0.3"];
    conforms("estimate-precisions", &[&estimate[..], &several].concat());
}

#[test]
fn a_schema_may_be_called_as_the_output_calls_itself() {
    assert_eq!(
        stdout(&["schema", "bitcost.inspect/1"]),
        stdout(&["schema", "inspect"])
    );
}

#[test]
fn completions_and_the_manual_page_are_what_shells_and_man_read() {
    let script = stdout(&["completions", "bash"]);
    assert!(
        script.contains("_bitcost()") && script.contains("--seq-len"),
        "{script}"
    );
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(
            stdout(&["completions", shell]).contains("bitcost"),
            "{shell}"
        );
    }
    let page = stdout(&["man"]);
    assert!(
        page.contains(".TH bitcost 1") && page.contains(".SH NAME"),
        "{page}"
    );
    assert!(stdout(&["man", "inspect"]).contains("seq\\-len"));
}

#[test]
fn the_catalog_lists_what_contains_the_text_in_any_case() {
    let list = stdout(&["catalog", "LLAMA-2"]);
    assert!(
        list.contains(LLAMA) && list.contains("6,738,415,616"),
        "{list}"
    );
    assert!(!list.contains("gpt2"), "{list}");
    let Value::List(models) = json(&["catalog", "--format", "json"]) else {
        panic!("not a list")
    };
    assert!(models.len() >= 80, "{}", models.len());
}

#[test]
fn db_list_shows_derived_entries_too() {
    let all = stdout(&["db", "list"]);
    assert!(
        all.contains("torch.nn.Linear")
            && all.contains("transformers.models.qwen3.modeling_qwen3.Qwen3MLP"),
        "{all}"
    );
    assert!(!stdout(&["db", "list", "--written"]).contains("modeling_granite.GraniteMLP"));
    let llama = stdout(&["db", "list", "transformers.models.llama.*"]);
    assert!(
        llama.contains("LlamaAttention") && !llama.contains("torch.nn.Linear"),
        "{llama}"
    );
}

#[test]
fn db_show_prints_the_merged_entry_as_json() {
    let entry = parse(&stdout(&["db", "show", "LlamaAttention"]));
    let key = "transformers__models__llama__modeling_llama__LlamaAttention";
    assert_eq!(keys(&entry), [key]);
    assert_eq!(
        at(&entry, &format!("{key}.module_path")),
        Value::str("transformers.models.llama.modeling_llama.LlamaAttention")
    );
    // Qwen3's attention is Llama's with two norms more; what it inherits is shown with it.
    let entry = stdout(&["db", "show", "Qwen3Attention"]);
    assert!(
        entry.contains("q_norm") && entry.contains("o_proj"),
        "{entry}"
    );
}

#[test]
fn what_db_show_prints_is_an_overlay_that_changes_nothing() {
    let folder = Folder::new();
    for class in [
        "torch.nn.Linear",
        "transformers.models.llama.modeling_llama.LlamaAttention",
        "transformers.models.llama.modeling_llama.LlamaForCausalLM",
    ] {
        let overlay = folder.write("extra.json", stdout(&["db", "show", class]));
        assert_eq!(
            stdout(&["inspect", LLAMA, "--module-db", &overlay]),
            stdout(&["inspect", LLAMA]),
            "{class}"
        );
    }
}

#[test]
fn db_explain_substitutes_every_number() {
    let tree = stdout(&[
        "db",
        "explain",
        "LlamaMLP",
        "B=1",
        "S=2048",
        "hidden_size=4096",
        "intermediate_size=11008",
        "mlp_bias=False",
        "hidden_act=silu",
    ]);
    // 3 * 184,683,593,728 + 2 * 22,544,384.
    for part in [
        "554,095,869,952 FLOPs",
        "gate_proj",
        "N * in_features * out_features",
        "2048 * 4096 * 11008",
        "92,341,796,864 MACs",
        "22,544,384",
    ] {
        assert!(tree.contains(part), "`{part}` is missing\n{tree}");
    }
}

#[test]
fn db_deps_names_both_directions() {
    let deps = stdout(&["db", "deps", "LlamaMLP"]);
    let (uses, users) = deps.split_once("used by").unwrap();
    assert!(
        uses.contains("torch.nn.Linear") && uses.contains("gate_proj"),
        "{deps}"
    );
    assert!(users.contains("LlamaDecoderLayer"), "{deps}");
}

#[test]
fn db_language_lists_functions_primitives_and_keys() {
    let language = stdout(&["db", "language"]);
    for part in [
        "ceil_div(a, b)",
        "pairs(S, past",
        "conv2d(x, weight",
        "module_path",
        "flop_analysis",
    ] {
        assert!(language.contains(part), "`{part}` is missing\n{language}");
    }
}

#[test]
fn the_embedded_database_has_no_findings() {
    let ran = run(&["db", "check"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", ran.out);
}

#[test]
fn an_overlay_adds_a_model_without_recompiling() {
    // A class that nobody has: two layers of one product each, 2 * 8 * 16 * 16 MACs at 8 tokens.
    let folder = Folder::new();
    let overlay = folder.write("extra.json", r#"{
        "my.models.Layer": {"children": {"proj": "{Linear}(N, width, width, bias=False)"}},
        "my.models.MyForCausalLM": {"task": "causal", "config": {"width": 4, "depth": 1}, "children": {"layers": "[{Layer}() for i in depth]"}}
    }"#);
    let config = folder.write(
        "config.json",
        r#"{"architectures": ["MyForCausalLM"], "width": 16, "depth": 2}"#,
    );
    let analysis = inspect(&[&config, "--module-db", &overlay, "-s", "8", "--strict"]);
    assert_eq!(int(&analysis, "totals.params"), 2 * 16 * 16);
    assert_eq!(int(&analysis, "totals.macs"), 2 * 8 * 16 * 16);
}
