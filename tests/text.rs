//! Tokens, chats and choices: ids and texts are those of python's `tokenizers`, prompts those of transformers' renderer,
//! choices follow the probabilities.

mod common;

use bitcost::text::{
    ChatTemplate, Message, Prompt, Sampler, Sampling, SamplingError, TextError, TextStream,
    Tokenizer, TokenizerConfig, stop_tokens,
};
use bitcost::value::Value;
use common::{Folder, TIME_LIMIT, program, refused, wait};
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::path::Path;

fn fixture(path: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(path);
    std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

fn json(path: &str) -> Json {
    serde_json::from_slice(&fixture(path)).expect("a fixture is JSON")
}

fn tokenizer(path: &str) -> Tokenizer {
    Tokenizer::parse(path, &fixture(path)).expect("a fixture is a tokenizer")
}

/// The tokenizers of `texts.json`, with their texts.
fn tokenizers() -> Vec<(String, Tokenizer, Vec<Json>)> {
    let texts = json("text/texts.json")["texts"].clone();
    let texts = texts.as_object().expect("an object").clone();
    let all = texts.into_iter().map(|(name, texts)| {
        let file = match name.as_str() {
            "bitnet_tiny" => "bitnet_tiny/bitlinear/tokenizer.json".to_string(),
            name => format!("text/{name}/tokenizer.json"),
        };
        let texts = texts.as_array().expect("a list").clone();
        (name, tokenizer(&file), texts)
    });
    all.collect()
}

fn ids(value: &Json) -> Vec<u32> {
    let ids = value.as_array().expect("a list").iter();
    ids.map(|id| id.as_u64().expect("an id") as u32).collect()
}

#[test]
fn ids_and_texts_are_those_of_python() {
    let all = tokenizers();
    assert_eq!(all.len(), 5);
    for (name, tokenizer, texts) in all {
        assert!(texts.len() > 30);
        for case in &texts {
            let text = case["text"].as_str().expect("a text");
            let encode = |special| tokenizer.encode(text, special).expect("ids");
            assert_eq!(encode(false), ids(&case["ids"]), "{name}: {text:?}");
            assert_eq!(encode(true), ids(&case["with_special"]), "{name}: {text:?}");
            let decoded = tokenizer.decode(&ids(&case["ids"])).expect("a text");
            assert_eq!(decoded, case["decoded"].as_str().expect("a text"), "{name}");
        }
    }
}

#[test]
fn the_prompt_of_the_tiny_model_has_the_ids_that_transformers_gave_it() {
    for class in ["autobitlinear", "bitlinear"] {
        let expected = json(&format!("bitnet_tiny/{class}/expected.json"));
        let tokenizer = tokenizer(&format!("bitnet_tiny/{class}/tokenizer.json"));
        let config = fixture(&format!("bitnet_tiny/{class}/tokenizer_config.json"));
        let config = TokenizerConfig::parse(Some(("tokenizer_config.json", &config)), None)
            .expect("a config");
        let bos = config
            .bos_token
            .and_then(|bos| tokenizer.id(&bos))
            .expect("a token");
        let prompt = expected["prompt"].as_str().expect("a text");
        let mut prompt = tokenizer.encode(prompt, true).expect("ids");
        prompt.insert(0, bos);
        assert_eq!(prompt, ids(&expected["prompt_ids"]));

        let greedy = ids(&expected["greedy_ids"]);
        let text = expected["greedy_text"].as_str().expect("a text");
        assert_eq!(tokenizer.decode(&greedy).expect("a text"), text);
        let (pieces, rest) = streamed(&tokenizer, &greedy);
        assert_eq!(pieces.concat() + &rest, text);
    }
}

/// The pieces of a stream, and what was left at its end.
fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> (Vec<String>, String) {
    let mut stream: TextStream<'_> = tokenizer.stream();
    let steps = ids.iter().map(|id| stream.step(*id).expect("a step"));
    let pieces = steps.collect::<Vec<_>>().into_iter().flatten().collect();
    (pieces, stream.finish().expect("an end").unwrap_or_default())
}

#[test]
fn a_stream_gives_the_whole_text_in_whole_characters() {
    for (name, tokenizer, texts) in tokenizers() {
        for case in &texts {
            let decoded = case["decoded"].as_str().expect("a text");
            let (pieces, rest) = streamed(&tokenizer, &ids(&case["ids"]));
            assert_eq!(pieces.concat() + &rest, decoded, "{name}");
            assert!(pieces.iter().all(|piece| !piece.is_empty()));
            if !decoded.contains('\u{fffd}') {
                assert!(
                    pieces.iter().all(|piece| !piece.contains('\u{fffd}')),
                    "{name}: {pieces:?}"
                );
                assert_eq!(rest, "", "{name}: {decoded:?}");
            }
        }
    }
}

#[test]
fn a_character_of_four_tokens_comes_with_the_last_of_them() {
    let tokenizer = tokenizer("text/byte_level/tokenizer.json");
    let ids = tokenizer.encode("a𝔘b", false).expect("ids");
    assert_eq!(ids.len(), 6);
    let mut stream = tokenizer.stream();
    let steps: Vec<_> = ids
        .iter()
        .map(|id| stream.step(*id).expect("a step"))
        .collect();
    let text = |text: &str| Some(text.to_string());
    assert_eq!(steps, [text("a"), None, None, None, text("𝔘"), text("b")]);

    // Cut in the middle, it is what a decoder makes of half a character.
    let (pieces, rest) = streamed(&tokenizer, &ids[..3]);
    assert_eq!((pieces.concat().as_str(), rest.as_str()), ("a", "\u{fffd}"));
}

#[test]
fn bytes_that_take_back_a_character_do_not_end_a_stream() {
    let tokenizer = tokenizer("text/byte_fallback/tokenizer.json");
    let byte = |byte: u8| tokenizer.id(&format!("<0x{byte:02X}>")).expect("a byte");
    // A run of bytes is text as a whole or not at all, to this decoder: the third makes the first two invalid.
    let run = [0xc3, 0xa9, 0xe2].map(byte);
    assert_eq!(tokenizer.decode(&run[..2]).expect("a text"), "é");
    assert_eq!(
        tokenizer.decode(&run).expect("a text"),
        "\u{fffd}\u{fffd}\u{fffd}"
    );
    let (pieces, rest) = streamed(&tokenizer, &run);
    assert_eq!((pieces.concat().as_str(), rest.as_str()), ("é", "\u{fffd}"));
}

#[test]
fn words_keep_their_spaces_in_a_stream() {
    let tokenizer = tokenizer("text/byte_fallback/tokenizer.json");
    let ids = tokenizer.encode("one one", true).expect("ids");
    let (pieces, _) = streamed(&tokenizer, &ids);
    assert_eq!(pieces.concat(), "one one");
}

#[test]
fn truncation_and_padding_of_the_file_are_left_out() {
    let file = json("text/byte_fallback/tokenizer.json");
    assert_eq!(file["truncation"]["max_length"], 6);
    let tokenizer = tokenizer("text/byte_fallback/tokenizer.json");
    let count = |text| tokenizer.encode(text, true).expect("ids").len();
    assert!(count("The weights are minus one, zero") > 6);
    assert!(count("one") < 8);
}

#[test]
fn an_id_beyond_the_models_vocabulary_is_an_error_with_its_name() {
    let tokenizer = tokenizer("bitnet_tiny/bitlinear/tokenizer.json");
    assert_eq!(tokenizer.vocab_size(), 384);
    let ids = tokenizer.encode("zero", false).expect("ids");
    assert_eq!(tokenizer.check(&ids, 384), Ok(()));
    assert_eq!(tokenizer.check(&ids, 100_000), Ok(()));
    let error = tokenizer.check(&[2, 383], 383).expect_err("beyond");
    assert!(error.to_string().starts_with("token 383 (`"), "{error}");
    // A model with more rows than there are tokens may choose one that has no text.
    assert_eq!(
        tokenizer.decode(&[384, 2, 4_000_000_000]).as_deref(),
        Ok("!")
    );
}

#[test]
fn special_tokens_are_found_by_name() {
    let tokenizer = tokenizer("bitnet_tiny/bitlinear/tokenizer.json");
    assert_eq!(tokenizer.id("<|end_of_text|>"), Some(1));
    assert_eq!(tokenizer.token(1).as_deref(), Some("<|end_of_text|>"));
    assert_eq!(tokenizer.id("<|nothing|>"), None);
}

#[test]
fn what_is_no_tokenizer_is_an_error_with_its_file() {
    let whole = fixture("text/byte_level/tokenizer.json");
    for bytes in [&b""[..], b"{}", b"[1]", b"\xff", &whole[..whole.len() / 2]] {
        let error = Tokenizer::parse("m/tokenizer.json", bytes).expect_err("no tokenizer");
        assert!(
            error
                .to_string()
                .starts_with("m/tokenizer.json: not a tokenizer: "),
            "{error}"
        );
    }
}

/// The tokenizer of a fixture with one of its values replaced.
fn changed(name: &str, pointer: &str, value: Json) -> Result<Tokenizer, TextError> {
    let mut file = json(&format!("text/{name}/tokenizer.json"));
    *file.pointer_mut(pointer).expect("a place in the file") = value;
    Tokenizer::parse("t.json", file.to_string().as_bytes())
}

#[test]
fn files_that_the_library_would_panic_of_are_refused() {
    let refused = |name, pointer, value: Json, why: &str| {
        let error = changed(name, pointer, value).expect_err(why).to_string();
        assert!(
            error.starts_with("t.json: not a tokenizer: ") && error.contains(why),
            "{error}"
        );
    };
    let prefix = "/model/continuing_subword_prefix";
    refused(
        "byte_level",
        prefix,
        "##".into(),
        "does not begin with the prefix `##`",
    );
    let tokens = "/post_processor/special_tokens";
    refused(
        "byte_fallback",
        tokens,
        serde_json::json!({}),
        "no special token `<s>`",
    );
    let template = "/post_processor/single/1/Sequence/id";
    refused("byte_fallback", template, "B".into(), "asks for a second");
    let nested = "/post_processor/processors/1/special_tokens";
    refused(
        "byte_level",
        nested,
        serde_json::json!({}),
        "no special token `<|begin_of_text|>`",
    );
    refused(
        "byte_fallback",
        "/decoder/decoders/3/stop",
        1.into(),
        "cuts off the ends",
    );
    let pieces = serde_json::json!({"type": "FixedLength", "length": 0});
    refused("byte_level", "/pre_tokenizer", pieces, "pieces of length 0");
}

/// Every place of a value that holds no other values.
fn leaves(value: &Json, place: String, out: &mut Vec<String>) {
    match value {
        Json::Object(fields) => {
            for (key, value) in fields {
                let key = key.replace('~', "~0").replace('/', "~1");
                leaves(value, format!("{place}/{key}"), out);
            }
        }
        Json::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                leaves(value, format!("{place}/{index}"), out);
            }
        }
        _ => out.push(place),
    }
}

