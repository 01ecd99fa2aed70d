//! The formula language through its public door: [`Formula::parse`] and [`eval`].
//!
//! Each test is a claim about the language; the expected values are Python's (with exact division), or counted one by
//! one by a loop that stands here. Column numbers count from 1.

use bitcost::formula::{
    Budget, EvalErrorKind, Formula, MAX_DEPTH, MAX_HEIGHT, MAX_ITEMS, MAX_LENGTH, MAX_STEPS,
    ModuleCall, Names, did_you_mean, eval,
};
use bitcost::json;
use bitcost::value::{Name, Value};
use proptest::prelude::*;
use proptest::test_runner::Config as Runs;

/// Names with values, and nothing behind them.
struct Given(Vec<(&'static str, Value)>);

impl Names for Given {
    fn name(&mut self, name: Name, _: &mut Budget) -> Result<Value, EvalErrorKind> {
        let found = self.0.iter().find(|(known, _)| *known == name.as_str());
        found.map(|(_, value)| value.clone()).ok_or_else(|| {
            let hint = did_you_mean(name.as_str(), self.0.iter().map(|(known, _)| *known));
            EvalErrorKind::UnknownName {
                name: name.to_string(),
                hint,
            }
        })
    }

    fn module(&mut self, call: &ModuleCall, budget: &mut Budget) -> Result<Value, EvalErrorKind> {
        // A module here costs the sum of its arguments, so that a test can see which arguments arrived.
        let arguments = call
            .positional
            .iter()
            .chain(call.named.iter().map(|(_, e)| e));
        let mut total = Value::Int(0);
        for argument in arguments {
            let value = eval(argument, self, budget).map_err(|e| e.kind)?;
            total = Value::add(&total, &value)?;
        }
        Ok(total)
    }

    fn known(&self) -> Vec<Name> {
        self.0.iter().map(|(name, _)| Name::new(name)).collect()
    }
}

fn given() -> Given {
    let config = r#"{"hidden_size": 64, "rope": {"factor": 1.5}, "name": null, "id2label": {"0": "a", "1": "b"}}"#;
    Given(vec![
        ("n", Value::Int(7)),
        ("hidden_size", Value::Int(4096)),
        (
            "layer_types",
            json::read(r#"["full", "sliding", "full"]"#).unwrap(),
        ),
        ("table", json::read("[[1, 16, 2], [6, 24, 3]]").unwrap()),
        ("config", json::read(config).unwrap()),
        ("limit", json::read("Infinity").unwrap()),
        ("causal", Value::Bool(false)),
        ("last_logits", Value::Bool(false)),
    ])
}

fn causal(text: &str) -> String {
    let mut names = given();
    names.0.retain(|(name, _)| *name != "causal");
    names.0.push(("causal", Value::Bool(true)));
    value_among(text, &mut names)
}

fn value_among(text: &str, names: &mut Given) -> String {
    let formula = match Formula::parse(text) {
        Ok(formula) => formula,
        Err(e) => return format!("column {}: {e}", e.at + 1),
    };
    match eval(&formula.expr, names, &mut Budget::default()) {
        Ok(value) => value.to_string(),
        Err(e) => format!("column {}: {e}", e.at + 1),
    }
}

/// The value of a formula as it prints, or the error with its column.
fn value(text: &str) -> String {
    value_among(text, &mut given())
}

/// Claims that a formula has a value.
#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(value(text), expected, "{text}");
}

/// Claims that a formula has none, at which column, and what the message says.
#[track_caller]
fn fails(text: &str, column: usize, message: &str) {
    let got = value(text);
    let prefix = format!("column {column}: ");
    assert!(
        got.starts_with(&prefix) && got.contains(message),
        "{text}\n  expected {prefix}..{message}..\n  got      {got}"
    );
}

/// Claims that a formula is printed in this canonical form, and that the form prints as itself.
#[track_caller]
fn prints(text: &str, expected: &str) {
    let once = Formula::parse(text).expect(text).expr.to_string();
    assert_eq!(once, expected);
    let twice = Formula::parse(&once)
        .map(|f| f.expr.to_string())
        .map_err(|e| e.to_string());
    assert_eq!(
        twice.as_deref(),
        Ok(expected),
        "printed, parsed and printed again"
    );
}

// ---- grammar and precedence -----------------------------------------------------------------------------------------

#[test]
fn products_bind_tighter_than_sums() {
    check("2 + 3 * 4 - 10 // 3 * 2", "8");
}

#[test]
fn operators_of_one_strength_group_to_the_left() {
    check("100 - 10 - 5", "85");
    check("100 / 10 / 5", "2");
    check("7 // 2 * 2", "6");
    check("2 * 7 % 4", "2");
}

#[test]
fn powers_group_to_the_right_and_bind_tighter_than_a_sign_before_them() {
    check("2 ** 3 ** 2", "512");
    check("-2 ** 2", "-4");
    check("(-2) ** 2", "4");
    check("2 * 3 ** 2", "18");
}

#[test]
fn signs_can_be_repeated() {
    check("- - 3", "3");
    check("2 - -3", "5");
}

#[test]
fn not_binds_weaker_than_a_comparison_and_stronger_than_and() {
    check("not 1 == 2", "True");
    check("not 0 and 0", "0");
    check("not not 5", "True");
}

#[test]
fn and_binds_stronger_than_or() {
    check("1 or 0 and 0", "1");
    check("(1 or 0) and 0", "0");
}

#[test]
fn a_condition_is_the_weakest_of_all_and_groups_to_the_right() {
    check("1 + 1 if 0 else 2 + 2", "4");
    check("1 if 0 else 2 if 0 else 3", "3");
    check("1 if 1 or 0 else 2", "1");
}

#[test]
fn a_name_and_its_dollar_form_are_the_same() {
    check("${hidden_size} - hidden_size", "0");
}

#[test]
fn a_module_call_gets_its_arguments_by_position_and_by_name() {
    check("2 * {torch.nn.Linear}(n, 1, bias=n + 2)", "34");
    check("{torch__nn__Linear}()", "0");
}

#[test]
fn underscores_may_stand_in_numbers() {
    check("1_000_000 + 1", "1000001");
}

#[test]
fn white_space_and_line_breaks_mean_nothing() {
    check(" 1\n + \t 2 ", "3");
}

// ---- numbers --------------------------------------------------------------------------------------------------------

#[test]
fn floor_division_and_remainder_follow_python_for_every_sign() {
    // Python: -7 // 2 = -4, 7 // -2 = -4, -7 // -2 = 3; the remainder has the sign of the divisor.
    check("[7 // 2, -7 // 2, 7 // -2, (-7) // (-2)]", "[3, -4, -4, 3]");
    check("[7 % 3, (-7) % 3, 7 % -3, (-7) % (-3)]", "[1, 2, -2, -1]");
    check("[6 % 3, (-6) % 3, 0 % 5]", "[0, 0, 0]");
}

#[test]
fn a_remainder_of_a_fraction_is_exact() {
    // 7/2 = 2 * 3/2 + 1/2.
    check("3.5 % 1.5", "1/2");
    check("(-3.5) % 1.5", "1");
}

#[test]
fn division_is_exact() {
    check("1 / 3 + 1 / 6", "1/2");
    check("10 / 5", "2");
    check("-1 / 3", "-1/3");
    check("1 / -3", "-1/3");
}

#[test]
fn decimals_are_ratios_and_not_floats() {
    check("0.1 + 0.2 == 0.3", "True");
    check("0.35 * 20", "7");
    check("1e3", "1000");
    check("2.5e-1", "1/4");
}

#[test]
fn truth_values_count_as_one_and_zero() {
    check("True + True", "2");
    check("(3 > 2) * 5", "5");
    check("True == 1", "True");
}

#[test]
fn numbers_are_equal_by_value_whatever_they_are_made_of() {
    check("4 / 2 == 2", "True");
    check("0.5 == 1 / 2", "True");
    // expected_distinct is a float even where all 8 experts are chosen; Python's 8.0 == 8 is true.
    check("expected_distinct(8, 8, 1) == 8", "True");
    check("expected_distinct(8, 8, 1) in [8]", "True");
}

#[test]
fn the_largest_integer_is_kept_and_the_next_one_refused() {
    // 2 ** 127 - 1 is the largest of 128 signed bits.
    check(
        "2 ** 126 - 1 + 2 ** 126",
        "170141183460469231731687303715884105727",
    );
    fails("2 ** 126 + 2 ** 126", 1, "does not fit 128 bits");
    fails("2 * (2 ** 126 - 1 + 2 ** 126)", 1, "does not fit 128 bits");
}

#[test]
fn a_power_that_does_not_fit_is_named() {
    fails("10 ** 40", 1, "the result of `**` does not fit 128 bits");
}

#[test]
fn a_literal_that_does_not_fit_is_refused() {
    // 10 ** 40 has 41 digits; 2 ** 127 has 39.
    fails(
        "1 + 10000000000000000000000000000000000000000",
        5,
        "1000000000000000000000000000000000000",
    );
    fails("1e400", 1, "1e400");
}

#[test]
fn a_literal_that_does_not_fit_is_not_called_no_number() {
    // It is a number; what is wrong is its size.
    let message = value("10000000000000000000000000000000000000000");
    assert!(!message.contains("is not a number"), "{message}");
}

#[test]
fn nothing_at_the_edge_of_128_bits_panics() {
    let most = "(2 ** 126 - 1 + 2 ** 126)";
    let least = "(-2 ** 126 - 2 ** 126)";
    for text in [
        format!("-{least}"),
        format!("abs({least})"),
        format!("int({least})"),
        format!("{least} // -1"),
        format!("{least} % -1"),
        format!("{least} / {least}"),
        format!("{least} % 3"),
        format!("{most} + 1 / 2"),
        format!("floor({most} / 2)"),
        format!("ceil({least} / 3)"),
        format!("ceil_div({most}, 2)"),
        format!("make_divisible({most})"),
        format!("make_divisible({most}, {most})"),
        format!("make_divisible({least}, {most})"),
        format!("conv_out({most}, 1, 1, 0)"),
        format!("conv_out({most}, {most}, {most}, {most}, {most})"),
        format!("conv_out({least}, 1, 1, 0)"),
        format!("pairs({most}, 0)"),
        format!("pairs({most}, {most})"),
        format!("pairs({most}, {most}, {most})"),
        format!("pairs(1, {most}, 1)"),
        format!("log2({most})"),
        format!("expected_distinct({most}, {most}, {most})"),
        format!("sum([{most}, {most}])"),
        format!("prod([{most}, {most}])"),
        format!("[1][{most}]"),
        format!("[1][{least}]"),
        format!("{most} < 1 / {most}"),
        format!("{most} ** 1000"),
        format!("[0 for i in {most}]"),
        format!("[0 for i in {least}]"),
    ] {
        value(&text);
        causal(&text);
    }
}

#[test]
fn pairs_of_more_queries_than_fit_are_refused_and_do_not_wrap() {
    // S (S + 1) / 2 with S = 2 ** 127 - 1.
    let got = causal("pairs(2 ** 126 - 1 + 2 ** 126, 0)");
    assert!(got.contains("does not fit 128 bits"), "{got}");
}

// ---- logic ----------------------------------------------------------------------------------------------------------

#[test]
fn and_and_or_give_the_operand_that_decided() {
    check("[0 or 5, 3 or 5, 0 and 5, 3 and 5]", "[5, 3, 0, 5]");
    check("None or 'a'", "'a'");
}

#[test]
fn the_side_that_is_not_needed_is_not_evaluated() {
    check("False and 1 // 0", "False");
    check("1 or 1 // 0", "1");
    check("1 if True else 1 // 0", "1");
    check("1 // 0 if False else 2", "2");
    check("layer_types is None or layer_types[1] == 'sliding'", "True");
}

#[test]
fn empty_things_are_false() {
    check(
        "[not None, not 0, not '', not [], not 0.0]",
        "[True, True, True, True, True]",
    );
    check(
        "[not 1, not 'a', not [0], not 0.5, not config]",
        "[False, False, False, False, False]",
    );
}

#[test]
fn comparisons_are_of_values() {
    check(
        "[1 < 2, 2 <= 2, 3 > 4, 4 >= 4, 1 != 2, 1 == 2]",
        "[True, True, False, True, True, False]",
    );
    check("[1 / 3 < 0.34, 0.5 >= 1 / 2]", "[True, True]");
    check(
        "['a' < 'b', 'a' == 'a', 'a' == 1, None == 0]",
        "[True, True, False, False]",
    );
}

#[test]
fn is_asks_for_none() {
    check(
        "[None is None, 0 is None, config.name is not None]",
        "[True, False, False]",
    );
}

#[test]
fn in_looks_into_lists_strings_and_objects() {
    check(
        "[2 in [1, 2], 3 in [1, 2], 3 not in [1, 2]]",
        "[True, False, True]",
    );
    check("['c2p' in 'p2c|c2p', 'x' in 'abc']", "[True, False]");
    check(
        "['id2label' in config, 'nothing' in config]",
        "[True, False]",
    );
}

// ---- lists, objects, comprehensions ---------------------------------------------------------------------------------

#[test]
fn a_negative_index_counts_from_the_end() {
    check(
        "[layer_types[0], layer_types[-1], layer_types[-3]]",
        "['full', 'full', 'full']",
    );
    check("[5, 6, 7][-2]", "6");
}

#[test]
fn lists_are_joined_by_plus() {
    check("[1] + [2, 3] + []", "[1, 2, 3]");
}

#[test]
fn a_list_may_end_in_a_comma() {
    check("[1, 2,]", "[1, 2]");
}

#[test]
fn a_key_is_read_by_a_dot_or_by_its_string() {
    check(
        "[config.hidden_size, config['hidden_size'], config.rope.factor]",
        "[64, 64, 3/2]",
    );
    check("config.name", "None");
    check("len(config.id2label)", "2");
}

#[test]
fn a_for_runs_over_a_number_or_a_list() {
    check("[i * i for i in 4]", "[0, 1, 4, 9]");
    check("[t for t in layer_types]", "['full', 'sliding', 'full']");
    check("[i for i in 0]", "[]");
}

#[test]
fn a_for_takes_rows_apart() {
    // 1 * 16 + 2 = 18, 6 * 24 + 3 = 147.
    check("[t * c + s for t, c, s in table]", "[18, 147]");
    check("[a for a, b in [[1, 2], [3, 4]]]", "[1, 3]");
}

#[test]
fn loops_nest_and_the_inner_variable_hides_the_outer_name() {
    check("[[i * j for j in 3] for i in 2]", "[[0, 0, 0], [0, 1, 2]]");
    check("[n for n in 3] + [n]", "[0, 1, 2, 7]");
    check("sum([sum([j for j in i]) for i in 5])", "10");
}

#[test]
fn a_loop_sees_the_names_around_it() {
    check("[i + n for i in 2]", "[7, 8]");
}

// ---- functions ------------------------------------------------------------------------------------------------------

#[test]
fn rounding_goes_where_the_name_says() {
    check(
        "[floor(7 / 2), floor(-7 / 2), ceil(7 / 2), ceil(-7 / 2)]",
        "[3, -4, 4, -3]",
    );
    check(
        "[int(7 / 2), int(-7 / 2), int(5), int(True)]",
        "[3, -3, 5, 1]",
    );
    check("[floor(4), ceil(4)]", "[4, 4]");
}

#[test]
fn ceil_div_rounds_a_quotient_up() {
    check(
        "[ceil_div(7, 2), ceil_div(8, 2), ceil_div(-7, 2), ceil_div(1, 1000), ceil_div(0, 3)]",
        "[4, 4, -3, 1, 0]",
    );
    check("ceil_div(1.5, 0.5)", "3");
}

#[test]
fn abs_drops_the_sign() {
    check("[abs(-3), abs(3), abs(-1 / 2)]", "[3, 3, 1/2]");
}

#[test]
fn len_counts_items_characters_and_keys() {
    check(
        "[len([1, 2]), len('abc'), len(config), len('é')]",
        "[2, 3, 4, 1]",
    );
}

#[test]
fn log2_of_a_power_of_two_is_an_integer() {
    check("[log2(1), log2(1024), log2(2 ** 126)]", "[0, 10, 126]");
    // log2(3) = 1.58496250072115..
    check("floor(log2(3) * 1000000)", "1584962");
}

#[test]
fn max_and_min_take_a_list_or_several_values() {
    check(
        "[max(1, 3, 2), max([1, 3, 2]), min(1 / 2, 0.4), min([5])]",
        "[3, 3, 2/5, 5]",
    );
}

#[test]
fn sums_and_products_of_nothing_are_zero_and_one() {
    check(
        "[sum([]), prod([]), sum([1, 1 / 2]), prod([2, 3, 4])]",
        "[0, 1, 3/2, 24]",
    );
}

#[test]
fn split_cuts_a_string() {
    check("split('p2c|c2p', '|')", "['p2c', 'c2p']");
    check("split('', '|')", "['']");
    check("flat([[1, 'M'], [], [[2]]])", "[1, 'M', [2]]");
    check("flat([])", "[]");
}

#[test]
fn logits_are_one_position_under_last_logits() {
    check("logits(2048)", "2048");
    let mut names = Given(vec![("last_logits", Value::Bool(true))]);
    assert_eq!(value_among("logits(2048)", &mut names), "1");
}

#[test]
fn expected_distinct_of_256_experts_with_8_of_them_for_each_of_32_tokens_is_163() {
    // 256 * (1 - (31/32) ** 32); ln(31/32) = -0.03174870, times 32 = -1.0159583, exp = 0.3620550; 256 * 0.6379450 = 163.31.
    check("floor(expected_distinct(256, 8, 32) * 10)", "1633");
    check("floor(expected_distinct(8, 2, 1))", "2");
    check("expected_distinct(8, 2, 0)", "0");
}

/// Output positions of a convolution, counted by sliding the kernel.
fn slide(size: i64, kernel: i64, stride: i64, padding: i64, dilation: i64) -> Option<i64> {
    let last = size + 2 * padding - 1;
    let reach = dilation * (kernel - 1);
    let starts = (0..)
        .step_by(stride as usize)
        .take_while(|start| start + reach <= last);
    match starts.count() as i64 {
        0 => None,
        n => Some(n),
    }
}

#[test]
fn conv_out_counts_the_places_a_kernel_fits() {
    for size in 1..10 {
        for kernel in 1..5 {
            for stride in 1..4 {
                for padding in 0..3 {
                    for dilation in 1..3 {
                        let text =
                            format!("conv_out({size}, {kernel}, {stride}, {padding}, {dilation})");
                        match slide(size, kernel, stride, padding, dilation) {
                            Some(n) => check(&text, &n.to_string()),
                            None => fails(&text, 1, "smaller than the kernel"),
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn conv_out_gives_the_published_sizes() {
    // ResNet's stem 224 -> 112 and its pooling 112 -> 56; Whisper's second convolution 3000 -> 1500.
    check(
        "[conv_out(224, 7, 2, 3), conv_out(112, 3, 2, 1), conv_out(3000, 3, 2, 1)]",
        "[112, 56, 1500]",
    );
}

/// `_make_divisible` of torchvision in tenths of integers: `int(v + d / 2) // d * d`, at least d, one d more if that is
/// below 0.9 v. `v` counts halves, so that everything stays an integer.
fn divisible(v_halves: i64, d: i64) -> i64 {
    let rounded = (v_halves + d).div_euclid(2).div_euclid(d) * d;
    let width = rounded.max(d);
    if 20 * width < 9 * v_halves {
        width + d
    } else {
        width
    }
}

#[test]
fn make_divisible_is_torchvisions() {
    for halves in 1..400 {
        for d in [1, 2, 4, 7, 8, 16] {
            check(
                &format!("make_divisible({halves} / 2, {d})"),
                &divisible(halves, d).to_string(),
            );
        }
    }
    // MobileNetV2 at width 1: 32; MobileNetV3's squeeze 64 / 4 and 72 / 4 -> 24, because 16 < 0.9 * 18.
    check(
        "[make_divisible(32), make_divisible(64 / 4), make_divisible(72 / 4)]",
        "[32, 16, 24]",
    );
}

/// Query-key pairs counted one by one. The cache holds the last `window - 1` past positions at most.
fn count_pairs(s: i64, past: i64, window: Option<i64>, causal: bool) -> i64 {
    let first_kept = window.map_or(0, |w| (past - (w - 1)).max(0));
    let mut pairs = 0;
    for query in past..past + s {
        for key in first_kept..past + s {
            let seen = key <= query && window.is_none_or(|w| query - key < w);
            if !causal || seen {
                pairs += 1;
            }
        }
    }
    pairs
}

#[test]
fn pairs_are_those_that_a_loop_counts() {
    for s in 0..7 {
        for past in 0..7 {
            for window in [None, Some(1), Some(2), Some(3), Some(5), Some(8), Some(20)] {
                let written = window.map_or("None".to_string(), |w| w.to_string());
                let text = format!("pairs({s}, {past}, {written})");
                assert_eq!(
                    value(&text),
                    count_pairs(s, past, window, false).to_string(),
                    "full {text}"
                );
                assert_eq!(
                    causal(&text),
                    count_pairs(s, past, window, true).to_string(),
                    "causal {text}"
                );
            }
        }
    }
}

#[test]
fn pairs_without_a_window_are_a_square_or_a_triangle() {
    // 2048 ** 2, and 2048 * 2049 / 2.
    check("pairs(2048, 0)", "4194304");
    assert_eq!(causal("pairs(2048, 0)"), "2098176");
}

// ---- errors: what is wrong, and at which column ---------------------------------------------------------------------

#[test]
fn an_unknown_name_is_named_with_the_nearest_right_one() {
    fails(
        "2 * hiden_size",
        5,
        "unknown name `hiden_size`, did you mean `hidden_size`?",
    );
    fails("2 * ${hiden_size}", 5, "did you mean `hidden_size`?");
    fails("zzzz", 1, "unknown name `zzzz`");
}

#[test]
fn an_unknown_function_is_named_with_the_nearest_right_one() {
    fails(
        "1 + ciel_div(1, 2)",
        5,
        "unknown function `ciel_div`, did you mean `ceil_div`?",
    );
}

#[test]
fn swapped_sigils_are_explained() {
    fails(
        "1 + ${Linear}(x)",
        14,
        "a module call is written `{Linear}(...)`",
    );
    fails(
        "{hidden_size} * 2",
        15,
        "a value is written `${hidden_size}`",
    );
}

#[test]
fn comparisons_cannot_be_chained() {
    fails("1 < n < 9", 7, "write `a < b and b < c`");
    fails("1 == 1 in [1]", 8, "cannot be chained");
}

#[test]
fn a_parenthesis_that_is_not_closed_is_missed_at_the_end() {
    fails("(1 + 2", 7, "expected `)`, found the end");
    fails("max(1, 2", 9, "expected `,` or `)`");
    fails("[1, 2", 6, "expected `,` or `]`");
    fails("n[0", 4, "expected `]`");
}

#[test]
fn a_parenthesis_too_many_is_found_where_it_stands() {
    fails("1 + 2)", 6, "found `)`");
    fails(")", 1, "found `)`");
}

#[test]
fn a_missing_operand_is_found_where_it_should_stand() {
    fails("1 +", 4, "expected a value, found the end");
    fails("* 2", 1, "expected a value, found `*`");
    fails("", 1, "expected a value");
    fails("   ", 4, "expected a value");
}

#[test]
fn a_missing_operator_is_found_between_its_operands() {
    fails("2 n", 3, "expected an operator");
    fails("2 (3)", 3, "can be called");
}

#[test]
fn a_wrong_number_of_arguments_is_counted() {
    fails("1 + ceil_div(1)", 5, "`ceil_div` takes 2 arguments, got 1");
    fails(
        "conv_out(1, 2, 3)",
        1,
        "`conv_out` takes 4 to 5 arguments, got 3",
    );
    fails("abs()", 1, "`abs` takes 1 arguments, got 0");
}

#[test]
fn a_function_takes_no_named_argument() {
    fails("max(1, b=2)", 11, "only modules take arguments by name");
}

#[test]
fn an_argument_by_position_cannot_follow_one_by_name() {
    fails("{Linear}(a=1, 2)", 15, "cannot follow");
}

#[test]
fn division_by_zero_is_found_at_its_operands() {
    fails("1 + 2 // 0", 5, "division by zero");
    fails("1 + 2 / (n - 7)", 5, "division by zero");
    fails("5 % 0", 1, "division by zero");
    fails("ceil_div(1, 0)", 1, "division by zero");
}

#[test]
fn a_float_that_grows_beyond_all_bounds_is_no_division_by_zero() {
    // expected_distinct(1, 1, 1) = 1.0; eight times 10 ** 38 after it is 1e304, nine times is too much for a float.
    let text = format!("expected_distinct(1, 1, 1){}", " * 10 ** 38".repeat(9));
    let got = value(&text);
    assert!(
        got.starts_with("column ") && !got.contains("division"),
        "{got}"
    );
}

#[test]
fn an_exponent_is_an_integer_from_0_to_1000() {
    fails("2 ** -1", 1, "an integer exponent from 0 to 1000, got -1");
    fails("2 ** (1 / 2)", 1, "got 1/2");
    fails("1 ** 1001", 1, "got 1001");
    check("[1 ** 1000, 0 ** 0, (1 / 2) ** 3]", "[1, 1, 1/8]");
}

#[test]
fn arithmetic_needs_numbers() {
    fails("1 + 'a'", 1, "`+` needs numbers, got 1 and the string 'a'");
    fails("None * 2", 1, "`*` needs numbers, got None and 2");
    fails("-[1]", 1, "needs numbers");
    fails("1 < 'a'", 1, "needs numbers");
    fails("limit * 2", 1, "needs numbers, got Infinity and 2");
}

#[test]
fn an_opaque_number_of_a_config_is_an_error_only_when_used() {
    check("1 if True else limit * 2", "1");
    fails("limit + 1", 1, "Infinity");
}

#[test]
fn an_index_outside_a_list_is_an_error_with_both_numbers() {
    fails("[1, 2][5]", 1, "index 5 is outside a list of 2");
    fails("[1, 2][-3]", 1, "index -3 is outside a list of 2");
    fails("[1, 2]['a']", 1, "an index is an integer");
    fails("3[0]", 1, "only a list can be indexed");
}

#[test]
fn a_missing_key_is_named_with_the_nearest_right_one() {
    fails(
        "config.hiden_size",
        1,
        "has no key `hiden_size`, did you mean `hidden_size`?",
    );
    fails("n.hidden_size", 1, "reads an object");
}

#[test]
fn a_for_over_the_wrong_thing_is_an_error() {
    fails("[i for i in 'abc']", 13, "runs over a list or a number");
    fails("[i for i in -1]", 13, "runs over a list or a number");
    fails(
        "[a for a, b in [[1, 2, 3]]]",
        16,
        "takes 2 values from each row",
    );
    fails("[a for a, b in [1]]", 16, "takes 2 values from each row");
}

#[test]
fn functions_say_what_they_need() {
    fails(
        "1 + len(3)",
        5,
        "`len` needs a list, a string or an object, got 3",
    );
    fails("floor('a')", 1, "`floor` needs a number");
    fails("max([])", 1, "empty list");
    fails("sum(3)", 1, "`sum` needs a list");
    fails("log2(0)", 1, "`log2` needs a positive number, got 0");
    fails("split('a', '')", 1, "`split` needs");
    fails("flat([[1], 2])", 1, "`flat` needs");
    fails("conv_out(8, 3, 0, 1)", 1, "stride 0");
    fails("conv_out(2, 3, 1, 0)", 1, "smaller than the kernel");
    fails("pairs(-1, 0)", 1, "S and past of 0 or more");
    fails("pairs(1, 0, 0)", 1, "window of 1 or more");
    fails("make_divisible(8, 0)", 1, "positive divisor");
}

#[test]
fn pairs_shows_its_window_as_the_language_writes_it() {
    let got = value("pairs(1, 0, 0)");
    assert!(!got.contains("Some"), "{got}");
}

#[test]
fn split_blames_the_argument_that_is_wrong() {
    // The text 'a' is fine; the separator is not.
    let got = value("split('a', 3)");
    assert!(got.contains("got 3"), "{got}");
}

#[test]
fn expected_distinct_says_which_argument_is_wrong() {
    fails("expected_distinct(8, 9, 1)", 1, "0 <= k <= E");
    // Here k and E are right; the number of tokens is not.
    let got = value("expected_distinct(8, 2, -1)");
    assert!(got.contains("-1"), "{got}");
}

#[test]
fn characters_without_a_meaning_are_shown() {
    fails("1 # 2", 3, "`#` means nothing");
    fails("1 \u{1b} 2", 3, "\\u{1b}");
    fails("'abc", 1, "no closing quote");
    fails("1.2.3", 1, "`1.2.3` is not a number");
    fails("12abc", 1, "`12abc` is not a number");
    fails("${hidden size}", 1, "is not a name");
    fails("{}(1)", 1, "is not a class");
}

#[test]
fn words_of_the_language_are_no_names() {
    fails("if + 1", 1, "found `if`");
    fails("1 if 2", 7, "expected `else`");
    fails("[1 for in 3]", 8, "expected a name after `for`");
    fails("[1 for i of 3]", 10, "expected `in`");
    // Modules have children called `self`.
    let mut names = Given(vec![("self", Value::Int(3))]);
    assert_eq!(value_among("self + 1", &mut names), "4");
}

// ---- limits ---------------------------------------------------------------------------------------------------------

#[test]
fn a_formula_may_have_16_kib() {
    let fits = format!("1{}", " ".repeat(MAX_LENGTH - 1));
    check(&fits, "1");
    fails(&format!("{fits} "), MAX_LENGTH + 1, "16384 bytes at most");
}

#[test]
fn nesting_has_a_named_limit() {
    let nested = |n: usize| format!("{}1{}", "(".repeat(n), ")".repeat(n));
    check(&nested(MAX_DEPTH - 1), "1");
    fails(&nested(MAX_DEPTH), MAX_DEPTH + 1, "nested 64 levels deep");
    fails(&"(".repeat(10_000), MAX_DEPTH + 1, "nested 64 levels deep");
    fails(&"[".repeat(10_000), MAX_DEPTH + 1, "nested 64 levels deep");
}

#[test]
fn signs_and_nots_and_powers_and_conditions_nest_within_the_same_limit() {
    for text in [
        "-".repeat(10_000),
        "not ".repeat(4_000),
        "2 ** ".repeat(3_000),
        "1 if 0 else ".repeat(1_300),
        "abs(".repeat(4_000),
    ] {
        let got = value(&text);
        assert!(got.contains("64 levels deep"), "{got}");
    }
}

#[test]
fn a_chain_of_5000_terms_is_refused_and_one_of_100_is_fine() {
    let chain = |n: usize| vec!["1"; n].join("+");
    check(&chain(100), "100");
    let got = value(&chain(5000));
    assert!(got.starts_with("column "), "{got}");
}

#[test]
fn a_chain_that_is_too_long_is_not_called_nested() {
    // 200 terms without a single parenthesis.
    let got = value(&vec!["1"; MAX_HEIGHT + 40].join("+"));
    assert!(
        got.starts_with("column ") && !got.contains("nested 64 levels"),
        "{got}"
    );
}

#[test]
fn a_list_has_a_named_limit_however_it_is_made() {
    fails(
        "[0 for i in 10 ** 9]",
        13,
        "the length of a list exceeds the limit of 100000",
    );
    check(&format!("len([0 for i in {MAX_ITEMS}])"), "100000");
    // Joining lists makes longer ones; doubled in nested loops they would fill any memory.
    fails("len([0 for i in 100000] + [0])", 5, "100000");
}

#[test]
fn all_lists_together_have_a_named_limit() {
    // 100 lists of 100,000 items each, none of them too long.
    fails(
        "len([[j for j in 100000] for i in 100])",
        6,
        "exceeds the limit of",
    );
}

#[test]
fn a_list_cannot_double_its_way_past_the_limit() {
    // Sixteen doublings of 64 items: a formula of some hundred bytes must not be able to ask for gigabytes.
    let doubled = (0..16).fold("[0 for i in 64]".to_string(), |inner, i| {
        format!("[x{i} + x{i} for x{i} in [{inner}]][0]")
    });
    let got = value(&format!("len({doubled})"));
    assert!(
        got.starts_with("column ") && got.contains("100000"),
        "{got}"
    );
}

#[test]
fn evaluation_steps_run_out() {
    let mut budget = Budget::default();
    for _ in 0..MAX_STEPS - 1000 {
        budget.step().unwrap();
    }
    let formula = Formula::parse("sum([i for i in 2000])").unwrap();
    let error = eval(&formula.expr, &mut given(), &mut budget)
        .unwrap_err()
        .to_string();
    let limit = format!("the number of evaluation steps exceeds the limit of {MAX_STEPS}");
    assert!(error.contains(&limit), "{error}");
}

// ---- printing -------------------------------------------------------------------------------------------------------

#[test]
fn printing_keeps_the_parentheses_that_matter_and_drops_the_others() {
    prints("(1 + 2) * (3)", "(1 + 2) * 3");
    prints("1 - (2 - 3)", "1 - (2 - 3)");
    prints("(1 - 2) - 3", "1 - 2 - 3");
    prints("(2 ** 3) ** 4", "(2 ** 3) ** 4");
    prints("2 ** (3 ** 4)", "2 ** 3 ** 4");
    prints("(-2) ** 2", "(-2) ** 2");
    prints("-(2 ** 2)", "-2 ** 2");
    prints("2 ** -n", "2 ** -n");
    prints("(not 1) == 2", "(not 1) == 2");
    prints("(1 if 2 else 3) + 1", "(1 if 2 else 3) + 1");
    prints("(1 if 2 else 3) if 4 else 5", "(1 if 2 else 3) if 4 else 5");
    prints("(1 or 2) and 3", "(1 or 2) and 3");
}

#[test]
fn printing_writes_names_without_their_sigil() {
    prints("${a}+{Linear}( ${b} ,bias = c)", "a + {Linear}(b, bias=c)");
}

#[test]
fn calls_lists_and_loops_print_as_they_are_read() {
    prints("max( 1,a [ 0 ] . key )", "max(1, a[0].key)");
    prints("[a+b for a,b in x]+[ ]", "[a + b for a, b in x] + []");
    prints("a not in b", "a not in b");
    prints("a is not None", "a is not None");
}

#[test]
fn a_decimal_prints_as_it_will_print_again() {
    let once = Formula::parse("0.35").unwrap().expr.to_string();
    prints("0.35", &once);
    let once = Formula::parse("x * 0.35 ** 2").unwrap().expr.to_string();
    prints("x * 0.35 ** 2", &once);
}

#[test]
fn a_string_prints_as_it_will_be_read() {
    for text in [
        "'it is'",
        "'a\\b'",
        "\"it's\"",
        "'say \"x\"'",
        "'tab\tinside'",
        "'é'",
    ] {
        let once = Formula::parse(text).unwrap().expr.to_string();
        prints(text, &once);
        assert_eq!(value(text), value(&once), "{text}");
    }
}

#[test]
fn a_key_of_a_number_prints_as_it_will_be_read() {
    // `1.real` would be read as a number.
    let once = Formula::parse("(1).real").unwrap().expr.to_string();
    prints("(1).real", &once);
}

// ---- properties -----------------------------------------------------------------------------------------------------

/// An expression over small numbers, with its naive evaluation below.
#[derive(Clone, Debug)]
enum Tree {
    Int(u8),
    Negate(Box<Tree>),
    Not(Box<Tree>),
    Binary(&'static str, Box<Tree>, Box<Tree>),
    If(Box<Tree>, Box<Tree>, Box<Tree>),
}

/// A naive value: a truth value or a fraction.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Plain {
    Truth(bool),
    Fraction(i128, i128),
}

/// Why the naive evaluator has no value.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Naive {
    /// 128 bits are not enough; then nothing is claimed.
    Overflow,
    /// There is no value.
    Undefined,
}

impl Plain {
    fn of(num: i128, den: i128) -> Result<Plain, Naive> {
        if den == 0 {
            return Err(Naive::Undefined);
        }
        let (mut a, mut b) = (
            num.checked_abs().ok_or(Naive::Overflow)?,
            den.checked_abs().ok_or(Naive::Overflow)?,
        );
        while b != 0 {
            (a, b) = (b, a % b);
        }
        let sign = den.signum();
        Ok(Plain::Fraction(num / a * sign, den / a * sign))
    }

    fn parts(self) -> (i128, i128) {
        match self {
            Plain::Truth(t) => (t.into(), 1),
            Plain::Fraction(n, d) => (n, d),
        }
    }

    fn truth(self) -> bool {
        self.parts().0 != 0
    }

    fn shown(self) -> String {
        match self {
            Plain::Truth(true) => "True".into(),
            Plain::Truth(false) => "False".into(),
            Plain::Fraction(n, 1) => n.to_string(),
            Plain::Fraction(n, d) => format!("{n}/{d}"),
        }
    }
}

fn times(a: i128, b: i128) -> Result<i128, Naive> {
    a.checked_mul(b).ok_or(Naive::Overflow)
}

fn naive_binary(op: &str, a: Plain, b: Plain) -> Result<Plain, Naive> {
    let ((an, ad), (bn, bd)) = (a.parts(), b.parts());
    let difference = || {
        times(an, bd)?
            .checked_sub(times(bn, ad)?)
            .ok_or(Naive::Overflow)
    };
    match op {
        "+" => Plain::of(
            times(an, bd)?
                .checked_add(times(bn, ad)?)
                .ok_or(Naive::Overflow)?,
            times(ad, bd)?,
        ),
        "-" => Plain::of(difference()?, times(ad, bd)?),
        "*" => Plain::of(times(an, bn)?, times(ad, bd)?),
        "/" => Plain::of(times(an, bd)?, times(ad, bn)?),
        "//" => {
            let (n, d) = naive_binary("/", a, b)?.parts();
            Ok(Plain::Fraction(n.div_euclid(d), 1))
        }
        "%" => naive_binary("-", a, naive_binary("*", naive_binary("//", a, b)?, b)?),
        "**" => {
            // Unlike in Python, a truth value is no exponent.
            if bd != 1 || !(0..=1000).contains(&bn) || matches!(b, Plain::Truth(_)) {
                return Err(Naive::Undefined);
            }
            (0..bn).try_fold(Plain::Fraction(1, 1), |power, _| {
                naive_binary("*", power, a)
            })
        }
        "<" => Ok(Plain::Truth(difference()? < 0)),
        ">=" => Ok(Plain::Truth(difference()? >= 0)),
        "==" => Ok(Plain::Truth(difference()? == 0)),
        other => unreachable!("the strategy makes no `{other}`"),
    }
}

fn naive(tree: &Tree) -> Result<Plain, Naive> {
    match tree {
        Tree::Int(n) => Ok(Plain::Fraction((*n).into(), 1)),
        Tree::Negate(a) => naive_binary("-", Plain::Fraction(0, 1), naive(a)?),
        Tree::Not(a) => Ok(Plain::Truth(!naive(a)?.truth())),
        Tree::If(then, condition, other) => naive(if naive(condition)?.truth() {
            then
        } else {
            other
        }),
        Tree::Binary("and", a, b) => {
            let a = naive(a)?;
            if a.truth() { naive(b) } else { Ok(a) }
        }
        Tree::Binary("or", a, b) => {
            let a = naive(a)?;
            if a.truth() { Ok(a) } else { naive(b) }
        }
        Tree::Binary(op, a, b) => naive_binary(op, naive(a)?, naive(b)?),
    }
}

/// Python's table: how tightly a node binds, and what its sides must bind at least.
fn strengths(tree: &Tree) -> (u8, u8, u8) {
    match tree {
        Tree::If(..) => (1, 2, 1),
        Tree::Binary("or", ..) => (2, 2, 3),
        Tree::Binary("and", ..) => (3, 3, 4),
        Tree::Not(_) => (4, 4, 4),
        Tree::Binary("<" | ">=" | "==", ..) => (5, 6, 6),
        Tree::Binary("+" | "-", ..) => (6, 6, 7),
        Tree::Binary("**", ..) => (9, 10, 8),
        Tree::Binary(..) => (7, 7, 8),
        Tree::Negate(_) => (8, 8, 8),
        Tree::Int(_) => (10, 0, 0),
    }
}

/// The tree as Python would need it written: parentheses only where they matter.
fn written(tree: &Tree) -> String {
    let (_, left, right) = strengths(tree);
    let side = |child: &Tree, least: u8| {
        let text = written(child);
        if strengths(child).0 < least {
            format!("({text})")
        } else {
            text
        }
    };
    match tree {
        Tree::Int(n) => n.to_string(),
        Tree::Negate(a) => format!("-{}", side(a, left)),
        Tree::Not(a) => format!("not {}", side(a, left)),
        Tree::Binary(op, a, b) => format!("{} {op} {}", side(a, left), side(b, right)),
        Tree::If(a, c, b) => format!("{} if {} else {}", side(a, 2), side(c, 2), side(b, 1)),
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    const OPS: [&str; 12] = [
        "+", "-", "*", "/", "//", "%", "**", "<", ">=", "==", "and", "or",
    ];
    let leaf = (0u8..6).prop_map(Tree::Int);
    leaf.prop_recursive(6, 40, 3, |inner| {
        let three = (inner.clone(), inner.clone(), inner.clone());
        prop_oneof![
            6 => (prop::sample::select(&OPS[..]), inner.clone(), inner.clone()).prop_map(|(op, a, b)| Tree::Binary(op, a.into(), b.into())),
            1 => inner.clone().prop_map(|a| Tree::Negate(a.into())),
            1 => inner.prop_map(|a| Tree::Not(a.into())),
            1 => three.prop_map(|(a, c, b)| Tree::If(a.into(), c.into(), b.into())),
        ]
    })
}

/// Texts that look like formulas, all of the grammar in them.
fn formula_like() -> impl Strategy<Value = String> {
    const PIECES: [&str; 58] = [
        "1",
        "0",
        "2.5",
        "1e3",
        "n",
        "hidden_size",
        "${n}",
        "{Linear}(",
        "config",
        ".name",
        "'a'",
        "\"b\"",
        "(",
        ")",
        "[",
        "]",
        ",",
        "+",
        "-",
        "*",
        "/",
        "//",
        "%",
        "**",
        "==",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        "=",
        " in ",
        " not in ",
        " is ",
        " is not ",
        "not ",
        " and ",
        " or ",
        " if ",
        " else ",
        " for ",
        "i",
        "j",
        "max(",
        "pairs(",
        "len(",
        "None",
        "True",
        "False",
        "{",
        "}",
        "$",
        ";",
        ".",
        "#",
        "é",
        "\n",
        "'",
    ];
    prop::collection::vec(prop::sample::select(&PIECES[..]), 0..30)
        .prop_map(|pieces| pieces.concat())
}

/// Parses, and if that works evaluates, prints, and parses again.
fn survives(text: &str) -> Result<(), TestCaseError> {
    let Ok(formula) = Formula::parse(text) else {
        return Ok(());
    };
    let _ = eval(&formula.expr, &mut given(), &mut Budget::default());
    let printed = formula.expr.to_string();
    let again = Formula::parse(&printed).map(|f| f.expr.to_string());
    prop_assert_eq!(
        again.map_err(|e| e.to_string()),
        Ok(printed),
        "{:?} printed and parsed",
        text
    );
    Ok(())
}

fn runs(cases: u32) -> Runs {
    Runs {
        cases,
        failure_persistence: None,
        ..Runs::default()
    }
}

proptest! {
    #![proptest_config(runs(2000))]

    #[test]
    fn any_text_parses_or_errs(text in any::<String>()) {
        survives(&text)?;
    }

    #[test]
    fn any_text_of_formula_characters_parses_or_errs(text in "[a-c0-9 +*/%()\\[\\]{}$'\",.=<>!_-]{0,60}") {
        survives(&text)?;
    }

    #[test]
    fn any_pieces_of_formulas_parse_or_err(text in formula_like()) {
        survives(&text)?;
    }

    #[test]
    fn a_formula_is_worth_what_a_naive_evaluator_says(tree in trees()) {
        let text = written(&tree);
        let got = value(&text);
        match naive(&tree) {
            Ok(expected) => prop_assert_eq!(got, expected.shown(), "{}", text),
            Err(Naive::Undefined) => prop_assert!(got.starts_with("column "), "{} has no value, not {}", text, got),
            Err(Naive::Overflow) => {}
        }
    }

    #[test]
    fn the_printed_formula_has_the_same_value(tree in trees()) {
        let text = written(&tree);
        let printed = Formula::parse(&text).map_err(|e| TestCaseError::fail(e.to_string()))?.expr.to_string();
        prop_assert_eq!(&printed, &text);
    }
}
