//! Cuts the text of a formula into tokens.

use super::MAX_LENGTH;
use crate::value::Value;
use std::fmt;

/// A token and the byte it begins at.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token<'a> {
    pub at: usize,
    pub kind: TokenKind<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind<'a> {
    Number(Value),
    Str(&'a str),
    /// A name or a word like `if`.
    Word(&'a str),
    /// `${name}`.
    Param(&'a str),
    /// `{Class}`.
    Class(&'a str),
    Symbol(&'static str),
    End,
}

/// Why a text is not a formula, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{expect}")]
pub struct SyntaxError {
    /// Byte offset in the text.
    pub at: usize,
    /// What would have been right there.
    pub expect: Expect,
}

/// What a formula lacks at the place of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// `1 + #`
    Token(char),
    /// `'abc`
    QuoteEnd,
    /// `${hidden size}`
    ParamName(String),
    /// `{}(x)`
    ClassName(String),
    /// `1.2.3`, `12abc`
    Number(String),
    /// `(1 + 2`: what is missing, and what was found
    Missing(&'static str, String),
    /// `${Linear}(x)`
    SigilsSwapped(String),
    /// `{hidden_size} * 2`
    ModuleArguments(String),
    /// `a < b < c`
    ComparisonChain,
    /// `max(a, b=1)`
    NamedArgument(String),
    /// `{Linear}(a=1, 2)`
    PositionalAfterNamed,
    /// more than 16384 bytes
    Shorter,
    /// more than 64 levels
    Shallower,
    /// `1 + 1 + 1 + ...` of more than 160 terms
    FewerTerms,
    /// 41 digits
    Smaller(String),
    /// `x * for`
    Operand(String),
    /// `2(x)`
    Callable,
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expect::Token(c) => write!(f, "`{}` means nothing in a formula", c.escape_debug()),
            Expect::QuoteEnd => f.write_str("this string has no closing quote"),
            Expect::ParamName(s) => write!(
                f,
                "`${{{}}}` is not a name; write `${{name}}`",
                s.escape_debug()
            ),
            Expect::ClassName(s) => write!(
                f,
                "`{{{}}}` is not a class; write `{{Class}}(...)`",
                s.escape_debug()
            ),
            Expect::Number(s) => write!(f, "`{}` is not a number", s.escape_debug()),
            Expect::Missing(what, found) => write!(f, "expected {what}, found {found}"),
            Expect::SigilsSwapped(s) => {
                write!(
                    f,
                    "`${{{s}}}` is a value and cannot be called; a module call is written `{{{s}}}(...)`"
                )
            }
            Expect::ModuleArguments(s) => {
                write!(
                    f,
                    "`{{{s}}}` calls a module and needs `(...)` behind it; a value is written `${{{s}}}`"
                )
            }
            Expect::ComparisonChain => {
                f.write_str("comparisons cannot be chained; write `a < b and b < c`")
            }
            Expect::NamedArgument(s) => {
                write!(f, "only modules take arguments by name, not `{s}(...)`")
            }
            Expect::PositionalAfterNamed => {
                f.write_str("an argument by position cannot follow one by name")
            }
            Expect::Shorter => write!(f, "a formula may have {MAX_LENGTH} bytes at most"),
            Expect::FewerTerms => write!(
                f,
                "a formula's nesting and the length of its chains may add up to {} at most",
                super::MAX_HEIGHT
            ),
            Expect::Smaller(s) => write!(f, "`{}` does not fit 128 bits", s.escape_debug()),
            Expect::Shallower => write!(
                f,
                "a formula may be nested {} levels deep at most",
                super::MAX_DEPTH
            ),
            Expect::Operand(s) => write!(f, "expected a value, found {s}"),
            Expect::Callable => f.write_str("only a function, a child or `{Class}` can be called"),
        }
    }
}

const SYMBOLS: [&str; 23] = [
    "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "<", ">", "=", "(", ")", "[", "]",
    ",", ".", "{", "}", ";",
];

pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, SyntaxError> {
    if text.len() > MAX_LENGTH {
        return Err(SyntaxError {
            at: MAX_LENGTH,
            expect: Expect::Shorter,
        });
    }
    let mut out = Vec::with_capacity(text.len() / 3 + 2);
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let (kind, length) = token(&text[at..], c).map_err(|expect| SyntaxError { at, expect })?;
        out.push(Token { at, kind });
        at += length;
    }
    out.push(Token {
        at: text.len(),
        kind: TokenKind::End,
    });
    Ok(out)
}

fn token(rest: &str, first: char) -> Result<(TokenKind<'_>, usize), Expect> {
    if first.is_ascii_digit() {
        return number(rest);
    }
    if first == '_' || first.is_ascii_alphabetic() {
        let length = word_length(rest);
        return Ok((TokenKind::Word(&rest[..length]), length));
    }
    if first == '\'' || first == '"' {
        let end = rest[1..].find(first).ok_or(Expect::QuoteEnd)?;
        return Ok((TokenKind::Str(&rest[1..=end]), end + 2));
    }
    if let Some(inner) = rest.strip_prefix("${") {
        let name = &inner[..inner.find('}').unwrap_or(inner.len())];
        let valid = !name.is_empty()
            && word_length(name) == name.len()
            && !name.as_bytes()[0].is_ascii_digit();
        if !valid || inner.len() == name.len() {
            return Err(Expect::ParamName(shortened(name)));
        }
        return Ok((TokenKind::Param(name), name.len() + 3));
    }
    if let Some(inner) = rest.strip_prefix('{') {
        let class = &inner[..inner.find('}').unwrap_or(inner.len())];
        let valid = !class.is_empty()
            && class
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
        if !valid || inner.len() == class.len() {
            return Err(Expect::ClassName(shortened(class)));
        }
        return Ok((TokenKind::Class(class), class.len() + 2));
    }
    let symbol = SYMBOLS
        .iter()
        .find(|s| rest.starts_with(**s))
        .ok_or(Expect::Token(first))?;
    Ok((TokenKind::Symbol(symbol), symbol.len()))
}

fn number(rest: &str) -> Result<(TokenKind<'_>, usize), Expect> {
    let mut length = rest
        .bytes()
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'))
        .count();
    // `1e-5`: the sign belongs to the exponent.
    if rest[..length].ends_with(['e', 'E']) && rest[length..].starts_with(['+', '-']) {
        length += 1 + rest[length + 1..]
            .bytes()
            .take_while(u8::is_ascii_digit)
            .count();
    }
    let text = &rest[..length];
    match crate::json::exact_number(&text.replace('_', "")) {
        Some(value @ (Value::Int(_) | Value::Ratio(_))) => Ok((TokenKind::Number(value), length)),
        Some(_) => Err(Expect::Smaller(shortened(text))),
        None => Err(Expect::Number(shortened(text))),
    }
}

fn word_length(text: &str) -> usize {
    text.bytes()
        .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_')
        .count()
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

impl TokenKind<'_> {
    pub(super) fn describe(&self) -> String {
        match self {
            TokenKind::Number(v) => format!("`{v}`"),
            TokenKind::Str(s) => format!("'{}'", s.escape_debug()),
            TokenKind::Word(w) => format!("`{w}`"),
            TokenKind::Param(p) => format!("`${{{p}}}`"),
            TokenKind::Class(c) => format!("`{{{c}}}`"),
            TokenKind::Symbol(s) => format!("`{s}`"),
            TokenKind::End => "the end".into(),
        }
    }
}