#[test]
fn no_value_of_a_file_makes_a_tokenizer_panic() {
    let values = serde_json::json!([null, true, 0, 4294967295u32, "é", [], {}]);
    let values = values.as_array().expect("a list");
    for name in [
        "byte_level",
        "byte_fallback",
        "word_pieces",
        "likely_pieces",
    ] {
        let file = json(&format!("text/{name}/tokenizer.json"));
        let mut places = Vec::new();
        leaves(&file, String::new(), &mut places);
        // Of the vocabulary and the merges, which are all alike, the first.
        let is_many =
            |place: &str| place.starts_with("/model/vocab/") || place.starts_with("/model/merges/");
        let is_first = |place: &str| {
            place.starts_with("/model/vocab/0") || place.starts_with("/model/merges/0")
        };
        places.retain(|place| !is_many(place) || is_first(place));
        let mut read = 0;
        for place in &places {
            for value in values {
                let Ok(tokenizer) = changed(name, place, value.clone()) else {
                    continue;
                };
                read += 1;
                for text in ["The weights é🙂 <s>[CLS]", ""] {
                    if let Ok(ids) = tokenizer.encode(text, true) {
                        let _ = tokenizer.decode(&ids);
                        let mut stream = tokenizer.stream();
                        ids.iter().for_each(|id| drop(stream.step(*id)));
                        let _ = stream.finish();
                    }
                }
            }
        }
        assert!(
            read > places.len() / 2,
            "{name}: {read} of {} places",
            places.len()
        );
    }
}

