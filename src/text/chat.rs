//! A chat template: messages in, the prompt that the model was trained on out.
//!
//! Templates are programs in the language Jinja, of which `minijinja` is an engine. What transformers gives them besides is
//! given here: `raise_exception`, `strftime_now`, python's methods of strings and maps and its words for `None` and `True`, a
//! `tojson` that escapes nothing, and the blocks `{% generation %}`, which mark what is trained on and mean nothing here.
//! Lists and maps that are printed whole are not spelled as python spells them. Templates come with models, so they are held
//! to a number of steps.

use super::TextError;
use jiff::civil::DateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, context, escape_formatter};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::sync::Arc;

/// Steps after which a template is taken to run for ever.
const MAX_STEPS: u64 = 10_000_000;

/// The name of the template in its environment.
const NAME: &str = "chat";

/// One thing that was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who: `system`, `user`, `assistant`.
    pub role: String,
    /// What.
    pub content: String,
}

impl Message {
    /// What `role` said.
    pub fn new(role: &str, content: &str) -> Message {
        Message {
            role: role.into(),
            content: content.into(),
        }
    }
}

/// What a template is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'a> {
    /// What was said.
    pub messages: &'a [Message],
    /// Whether the prompt ends where the model's answer begins.
    pub add_generation_prompt: bool,
    /// The token that a text begins with.
    pub bos: Option<&'a str>,
    /// The token that a text ends with.
    pub eos: Option<&'a str>,
    /// The date that the template may tell the model.
    pub now: DateTime,
}

/// A chat template, read.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    file: Arc<str>,
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChatTemplate({})", self.file)
    }
}

impl ChatTemplate {
    /// Reads a template; errors call it `file`.
    pub fn parse(file: &str, source: String) -> Result<ChatTemplate, TextError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.expect("the usual delimiters, which do not clash"));
        environment.set_fuel(Some(MAX_STEPS));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(as_python_prints);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", raise_exception);
        let read = environment.add_template_owned(NAME, without_generation_blocks(&source));
        read.map_err(|e| TextError::Template {
            file: file.into(),
            reason: reason(&e),
        })?;
        Ok(ChatTemplate {
            environment: Arc::new(environment),
            file: file.into(),
        })
    }

    /// The prompt of a chat.
    pub fn render(&self, prompt: &Prompt<'_>) -> Result<String, TextError> {
        let now = prompt.now;
        let strftime_now = move |format: &str| {
            let text = jiff::fmt::strtime::format(format, now);
            text.map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()))
        };
        let template = self.environment.get_template(NAME);
        let text = template.and_then(|template| {
            template.render(context! {
                messages => Serde(prompt.messages),
                add_generation_prompt => prompt.add_generation_prompt,
                bos_token => prompt.bos.unwrap_or(""),
                eos_token => prompt.eos.unwrap_or(""),
                strftime_now => Value::from_function(strftime_now),
            })
        });
        text.map_err(|e| TextError::Render {
            file: self.file.to_string(),
            reason: reason(&e),
        })
    }
}

/// What is wrong, and in which line.
fn reason(error: &Error) -> String {
    let what = error
        .detail()
        .map_or_else(|| error.kind().to_string(), String::from);
    match error.line() {
        Some(line) => format!("line {line}: {what}"),
        None => what,
    }
}

/// Python's words for what is printed; the engine writes `none` and `true`.
fn as_python_prints(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    let word = match (value.is_none(), value.kind(), value.is_true()) {
        (true, ..) => "None",
        (_, ValueKind::Bool, true) => "True",
        (_, ValueKind::Bool, false) => "False",
        _ => return escape_formatter(out, state, value),
    };
    out.write_str(word).map_err(Error::from)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// `{% generation %}` and its end as a scope, which is what is left of them where nothing is trained.
fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        let Some((inside, after)) = tag.split_once("%}") else {
            break;
        };
        let word = inside.trim_matches(|c: char| matches!(c, '-' | '+') || c.is_whitespace());
        let scope = match word {
            "generation" => "with",
            "endgeneration" => "endwith",
            _ => word,
        };
        out.push_str(before);
        out.push_str("{%");
        out.push_str(&inside.replace(word, scope));
        out.push_str("%}");
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Python's `json.dumps` with `ensure_ascii=False`, as transformers has it; the engine's own escapes for HTML.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // The default here, which some templates spell out.
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        Some(width) => {
            let width = " ".repeat(width.min(16));
            let pretty = serde_json::ser::PrettyFormatter::with_indent(width.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(
                &mut out, pretty,
            ))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut out, Spaced,
        )),
    };
    let fail = |e: &dyn fmt::Display| Error::new(ErrorKind::BadSerialization, e.to_string());
    written.map_err(|e| fail(&e))?;
    let text = String::from_utf8(out).map_err(|e| fail(&e))?;
    Ok(Value::from_safe_string(text))
}

/// JSON in one line with python's spaces: `{"a": 1, "b": [2, 3]}`.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}
