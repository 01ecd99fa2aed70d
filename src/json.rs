//! Reads the JSON that configs and databases are written in, exactly.
//!
//! Text in, [`Value`] out, or an error with line and column. Not serde_json, for three reasons that matter here: real
//! configs hold `Infinity`, `-Infinity` and `NaN`, which are not JSON; decimals must become exact ratios instead of
//! floats; and a key that stands twice must be refused instead of silently overwritten. Depth and size are bounded.

use crate::value::{Object, Value};
use std::io::Write;
use std::sync::Arc;

/// Deepest nesting that is read.
pub const MAX_DEPTH: usize = 128;

/// Where and why a text is not JSON.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct JsonError {
    /// Line, from 1.
    pub line: usize,
    /// Column in bytes, from 1.
    pub column: usize,
    /// What is wrong there.
    pub reason: String,
}

/// Reads one JSON value; nothing but white space may follow it.
pub fn read(text: &str) -> Result<Value, JsonError> {
    let mut reader = Reader::new(text);
    let value = reader.value(0)?;
    reader.end()?;
    Ok(value)
}

/// Reads the keys of one JSON object and leaves each value unread, as the slice of text that it stands in.
///
/// This is how a database of hundreds of entries is indexed at every start without reading the entries.
pub fn read_index(text: &str) -> Result<Vec<(Arc<str>, &str)>, JsonError> {
    let mut reader = Reader::new(text);
    let mut entries = Vec::new();
    let mut seen = std::collections::HashSet::new();
    reader.object(|reader, key| {
        if !seen.insert(key.clone()) {
            return Err(reader.error(format!("the key \"{}\" stands twice", key.escape_debug())));
        }
        let start = reader.at;
        reader.skip(1)?;
        entries.push((key, &reader.text[start..reader.at]));
        Ok(())
    })?;
    reader.end()?;
    Ok(entries)
}