#[test]
fn prompts_are_those_that_transformers_renders() {
    let chats = json("text/chats.json");
    let now = chats["now"]
        .as_str()
        .expect("a date")
        .parse()
        .expect("a date");
    let cases = chats["cases"].as_array().expect("a list");
    assert_eq!(cases.len(), 30);
    let mut refused = 0;
    for case in cases {
        let name = case["template"].as_str().expect("a name");
        let source = chats["templates"][name].as_str().expect("a template");
        let template = ChatTemplate::parse(name, source.into()).expect("a template");
        let messages: Vec<Message> =
            serde_json::from_value(case["messages"].clone()).expect("messages");
        let prompt = Prompt {
            messages: &messages,
            add_generation_prompt: case["add_generation_prompt"] == true,
            bos: Some("<s>"),
            eos: Some("</s>"),
            now,
        };
        let rendered = template.render(&prompt);
        match case["rendered"].as_str() {
            Some(expected) => assert_eq!(rendered.as_deref(), Ok(expected), "{name}"),
            None => {
                refused += 1;
                let why = case["refused"].as_str().expect("a reason");
                let error = rendered.expect_err("refused").to_string();
                assert!(error.contains("refuses") && error.contains(why), "{error}");
            }
        }
    }
    assert_eq!(refused, 2);
}

