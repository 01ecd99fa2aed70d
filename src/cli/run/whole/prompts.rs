//! What a model goes on from: texts, chats or numbers of tokens.

use super::super::super::args::RunArgs;
use super::super::super::{Failure, input, read_text, tokens, usage};
use crate::source::{self, ModelFiles, Settings, Wanted};
use crate::text::{
    CHAT_TEMPLATE, GENERATION_CONFIG, Message, Prompt, TOKENIZER, TOKENIZER_CONFIG, Tokenizer,
    TokenizerConfig, stop_tokens,
};

/// Tokens that are made up where only speed is asked for.
const MADE_UP: u32 = 8;

/// What goes into a model, and what makes text of what comes out.
pub(super) struct Prompts {
    /// Tokens of each prompt.
    pub(super) ids: Vec<Vec<u32>>,
    /// What makes text of tokens, if there is something.
    pub(super) tokenizer: Option<Tokenizer>,
    /// Tokens that end a text.
    pub(super) stop: Vec<u32>,
}

impl Prompts {
    /// What the command line asks for; all that can be wrong is found here, before any long work.
    pub(super) fn read(
        args: &RunArgs,
        files: &ModelFiles,
        wanted: &Wanted,
        settings: &Settings,
        vocabulary: usize,
    ) -> Result<Prompts, Failure> {
        let asked = &args.text;
        let needs_tokenizer = asked.prompt.is_some() || asked.prompt_file.is_some();
        let found = tokenizer(args, files, wanted, settings);
        let found = match (needs_tokenizer, asked.tokenizer.is_some()) {
            (false, false) => found.ok(),
            (true, false) => Some(found.map_err(|failure| {
                Failure {
                    error: failure
                        .error
                        .context("a prompt needs a tokenizer; --ids takes tokens by number"),
                    ..failure
                }
            })?),
            (_, true) => Some(found?),
        };
        let texts = match (&asked.prompt, &asked.prompt_file) {
            (Some(text), _) => vec![text.clone()],
            (None, Some(path)) => lines(path)?,
            (None, None) => Vec::new(),
        };
        let ids = match &found {
            _ if !asked.ids.is_empty() => vec![asked.ids.clone()],
            Some((tokenizer, label)) if needs_tokenizer => {
                let config = tokenizer_config(args, files, wanted, settings)?;
                let begin = match asked.no_bos || config.add_bos_token == Some(false) {
                    true => None,
                    false => config.bos_token.as_ref().and_then(|bos| tokenizer.id(bos)),
                };
                let encode = |text: &String| match asked.chat {
                    true => {
                        let text = chat(&config, label, asked.system.as_deref(), text)?;
                        // The template writes what begins a text itself.
                        Ok(tokenizer.encode(&text, false)?)
                    }
                    false => {
                        let mut ids = tokenizer.encode(text, true)?;
                        // Models are trained on texts that begin with it, and not all tokenizers put it there.
                        if let Some(bos) = begin.filter(|bos| ids.first() != Some(bos)) {
                            ids.insert(0, bos);
                        }
                        Ok(ids)
                    }
                };
                texts.iter().map(encode).collect::<Result<_, Failure>>()?
            }
            _ => vec![(0..MADE_UP).map(|id| id % vocabulary as u32).collect()],
        };
        for (number, ids) in ids.iter().enumerate() {
            if ids.is_empty() {
                return Err(usage(format!("prompt {} has no tokens", number + 1)));
            }
            if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
                return Err(input(format!(
                    "prompt {}: token {id} is beyond the model's vocabulary of {vocabulary}{}",
                    number + 1,
                    match &found {
                        Some((_, label)) if needs_tokenizer =>
                            format!("; {label} is of another model"),
                        _ => String::new(),
                    }
                )));
            }
        }
        let stop = match asked.ignore_stop {
            true => Vec::new(),
            false => stop(files)?,
        };
        Ok(Prompts {
            ids,
            tokenizer: found.map(|(tokenizer, _)| tokenizer),
            stop,
        })
    }
}

/// The tokenizer that was named or the model's own, and what messages call it.
fn tokenizer(
    args: &RunArgs,
    files: &ModelFiles,
    wanted: &Wanted,
    settings: &Settings,
) -> Result<(Tokenizer, String), Failure> {
    let file = match &args.text.tokenizer {
        Some(id) => source::read(id, TOKENIZER, &elsewhere(wanted), settings)?,
        None => tokens::own(files, wanted, settings)?,
    };
    Ok((Tokenizer::parse(&file.label, &file.bytes)?, file.label))
}

/// What is wanted of the model, such as a revision, is not of another repository.
fn elsewhere(wanted: &Wanted) -> Wanted {
    Wanted {
        source: None,
        revision: None,
        ..wanted.clone()
    }
}

/// The settings beside the tokenizer.
fn tokenizer_config(
    args: &RunArgs,
    files: &ModelFiles,
    wanted: &Wanted,
    settings: &Settings,
) -> Result<TokenizerConfig, Failure> {
    let read = |name: &str| match (&args.text.tokenizer, &files.files) {
        (Some(id), _) => source::read(id, name, &elsewhere(wanted), settings)
            .ok()
            .map(|file| (file.label, file.bytes)),
        (None, Some(place)) => {
            let bytes = place.read(name).ok().flatten();
            bytes.map(|bytes| (place.label(name), bytes))
        }
        (None, None) => None,
    };
    let (config, template) = (read(TOKENIZER_CONFIG), read(CHAT_TEMPLATE));
    fn borrowed(file: &Option<(String, Vec<u8>)>) -> Option<(&str, &[u8])> {
        file.as_ref()
            .map(|(label, bytes)| (label.as_str(), bytes.as_slice()))
    }
    Ok(TokenizerConfig::parse(
        borrowed(&config),
        borrowed(&template),
    )?)
}

/// A prompt as the first thing that a user says.
fn chat(
    config: &TokenizerConfig,
    label: &str,
    system: Option<&str>,
    text: &str,
) -> Result<String, Failure> {
    let template = config.chat_template.as_ref().ok_or_else(|| {
        input(format!("{label}: the tokenizer has no chat template; without --chat the prompt goes in as it is"))
    })?;
    let system = system.map(|text| Message::new("system", text));
    let messages: Vec<Message> = system
        .into_iter()
        .chain([Message::new("user", text)])
        .collect();
    Ok(template.render(&Prompt {
        messages: &messages,
        add_generation_prompt: true,
        bos: config.bos_token.as_deref(),
        eos: config.eos_token.as_deref(),
        now: jiff::tz::Offset::UTC.to_datetime(jiff::Timestamp::now()),
    })?)
}

/// The prompts of a file, one a line; empty lines are none.
fn lines(path: &std::path::Path) -> Result<Vec<String>, Failure> {
    let text = read_text(path)?;
    let lines: Vec<String> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(str::to_string)
        .collect();
    match lines.is_empty() {
        true => Err(input(format!(
            "{}: there is no prompt in it",
            path.display()
        ))),
        false => Ok(lines),
    }
}

/// The tokens that end a text, as the model's files say.
fn stop(files: &ModelFiles) -> Result<Vec<u32>, Failure> {
    let place = files.files.as_ref();
    let generation = place.and_then(|place| {
        Some((
            place.label(GENERATION_CONFIG),
            place.read(GENERATION_CONFIG).ok()??,
        ))
    });
    let generation = generation
        .as_ref()
        .map(|(label, bytes)| (label.as_str(), bytes.as_slice()));
    match &files.config {
        Some(config) => Ok(stop_tokens(generation, &files.file, config)?),
        None => Ok(Vec::new()),
    }
}