/// JSON on its way out, with U+007F to U+009F, which JSON leaves as they are and terminals obey, as escapes. What is written
/// at once is whole characters, as serde does.
pub struct Escaped<W>(pub W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.write_all(text)?;
        Ok(text.len())
    }

    fn write_all(&mut self, text: &[u8]) -> std::io::Result<()> {
        let steers = |at: &usize| match text[*at] {
            0x7f => true,
            // In UTF-8, U+0080 to U+009F are C2 and the number itself.
            0xc2 => text
                .get(*at + 1)
                .is_some_and(|next| (0x80..=0x9f).contains(next)),
            _ => false,
        };
        if text.is_ascii() && !text.contains(&0x7f) {
            return self.0.write_all(text);
        }
        let mut begin = 0;
        for at in (0..text.len()).filter(steers) {
            let length = 1 + usize::from(text[at] == 0xc2);
            self.0.write_all(&text[begin..at])?;
            write!(self.0, "\\u{:04x}", text[at + length - 1])?;
            begin = at + length;
        }
        self.0.write_all(&text[begin..])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Reader {
            text,
            bytes: text.as_bytes(),
            at: 0,
        }
    }

    fn error(&self, reason: impl Into<String>) -> JsonError {
        let before = &self.bytes[..self.at.min(self.bytes.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
        JsonError {
            line,
            column,
            reason: reason.into(),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn expected(&self, what: &str) -> JsonError {
        match self
            .text
            .get(self.at..)
            .and_then(|rest| rest.chars().next())
        {
            Some(c) => self.error(format!("expected {what}, found `{}`", c.escape_debug())),
            None => self.error(format!("expected {what}, but the text ends here")),
        }
    }

    fn eat(&mut self, byte: u8, what: &str) -> Result<(), JsonError> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.expected(what))
        }
    }

    fn end(&mut self) -> Result<(), JsonError> {
        self.space();
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(self.expected("nothing more"))
        }
    }

    fn deeper(&self, depth: usize) -> Result<usize, JsonError> {
        if depth >= MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(depth + 1)
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.space();
        match self.peek() {
            Some(b'{') => {
                let depth = self.deeper(depth)?;
                let mut fields: Vec<(Arc<str>, Value)> = Vec::new();
                let mut keys = std::collections::HashSet::new();
                self.object(|reader, key| {
                    if !keys.insert(key.clone()) {
                        return Err(reader
                            .error(format!("the key \"{}\" stands twice", key.escape_debug())));
                    }
                    let value = reader.value(depth)?;
                    fields.push((key, value));
                    Ok(())
                })?;
                Ok(Value::Object(Arc::new(Object(fields))))
            }
            Some(b'[') => {
                let depth = self.deeper(depth)?;
                let mut items = Vec::new();
                self.list(|reader| {
                    items.push(reader.value(depth)?);
                    Ok(())
                })?;
                Ok(Value::List(items.into()))
            }
            Some(b'"') => Ok(Value::Str(self.string()?)),
            Some(b'-' | b'0'..=b'9') if !self.text[self.at..].starts_with("-I") => self.number(),
            _ => self.word(),
        }
    }

    fn object(
        &mut self,
        mut field: impl FnMut(&mut Self, Arc<str>) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.space();
        self.eat(b'{', "`{`")?;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            let key = self.string()?;
            self.space();
            self.eat(b':', "`:` after a key")?;
            self.space();
            field(self, key)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                _ => return self.eat(b'}', "`,` or `}`"),
            }
        }
    }

    fn list(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.eat(b'[', "`[`")?;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                _ => return self.eat(b']', "`,` or `]`"),
            }
        }
    }

    /// Passes over a value without building it. Brackets and strings are matched here; the rest is checked when the
    /// slice is read.
    fn skip(&mut self, depth: usize) -> Result<(), JsonError> {
        let mut open = depth;
        loop {
            match self.peek() {
                None => return Err(self.expected("a value")),
                Some(b'"') => self.skip_string()?,
                Some(b'{' | b'[') => {
                    open = self.deeper(open)?;
                    self.at += 1;
                }
                Some(b'}' | b']') => {
                    if open == depth {
                        return Ok(());
                    }
                    open -= 1;
                    self.at += 1;
                }
                Some(b',') if open == depth => return Ok(()),
                Some(_) => self.at += 1,
            }
        }
    }

    fn skip_string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err(self.expected("`\"`")),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
            }
        }
    }

    fn string(&mut self) -> Result<Arc<str>, JsonError> {
        self.eat(b'"', "`\"`")?;
        let start = self.at;
        while !matches!(self.peek(), None | Some(b'"' | b'\\' | 0..0x20)) {
            self.at += 1;
        }
        if self.peek() == Some(b'"') {
            let text = &self.text[start..self.at];
            self.at += 1;
            return Ok(text.into());
        }
        let mut out = String::from(&self.text[start..self.at]);
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out.into());
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                Some(0..0x20) => return Err(self.error("a control character inside a string")),
                None => return Err(self.expected("`\"`")),
                Some(_) => {
                    let rest = &self.text[self.at..];
                    let c = rest
                        .chars()
                        .next()
                        .expect("peek saw a byte, so the rest is not empty");
                    out.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let byte = self.peek().ok_or_else(|| self.expected("an escape"))?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => byte as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex4()?;
                // A surrogate pair is two escapes for one character; a lone half becomes the replacement character.
                if (0xD800..0xDC00).contains(&first) && self.bytes[self.at..].starts_with(b"\\u") {
                    let back = self.at;
                    self.at += 2;
                    let second = self.hex4()?;
                    if (0xDC00..0xE000).contains(&second) {
                        let code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
                        return Ok(char::from_u32(code).unwrap_or('\u{fffd}'));
                    }
                    self.at = back;
                }
                char::from_u32(first).unwrap_or('\u{fffd}')
            }
            _ => {
                self.at -= 1;
                return Err(self.expected("one of \" \\ / b f n r t u after `\\`"));
            }
        })
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self
            .text
            .get(self.at..self.at + 4)
            .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let digits = digits.ok_or_else(|| self.error("expected four hexadecimal digits"))?;
        self.at += 4;
        Ok(u32::from_str_radix(digits, 16).expect("four hexadecimal digits fit u32"))
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        while matches!(
            self.peek(),
            Some(b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')
        ) {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        exact_number(text).ok_or_else(|| {
            self.at = start;
            self.error(format!("`{text}` is not a number"))
        })
    }

    fn word(&mut self) -> Result<Value, JsonError> {
        const WORDS: [(&str, Option<Value>); 6] = [
            ("null", Some(Value::None)),
            ("true", Some(Value::Bool(true))),
            ("false", Some(Value::Bool(false))),
            ("-Infinity", None),
            ("Infinity", None),
            ("NaN", None),
        ];
        for (word, value) in WORDS {
            if self
                .text
                .get(self.at..)
                .is_some_and(|rest| rest.starts_with(word))
            {
                self.at += word.len();
                return Ok(value.unwrap_or_else(|| Value::Opaque(word.into())));
            }
        }
        Err(self.expected("a value"))
    }
}

