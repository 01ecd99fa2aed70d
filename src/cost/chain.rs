//! Blocks one behind the other, written as text or as JSON.
//!
//! ```text
//! chain  = block { ";" block } [ ";" ]
//! block  = name [ "(" [ option { "," option } [ "," ] ] ")" ] [ "*" count ]
//! option = name "=" value
//! value  = word | "[" [ word { "," word } [ "," ] ] "]"
//! word   = letters, digits, "_", ".", "+", "-"
//! ```
//!
//! White space may stand between all of these. A word that is a number is one; `true` and `false` are flags; any other word
//! is a name. Besides its own options every block takes `precision=` and `bias=`, which hold for its layers. The names are
//! those of [`blocks::BLOCKS`] and of the activations.
//!
//! The same as JSON, in which `input`, `input_bits`, `precision`, `bias`, `bops` and `accumulator_bits` may stand too:
//!
//! ```json
//! {"input": [128, 32], "precision": "quantize_2_8",
//!  "blocks": [{"block": "mlp", "hiddens": [64, 64]}, {"block": "transformer", "heads": 4, "repeat": 2}, "relu"]}
//! ```

use super::arguments::{ArgumentError, Arguments, Asked, MAX_ITEMS};
use super::blocks::{self, Run};
use super::operand::width;
use super::register::{Bias, bops_key};
use super::{BitCostRegister, Conventions, CostError, Fault, Operand, Precision};
use crate::bops::BopsKey;
use crate::formula::did_you_mean;
use crate::json;
use crate::units;
use crate::value::{Object, Value};
use std::sync::Arc;

/// The most blocks of a chain, repetitions told one by one.
pub const MAX_BLOCKS: usize = 10_000;