fn prompt(messages: &[Message]) -> Prompt<'_> {
    Prompt {
        messages,
        add_generation_prompt: true,
        bos: None,
        eos: None,
        now: jiff::civil::date(2026, 2, 3).at(0, 0, 0, 0),
    }
}

#[test]
fn a_template_that_cannot_be_read_is_an_error_with_its_line() {
    let error = ChatTemplate::parse("t.jinja", "a\n{% for %}".into()).expect_err("no template");
    let text = error.to_string();
    assert!(
        text.starts_with("t.jinja: the chat template cannot be read: line 2: "),
        "{text}"
    );
}

#[test]
fn a_template_that_never_ends_is_ended() {
    let long = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let template = ChatTemplate::parse("t", long.into()).expect("a template");
    assert!(matches!(
        template.render(&prompt(&[])),
        Err(TextError::Render { .. })
    ));
}

#[test]
fn a_config_names_its_tokens_and_its_template() {
    let parse = |config: &str| TokenizerConfig::parse(Some(("c.json", config.as_bytes())), None);
    let render = |config: TokenizerConfig| {
        let template = config.chat_template.expect("a template");
        template
            .render(&prompt(&[Message::new("user", "hi")]))
            .expect("a text")
    };
    let config =
        parse(r#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}}"#)
            .expect("a config");
    assert_eq!(config.bos_token.as_deref(), Some("<s>"));
    assert_eq!(config.eos_token.as_deref(), Some("</s>"));
    assert!(config.chat_template.is_none());
    let config = parse(r#"{"bos_token": null, "chat_template": "{{ messages[0].content }}!"}"#)
        .expect("a config");
    assert_eq!(config.bos_token, None);
    assert_eq!(render(config), "hi!");

    let several = r#"{"chat_template": [{"name": "rag", "template": "no"}, {"name": "default", "template": "yes"}]}"#;
    assert_eq!(render(parse(several).expect("a config")), "yes");
    // The file of its own goes before.
    let both = TokenizerConfig::parse(
        Some(("c.json", several.as_bytes())),
        Some(("t.jinja", b"own")),
    );
    assert_eq!(render(both.expect("a config")), "own");
    let alone = TokenizerConfig::parse(None, Some(("t.jinja", b"own")));
    assert_eq!(render(alone.expect("a config")), "own");

    for (wrong, says) in [
        ("", "c.json: line 1, column 1"),
        (
            "[]",
            "c.json: `the file` is the list []; it should be a JSON object",
        ),
        (
            r#"{"bos_token": 3}"#,
            "c.json: `bos_token` is 3; it should be a token",
        ),
        (
            r#"{"chat_template": [{"name": "rag", "template": "no"}]}"#,
            "c.json: `chat_template` is ",
        ),
        (
            r#"{"chat_template": "{{"}"#,
            "c.json: the chat template cannot be read",
        ),
    ] {
        let error = parse(wrong).expect_err(wrong).to_string();
        assert!(error.starts_with(says), "{error}");
    }
    let error = TokenizerConfig::parse(None, Some(("t.jinja", b"\xff"))).expect_err("no text");
    assert_eq!(error.to_string(), "t.jinja: not UTF-8 text");
}

#[test]
fn generation_settings_go_before_the_config() {
    let config = |text: &str| match bitcost::json::read(text) {
        Ok(Value::Object(config)) => config,
        other => panic!("{other:?}"),
    };
    let stop = |generation: Option<&str>, text: &str| {
        let generation = generation.map(|text| ("generation_config.json", text.as_bytes()));
        stop_tokens(generation, "config.json", &config(text))
    };
    assert_eq!(stop(None, r#"{"eos_token_id": 2}"#), Ok(vec![2]));
    assert_eq!(stop(None, r#"{"eos_token_id": null}"#), Ok(vec![]));
    assert_eq!(stop(None, "{}"), Ok(vec![]));
    let several = Some(r#"{"eos_token_id": [128001, 128009]}"#);
    assert_eq!(
        stop(several, r#"{"eos_token_id": 2}"#),
        Ok(vec![128001, 128009])
    );
    assert_eq!(stop(Some("{}"), r#"{"eos_token_id": [2]}"#), Ok(vec![2]));
    let error = stop(Some(r#"{"eos_token_id": "</s>"}"#), "{}")
        .expect_err("no id")
        .to_string();
    assert!(
        error.starts_with("generation_config.json: `eos_token_id` is the string '</s>'"),
        "{error}"
    );
    assert!(stop(None, r#"{"eos_token_id": -1}"#).is_err());
    assert!(stop(None, r#"{"eos_token_id": [1, 4294967296]}"#).is_err());
}

/// Logits whose probabilities at temperature 1 are these, up to rounding.
fn logits(probabilities: &[f64]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln() as f32).collect()
}

fn sampler(temperature: f32, top_k: Option<usize>, top_p: f32, seed: u64) -> Sampler {
    let sampling = Sampling {
        temperature,
        top_k,
        top_p,
        seed,
    };
    Sampler::new(sampling).expect("settings that make sense")
}

/// How far counts are from probabilities: the sum of squared differences over expectations.
fn chi_square(counts: &[usize], probabilities: &[f64]) -> f64 {
    let all: usize = counts.iter().sum();
    let terms = counts.iter().zip(probabilities).filter(|(_, p)| **p > 0.0);
    terms
        .map(|(&count, p)| {
            let expected = p * all as f64;
            (count as f64 - expected).powi(2) / expected
        })
        .sum()
}

fn counts(sampler: &mut Sampler, logits: &[f32]) -> Vec<usize> {
    let mut counts = vec![0; logits.len()];
    for _ in 0..60_000 {
        counts[sampler.next(logits).expect("a token") as usize] += 1;
    }
    counts
}

/// Five degrees of freedom: one of a hundred thousand is above.
const FAR: f64 = 30.86;

#[test]
fn choices_follow_the_probabilities() {
    let probabilities = [0.4, 0.02, 0.25, 0.03, 0.2, 0.1];
    let logits = logits(&probabilities);
    let drawn = counts(&mut sampler(1.0, None, 1.0, 1), &logits);
    let distance = chi_square(&drawn, &probabilities);
    assert!(distance < FAR, "{distance}: {drawn:?}");

    // At temperature 2, probabilities are as their square roots.
    let roots: Vec<f64> = probabilities.iter().map(|p| p.sqrt()).collect();
    let sum: f64 = roots.iter().sum();
    let flatter: Vec<f64> = roots.iter().map(|root| root / sum).collect();
    let drawn = counts(&mut sampler(2.0, None, 1.0, 2), &logits);
    assert!(chi_square(&drawn, &flatter) < FAR);
    assert!(
        chi_square(&drawn, &probabilities) > 100.0 * FAR,
        "the bound can fail"
    );

    // What is left out gives its probability to the rest in proportion.
    let three = [0.4 / 0.85, 0.0, 0.25 / 0.85, 0.0, 0.2 / 0.85, 0.0];
    for mut sampler in [sampler(1.0, Some(3), 1.0, 3), sampler(1.0, None, 0.8, 4)] {
        let drawn = counts(&mut sampler, &logits);
        assert_eq!((drawn[1], drawn[3], drawn[5]), (0, 0, 0));
        assert!(chi_square(&drawn, &three) < FAR);
    }
}

/// Every token that is ever chosen.
#[track_caller]
fn check_set(top_k: Option<usize>, top_p: f32, probabilities: &[f64], expected: &[u32]) {
    let logits = logits(probabilities);
    let mut sampler = sampler(1.0, top_k, top_p, 7);
    let drawn: BTreeSet<u32> = (0..5_000)
        .map(|_| sampler.next(&logits).expect("a token"))
        .collect();
    assert_eq!(drawn, expected.iter().copied().collect());
}

#[test]
fn top_k_keeps_the_k_most_likely_and_those_that_equal_the_last() {
    let p = [0.1, 0.3, 0.2, 0.2, 0.15, 0.05];
    check_set(Some(1), 1.0, &p, &[1]);
    check_set(Some(2), 1.0, &p, &[1, 2, 3]);
    check_set(Some(3), 1.0, &p, &[1, 2, 3]);
    check_set(Some(4), 1.0, &p, &[1, 2, 3, 4]);
    check_set(Some(6), 1.0, &p, &[0, 1, 2, 3, 4, 5]);
    check_set(Some(usize::MAX), 1.0, &p, &[0, 1, 2, 3, 4, 5]);
}

#[test]
fn top_p_keeps_the_fewest_that_reach_it_and_those_that_equal_the_last() {
    let p = [0.1, 0.3, 0.2, 0.2, 0.15, 0.05];
    check_set(None, 1e-6, &p, &[1]);
    check_set(None, 0.29, &p, &[1]);
    check_set(None, 0.31, &p, &[1, 2, 3]);
    check_set(None, 0.69, &p, &[1, 2, 3]);
    check_set(None, 0.71, &p, &[1, 2, 3, 4]);
    check_set(None, 0.96, &p, &[0, 1, 2, 3, 4, 5]);
    check_set(None, 1.0, &p, &[0, 1, 2, 3, 4, 5]);
    // Of equal ones all or none.
    check_set(None, 0.3, &[0.25; 4], &[0, 1, 2, 3]);
    // Among the k most likely: of 0.5 and 0.3 the first has 0.625.
    check_set(Some(2), 0.6, &[0.5, 0.3, 0.2], &[0]);
    check_set(None, 0.6, &[0.5, 0.3, 0.2], &[0, 1]);
}

/// The set by its definition: all prefixes of the sorted probabilities, tried out.
#[test]
fn top_p_of_many_tokens_is_what_its_definition_says() {
    let mut random = bitcost::random::Random::seeded(11);
    let logits: Vec<f32> = (0..300).map(|_| 2.0 * random.normal()).collect();
    let weights: Vec<f64> = logits.iter().map(|l| f64::from(*l).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut order: Vec<usize> = (0..300).collect();
    order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
    for top_p in [0.1f32, 0.5, 0.9, 0.99] {
        let mut sum = 0.0;
        let needed = order.iter().take_while(|id| {
            let before = sum;
            sum += weights[**id] / total;
            before < f64::from(top_p)
        });
        let needed: BTreeSet<u32> = needed.map(|id| *id as u32).collect();
        let mut sampler = sampler(1.0, None, top_p, 12);
        let drawn: BTreeSet<u32> = (0..10_000)
            .map(|_| sampler.next(&logits).expect("a token"))
            .collect();
        assert!(drawn.is_subset(&needed), "{top_p}");
        // A few of the rarest may not come up.
        assert!(
            drawn.len() * 10 >= needed.len() * 9,
            "{top_p}: {} of {}",
            drawn.len(),
            needed.len()
        );
    }
}

#[test]
fn greedy_takes_the_first_of_the_largest() {
    let mut greedy = Sampler::new(Sampling::default()).expect("settings that make sense");
    assert_eq!(greedy.next(&[1.0, 3.0, 3.0, -1.0]), Ok(1));
    assert_eq!(greedy.next(&[f32::NEG_INFINITY, -5.0]), Ok(1));
    assert_eq!(greedy.next(&[-0.0, 0.0]), Ok(0));
}

#[test]
fn temperatures_have_their_limits() {
    // The smallest that there is decides as 0 does, where there is one largest.
    let mut cold = sampler(f32::from_bits(1), None, 1.0, 5);
    assert!((0..100).all(|_| cold.next(&[1.0, 1.0001, -3e38]) == Ok(1)));
    // The largest makes all equally likely, but not what is impossible.
    let drawn = counts(
        &mut sampler(f32::MAX, None, 1.0, 6),
        &[-50.0, 50.0, f32::NEG_INFINITY, 0.0],
    );
    assert_eq!(drawn[2], 0);
    let third = 1.0 / 3.0;
    assert!(chi_square(&drawn, &[third, third, 0.0, third]) < FAR);
}

#[test]
fn a_seed_decides_the_choices() {
    let logits: Vec<f32> = (0..50).map(|id| (id % 7) as f32 / 3.0).collect();
    let draw = |seed| {
        let mut sampler = sampler(0.8, Some(40), 0.95, seed);
        (0..100)
            .map(|_| sampler.next(&logits).expect("a token"))
            .collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn logits_that_are_none_are_errors() {
    for temperature in [0.0, 1.0] {
        let mut sampler = sampler(temperature, None, 1.0, 1);
        for broken in [f32::NAN, f32::INFINITY] {
            let error = sampler.next(&[9.0, 1.0, broken]).expect_err("no logit");
            assert!(
                matches!(error, SamplingError::NotFinite { id: 2, .. }),
                "{error}"
            );
        }
        assert_eq!(sampler.next(&[]), Err(SamplingError::Impossible(0)));
        assert_eq!(
            sampler.next(&[f32::NEG_INFINITY; 3]),
            Err(SamplingError::Impossible(3))
        );
        assert_eq!(sampler.next(&[0.5]), Ok(0));
    }
}

#[test]
fn settings_that_make_no_sense_are_errors() {
    let new = |temperature, top_k, top_p| {
        Sampler::new(Sampling {
            temperature,
            top_k,
            top_p,
            seed: 0,
        })
        .err()
    };
    for temperature in [-0.1, f32::INFINITY, f32::NAN] {
        assert!(matches!(
            new(temperature, None, 1.0),
            Some(SamplingError::Temperature(_))
        ));
    }
    assert_eq!(new(1.0, Some(0), 1.0), Some(SamplingError::TopK));
    for top_p in [0.0, -1.0, 1.1, f32::NAN] {
        assert!(matches!(
            new(1.0, None, top_p),
            Some(SamplingError::TopP(_))
        ));
    }
    assert_eq!(new(0.0, Some(1), 1.0), None);
}

const TINY: &str = "bitnet_tiny/bitlinear";

/// The program's report, with something on its standard input.
fn inspect_with(input: &[u8], args: &[&str]) -> common::Ran {
    let folder = Folder::new();
    let file = std::fs::File::open(folder.write("input", input)).expect("a file just written");
    let mut command = program(args);
    command.stdin(file);
    wait(command, TIME_LIMIT)
}

#[test]
fn the_length_of_a_text_is_the_number_of_its_tokens() {
    let folder = Folder::new();
    let text = folder.write("prompt.txt", "The weights are minus one, zero");
    let model = common::fixture(TINY);
    let report = common::json(&["inspect", &model, "--tokenize", &text, "--format", "json"]);
    assert_eq!(common::int(&report, "workload.seq_len"), 11);
    let notes = common::list(&report, "notes");
    let note = notes
        .iter()
        .find(|note| common::at(note, "code").as_str() == Some("tokens"));
    let message = common::at(note.expect("a note"), "message").to_string();
    assert!(
        message.contains("seq-len 11 is how many tokens"),
        "{message}"
    );
    assert!(
        message.contains("prompt.txt") && message.contains("bitlinear/tokenizer.json"),
        "{message}"
    );

    let length = common::json(&["inspect", &model, "-s", "11", "--format", "json"]);
    assert_eq!(common::at(&report, "totals"), common::at(&length, "totals"));
}

#[test]
fn the_tokens_can_be_those_of_a_folder_or_a_file() {
    let model = common::fixture(TINY);
    let text = "The weights are minus one, zero";
    let texts = &json("text/texts.json")["texts"];
    for (name, place) in [
        ("byte_level", "text/byte_level"),
        ("byte_level", "text/byte_level/tokenizer.json"),
        ("word_pieces", "text/word_pieces/tokenizer.json"),
    ] {
        let tokenizer = common::fixture(place);
        let args = [
            "inspect",
            &model,
            "--tokenize",
            "-",
            "--tokenizer",
            &tokenizer,
        ];
        let ran = inspect_with(text.as_bytes(), &args);
        // Some of these tokens are more than the model has rows, but none of them is in the text.
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
        let mut cases = texts[name].as_array().expect("a list").iter();
        let case = cases.find(|case| case["text"] == text).expect("the text");
        let tokens = ids(&case["with_special"]).len();
        let said = format!("seq-len {tokens} is how many tokens standard input has");
        assert!(ran.out.contains(&said), "{}", ran.out);
    }
}

#[test]
fn batches_of_a_text_are_a_sweep() {
    let model = common::fixture(TINY);
    let args = [
        "inspect",
        &model,
        "--tokenize",
        "-",
        "-b",
        "1,2",
        "--format",
        "csv",
    ];
    let ran = inspect_with(b"zero, one", &args);
    let lengths: Vec<_> = ran
        .out
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(1))
        .collect();
    assert_eq!(lengths, [Some("3"), Some("3")], "{}", ran.out);
}

#[test]
fn a_text_that_cannot_be_counted_is_refused() {
    let model = common::fixture(TINY);
    let folder = Folder::new();
    let text = folder.write("prompt.txt", "one");
    let with = |tokenizer: &str| {
        let args = [
            "inspect",
            &model,
            "--tokenize",
            &text,
            "--tokenizer",
            tokenizer,
        ];
        common::run(&args)
    };
    let own = |model: &str| common::run(&["inspect", model, "--tokenize", &text]);

    refused(
        &inspect_with(b"a\xffb", &["inspect", &model, "--tokenize", "-"]),
        3,
        &["not UTF-8 text: byte 1"],
    );
    refused(
        &inspect_with(b"", &["inspect", &model, "--tokenize", "-"]),
        3,
        &["standard input", "no tokens"],
    );
    refused(
        &with(&common::fixture("bitnet_tiny")),
        3,
        &["there is no tokenizer.json"],
    );
    refused(&with(&folder.file("none.json")), 3, &["none.json"]);
    refused(&with(&text), 3, &["prompt.txt: not a tokenizer"]);
    refused(
        &with("org/absent"),
        3,
        &["org/absent: there is no tokenizer.json", "HF_HUB_OFFLINE"],
    );
    refused(&with("a/b/c"), 3, &["cannot be the id"]);
    refused(&own("torchvision/resnet18"), 2, &["reads no text"]);
    refused(
        &own("openai-community/gpt2"),
        3,
        &["openai-community/gpt2: there is no tokenizer.json"],
    );
    let bare = Folder::new();
    let config = String::from_utf8(fixture(&format!("{TINY}/config.json"))).expect("text");
    bare.write("config.json", &config);
    refused(
        &own(bare.path().to_str().expect("a readable path")),
        3,
        &["no tokenizer.json beside it", "--tokenizer"],
    );

    // The tokens of a text must be rows of the model.
    bare.write("tokenizer.json", fixture(&format!("{TINY}/tokenizer.json")));
    bare.write(
        "config.json",
        config.replace("\"vocab_size\": 384", "\"vocab_size\": 20"),
    );
    refused(
        &own(bare.path().to_str().expect("a readable path")),
        3,
        &["token ", "vocabulary of 20", "tokenizer.json"],
    );
}

#[test]
fn a_length_and_a_text_are_one_too_many() {
    let model = common::fixture(TINY);
    let ran = common::run(&["inspect", &model, "--tokenize", "-", "-s", "3"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("cannot be used with"), "{}", ran.err);
    let ran = common::run(&["inspect", &model, "--tokenizer", &model]);
    assert_eq!(ran.code, Some(2));
}