/// The exact value of a JSON number: an integer, a ratio, or opaque where it does not fit 128 bits.
///
/// `None`: the text is not a number.
pub fn exact_number(text: &str) -> Option<Value> {
    let (negative, unsigned) = text
        .strip_prefix('-')
        .map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa
        .split_once('.')
        .map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole)
        || fraction.is_some_and(|f| !digits(f))
        || (whole.len() > 1 && whole.starts_with('0'))
    {
        return None;
    }
    if exponent.is_some_and(|e| !digits(e.strip_prefix(['+', '-']).unwrap_or(e))) {
        return None;
    }
    let fraction = fraction.unwrap_or("").trim_end_matches('0');
    // An exponent beyond i32 is that of a number too large or too small to hold.
    let exponent = exponent.map_or(Some(0), |e| {
        e.strip_prefix('+').unwrap_or(e).parse::<i32>().ok()
    });
    let scale = exponent.and_then(|e| e.checked_sub(i32::try_from(fraction.len()).ok()?));
    let exact = || {
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let digits = if negative { -digits } else { digits };
        if digits == 0 {
            return Some(Value::Int(0));
        }
        let scale = scale?;
        let power = 10i128.checked_pow(scale.unsigned_abs())?;
        if scale >= 0 {
            digits.checked_mul(power).map(Value::Int)
        } else {
            Value::ratio(digits, power).ok()
        }
    };
    Some(exact().unwrap_or_else(|| Value::Opaque(text.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(
            read(text).map_or_else(|e| e.to_string(), |v| v.to_string()),
            expected
        );
    }

    #[test]
    fn control_characters_that_json_leaves_as_they_are_become_escapes() {
        for (text, json) in [
            ("a\u{7f}b", r#""a\u007fb""#),
            ("\u{80}\u{9f}\u{a0}", "\"\\u0080\\u009f\u{a0}\""),
            ("é\u{9b}31m", "\"é\\u009b31m\""),
            ("\u{7f}", r#""\u007f""#),
            ("\u{1b}", r#""\u001b""#),
            ("中\u{42a}", "\"中\u{42a}\""),
        ] {
            let mut out = Vec::new();
            serde_json::to_writer(Escaped(&mut out), text).expect("JSON");
            assert_eq!(String::from_utf8(out).expect("text"), json, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_exact() {
        check(
            "[1, -2, 0.35, 4.0, 1e3, 1.5e-2]",
            "[1, -2, 7/20, 4, 1000, 3/200]",
        );
        check("1e30", "1000000000000000000000000000000");
        check("1e300", "1e300");
        check("1e-5", "1/100000");
    }

    #[test]
    fn real_configs_hold_infinity_and_nan() {
        check(
            "[0.0, Infinity, -Infinity, NaN]",
            "[0, Infinity, -Infinity, NaN]",
        );
    }

    #[test]
    fn strings_are_unescaped() {
        check(
            r#""a\"\u0041\ud83d\ude00\ud800\n""#,
            "'a\\\"A\u{1f600}\u{fffd}\\n'",
        );
    }

    #[test]
    fn errors_name_line_and_column() {
        check(
            "{\"a\": 1,\n \"a\": 2}",
            "line 2, column 7: the key \"a\" stands twice",
        );
        check("{\"a\": 01}", "line 1, column 7: `01` is not a number");
        check(
            "{\"a\"",
            "line 1, column 5: expected `:` after a key, but the text ends here",
        );
        check(
            "[1] 2",
            "line 1, column 5: expected nothing more, found `2`",
        );
        check(
            "",
            "line 1, column 1: expected a value, but the text ends here",
        );
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        let deep = "[".repeat(10_000);
        assert!(
            read(&deep)
                .unwrap_err()
                .reason
                .contains("nested deeper than 128")
        );
        let deep = format!("{{\"a\": {}", "[".repeat(10_000));
        assert!(
            read_index(&deep)
                .unwrap_err()
                .reason
                .contains("nested deeper than 128")
        );
    }

    #[test]
    fn an_index_holds_each_value_unread() {
        let index = read_index("{\"a\": {\"x\": [1, \"}\"]}, \"b\":2 }").unwrap();
        assert_eq!(
            index,
            [("a".into(), "{\"x\": [1, \"}\"]}"), ("b".into(), "2 ")]
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let _ = read(&text);
            let _ = read_index(&text);
        }

        #[test]
        fn any_json_like_text_is_read_or_refused(text in "[\\[\\]{}\",:0-9eE.+\\-\\\\a-u ]{0,120}") {
            let _ = read(&text);
            let _ = read_index(&text);
        }
    }
}