/// Why a chain cannot be read or counted, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A text that is no chain, such as `mlp(hiddens=`.
    #[error("block {block}, column {column} of `{text}`: {reason}")]
    Text {
        /// The number of the block, from 1.
        block: usize,
        /// The character, from 1.
        column: usize,
        /// The text, if it is long its beginning.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// JSON that is none, or no chain.
    #[error("{place}: {reason}")]
    Json {
        /// The block or the key.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A block that does not fit what flows in, such as heads that do not divide its features.
    #[error("block {block} (`{name}`): {error}")]
    Block {
        /// The number of the block, from 1, repetitions told one by one.
        block: usize,
        /// Its name.
        name: &'static str,
        /// What is wrong.
        error: CostError,
    },
    /// No block at all.
    #[error("the chain is empty; write a block, such as 'mlp(hiddens=[64,64])'")]
    Empty,
    /// More blocks than are counted.
    #[error("a chain has at most {MAX_BLOCKS} blocks")]
    TooLong,
}

/// A block of a chain.
struct Link {
    name: &'static str,
    times: usize,
    precision: Option<Precision>,
    bias: Option<Bias>,
    run: Run,
}

/// Blocks one behind the other.
#[derive(Default)]
pub struct Chain {
    links: Vec<Link>,
    /// How many blocks there are, repetitions told one by one.
    blocks: usize,
}

/// A chain with what a file says about its conventions.
#[derive(Default)]
pub struct ChainFile {
    /// The blocks.
    pub chain: Chain,
    /// The sides of the input.
    pub input: Option<Vec<u64>>,
    /// Its width.
    pub input_bits: Option<u32>,
    /// Precision of layers.
    pub precision: Option<Precision>,
    /// What becomes of biases.
    pub bias: Option<Bias>,
    /// The definition of bit operations.
    pub bops: Option<BopsKey>,
    /// Width of accumulators.
    pub accumulator_bits: Option<u32>,
}

impl Chain {
    /// Reads chains, which follow each other.
    pub fn parse(texts: &[impl AsRef<str>]) -> Result<Chain, ChainError> {
        let mut chain = Chain::default();
        for text in texts {
            Reader {
                text: text.as_ref(),
                at: 0,
                block: 1 + chain.links.len(),
            }
            .chain(&mut chain)?;
        }
        chain.finish()
    }

    /// Reads a JSON file's text.
    pub fn from_json(text: &str) -> Result<ChainFile, ChainError> {
        let wrong = |place: &str, reason: String| ChainError::Json {
            place: place.into(),
            reason,
        };
        let value = json::read(text).map_err(|e| ChainError::Json {
            place: format!("line {}, column {}", e.line, e.column),
            reason: e.reason,
        })?;
        let Some(object) = value.as_object() else {
            return Err(wrong(
                "the file",
                "has to be an object with `blocks`".into(),
            ));
        };
        let mut file = ChainFile::default();
        for (key, value) in &object.0 {
            let fail = |reason: String| wrong(&format!("`{}`", units::clipped(key, 40)), reason);
            let text = || {
                let text = value.as_str();
                text.ok_or_else(|| fail(format!("has to be a name, not {}", value.describe())))
            };
            match &**key {
                "blocks" => file.chain = Chain::of_json(value)?,
                "input" => {
                    let sides = Arguments::new(vec![("input".into(), value.clone())])
                        .sizes("input", &[])
                        .map_err(|e| fail(e.reason))?;
                    file.input = Some(sides);
                }
                "input_bits" => file.input_bits = Some(bits(value).map_err(fail)?),
                "accumulator_bits" => file.accumulator_bits = Some(bits(value).map_err(fail)?),
                "precision" => file.precision = Some(Precision::parse(text()?).map_err(fail)?),
                "bias" => file.bias = Some(Bias::parse(text()?).map_err(fail)?),
                "bops" => file.bops = Some(bops_key(text()?).map_err(fail)?),
                _ => {
                    let known = [
                        "blocks",
                        "input",
                        "input_bits",
                        "accumulator_bits",
                        "precision",
                        "bias",
                        "bops",
                    ];
                    let hint = did_you_mean(key, known);
                    return Err(fail(format!(
                        "is nothing that a chain has{hint}; it has {}",
                        known.join(", ")
                    )));
                }
            }
        }
        file.chain = file.chain.finish()?;
        Ok(file)
    }

    fn of_json(value: &Value) -> Result<Chain, ChainError> {
        let mut chain = Chain::default();
        let Value::List(items) = value else {
            return Err(ChainError::Json {
                place: "`blocks`".into(),
                reason: format!("has to be a list, not {}", value.describe()),
            });
        };
        for item in items.iter() {
            let place = format!("block {}", chain.links.len() + 1);
            match item {
                Value::Str(text) => Reader {
                    text,
                    at: 0,
                    block: chain.links.len() + 1,
                }
                .chain(&mut chain)?,
                Value::Object(object) => chain.push_object(object, &place)?,
                _ => {
                    return Err(ChainError::Json {
                        place,
                        reason: "has to be an object with `block`, or a text".into(),
                    });
                }
            }
        }
        Ok(chain)
    }

    fn push_object(&mut self, object: &Object, place: &str) -> Result<(), ChainError> {
        let fail = |reason: String| ChainError::Json {
            place: place.into(),
            reason,
        };
        let name = object.get("block").and_then(Value::as_str);
        let name = name.ok_or_else(|| fail("has no `block`, its name".into()))?;
        let repeat = Arguments::new(
            object
                .get("repeat")
                .map(|times| ("repeat".into(), times.clone()))
                .into_iter()
                .collect(),
        )
        .size("repeat", 1)
        .map_err(|e| fail(e.reason))?;
        let options = object.0.iter();
        let options: Vec<(Arc<str>, Value)> = options
            .filter(|(key, _)| !matches!(&**key, "block" | "repeat"))
            .cloned()
            .collect();
        self.push(name, options, repeat)
            .map_err(|refused| match refused {
                Refused::Name(reason) | Refused::Argument(_, reason) => fail(reason),
                Refused::TooLong => ChainError::TooLong,
            })
    }

    /// Adds a block by its name and its options as they were written.
    fn push(
        &mut self,
        name: &str,
        options: Vec<(Arc<str>, Value)>,
        times: u64,
    ) -> Result<(), Refused> {
        let Some(found) = blocks::find(name) else {
            let names: Vec<&str> = blocks::names().collect();
            return Err(Refused::Name(format!(
                "there is no block `{}`{}; there are {}",
                units::clipped(name, 40),
                did_you_mean(name, names.iter().copied()),
                names.join(", ")
            )));
        };
        let mut arguments = Arguments::new(options);
        type Options = (Run, Option<Precision>, Option<Bias>);
        let read = |arguments: &mut Arguments| -> Result<Options, ArgumentError> {
            let run = found.read(arguments)?;
            let precision = arguments.text("precision", "the chain's", Precision::parse)?;
            let bias = arguments.text("bias", "the chain's", Bias::parse)?;
            Ok((run, precision, bias))
        };
        let refused = |e: ArgumentError| Refused::Argument(e.argument, e.reason);
        let read = read(&mut arguments);
        // An option that does not exist explains one that seems to be missing.
        let (run, precision, bias) = match read {
            Ok(read) => {
                arguments.finish().map_err(refused)?;
                read
            }
            Err(error) if error.argument.is_none() => {
                arguments.finish().map_err(refused)?;
                return Err(refused(error));
            }
            Err(error) => return Err(refused(error)),
        };
        let times = usize::try_from(times).unwrap_or(usize::MAX);
        self.blocks = self.blocks.saturating_add(times);
        if self.blocks > MAX_BLOCKS {
            return Err(Refused::TooLong);
        }
        self.links.push(Link {
            name: blocks::names()
                .find(|known| *known == name)
                .unwrap_or_default(),
            times,
            precision,
            bias,
            run,
        });
        Ok(())
    }

    fn finish(self) -> Result<Chain, ChainError> {
        if self.links.is_empty() {
            return Err(ChainError::Empty);
        }
        Ok(self)
    }

    /// Runs an operand through all blocks and gives the log.
    pub fn count(
        &self,
        input: Operand,
        conventions: Conventions,
    ) -> Result<BitCostRegister, ChainError> {
        let mut register = BitCostRegister::new(conventions);
        let mut x = input;
        let mut block = 0;
        for link in &self.links {
            for _ in 0..link.times {
                block += 1;
                let out = register.with(link.precision, link.bias, |r| (link.run)(x, r));
                x = out.map_err(|error| ChainError::Block {
                    block,
                    name: link.name,
                    error,
                })?;
            }
        }
        Ok(register)
    }
}

/// Why a block was not added.
enum Refused {
    /// Its name, or what is missing.
    Name(String),
    /// One of its options.
    Argument(Option<usize>, String),
    /// There are too many.
    TooLong,
}

/// The options of a block with their defaults.
pub fn options(name: &str) -> Vec<Asked> {
    // A required option ends the reading, so each is given in turn.
    let mut given: Vec<(Arc<str>, Value)> = Vec::new();
    loop {
        let mut arguments = Arguments::new(given.clone());
        let read = blocks::find(name).map(|found| found.read(&mut arguments).err());
        let asked = arguments.asked().to_vec();
        match (read, asked.last()) {
            (Some(Some(_)), Some(last)) if given.len() < asked.len() => {
                given.push((last.name.into(), Value::Int(1)));
            }
            _ => return asked,
        }
    }
}

fn bits(value: &Value) -> Result<u32, String> {
    let bits = value.as_int().and_then(|n| u32::try_from(n).ok());
    let bits = bits.ok_or_else(|| format!("is a number of bits, not {}", value.describe()))?;
    width(bits).map_err(|fault: Fault| fault.to_string())
}

/// A text and where it is read.
struct Reader<'t> {
    text: &'t str,
    /// Bytes before what is read next.
    at: usize,
    /// The number of the block that is read.
    block: usize,
}

impl<'t> Reader<'t> {
    fn error(&self, at: usize, reason: impl Into<String>) -> ChainError {
        ChainError::Text {
            block: self.block,
            column: self.text[..at].chars().count() + 1,
            text: units::clipped(self.text, 60),
            reason: reason.into(),
        }
    }

    fn space(&mut self) {
        let rest = self.text[self.at..].trim_start();
        self.at = self.text.len() - rest.len();
    }

    fn eat(&mut self, symbol: char) -> bool {
        self.space();
        let found = self.text[self.at..].starts_with(symbol);
        if found {
            self.at += symbol.len_utf8();
        }
        found
    }

    fn expected(&self, what: &str) -> ChainError {
        let found = match self.text[self.at..].chars().next() {
            Some(c) => format!("found `{}`", units::visible(&c.to_string())),
            None => "the text ends here".into(),
        };
        self.error(self.at, format!("expected {what}, {found}"))
    }

    fn word(&mut self, what: &str) -> Result<(usize, &'t str), ChainError> {
        self.space();
        let rest = &self.text[self.at..];
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || "_.+-".contains(c)))
            .unwrap_or(rest.len());
        if end == 0 {
            return Err(self.expected(what));
        }
        let begin = self.at;
        self.at += end;
        Ok((begin, &rest[..end]))
    }

    fn chain(mut self, chain: &mut Chain) -> Result<(), ChainError> {
        loop {
            self.space();
            if self.at == self.text.len() {
                return Ok(());
            }
            self.block_into(chain)?;
            self.block += 1;
            if !self.eat(';') {
                self.space();
                return if self.at == self.text.len() {
                    Ok(())
                } else {
                    Err(self.expected("`;` and the next block, or the end"))
                };
            }
        }
    }

    fn block_into(&mut self, chain: &mut Chain) -> Result<(), ChainError> {
        let (begin, name) = self.word("the name of a block")?;
        let mut options: Vec<(Arc<str>, Value)> = Vec::new();
        let mut columns = Vec::new();
        if self.eat('(') {
            while !self.eat(')') {
                let (at, option) = self.word("an option, such as act=relu, or `)`")?;
                if !self.eat('=') {
                    return Err(self.expected(&format!(
                        "`=` and a value after `{}`",
                        units::clipped(option, 40)
                    )));
                }
                options.push((option.into(), self.value()?));
                columns.push(at);
                if !self.eat(',') && !self.text[self.at..].starts_with(')') {
                    return Err(self.expected("`,` or `)`"));
                }
            }
        }
        let times = if self.eat('*') {
            let (at, times) = self.word("how often, such as * 12")?;
            let wrong = || self.error(at, "a block is repeated 1 time or more");
            let times = times.parse::<u64>().ok().filter(|n| *n > 0);
            times.ok_or_else(wrong)?
        } else {
            1
        };
        chain
            .push(name, options, times)
            .map_err(|refused| match refused {
                Refused::Name(reason) => self.error(begin, reason),
                Refused::Argument(argument, reason) => {
                    let at = argument.and_then(|argument| columns.get(argument));
                    self.error(*at.unwrap_or(&begin), reason)
                }
                Refused::TooLong => ChainError::TooLong,
            })
    }

    fn value(&mut self) -> Result<Value, ChainError> {
        if !self.eat('[') {
            let (_, word) = self.word("a value")?;
            return Ok(value_of(word));
        }
        let mut items = Vec::new();
        while !self.eat(']') {
            if items.len() == MAX_ITEMS {
                return Err(self.error(self.at, format!("a list has at most {MAX_ITEMS} items")));
            }
            let (_, word) = self.word("an item or `]`")?;
            items.push(value_of(word));
            if !self.eat(',') && !self.text[self.at..].starts_with(']') {
                return Err(self.expected("`,` or `]`"));
            }
        }
        Ok(Value::List(items.into()))
    }
}

fn value_of(word: &str) -> Value {
    match word {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        word => json::exact_number(word).unwrap_or_else(|| Value::str(word)),
    }
}
