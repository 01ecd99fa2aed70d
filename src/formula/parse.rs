//! From tokens to a syntax tree; the grammar stands in [`crate::formula`]. One function per line of it.

use super::ast::{Binary, Compare, Expr, For, If, Kind, Module};
use super::lex::{Expect, SyntaxError, Token, TokenKind, tokens};
use super::{MAX_DEPTH, MAX_HEIGHT};
use crate::value::{Name, Value};

/// Words that cannot be names.
const RESERVED: [&str; 12] = [
    "if", "else", "for", "in", "is", "and", "or", "not", "True", "False", "None", "lambda",
];

pub(super) fn formula(text: &str) -> Result<Expr, SyntaxError> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        depth: 0,
    };
    let expr = parser.formula()?;
    parser.end()?;
    Ok(expr)
}

pub(super) fn statement(text: &str) -> Result<(Option<Name>, Expr), SyntaxError> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        depth: 0,
    };
    let name = match (
        &parser.tokens[0].kind,
        parser.tokens.get(1).map(|t| &t.kind),
    ) {
        (TokenKind::Word(word), Some(TokenKind::Symbol("="))) if !RESERVED.contains(word) => {
            Some(Name::new(word))
        }
        _ => None,
    };
    if name.is_some() {
        parser.next = 2;
    }
    let expr = parser.formula()?;
    parser.end()?;
    Ok((name, expr))
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
    depth: usize,
}

type Parsed = Result<Expr, SyntaxError>;

impl<'a> Parser<'a> {
    fn peek(&self) -> &TokenKind<'a> {
        &self.tokens[self.next].kind
    }

    fn at(&self) -> usize {
        self.tokens[self.next].at
    }

    fn error<T>(&self, expect: Expect) -> Result<T, SyntaxError> {
        Err(SyntaxError {
            at: self.at(),
            expect,
        })
    }

    fn missing<T>(&self, what: &'static str) -> Result<T, SyntaxError> {
        self.error(Expect::Missing(what, self.peek().describe()))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), TokenKind::Word(w) if *w == word);
        self.next += usize::from(found);
        found
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), TokenKind::Symbol(s) if *s == symbol);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &'static str, what: &'static str) -> Result<(), SyntaxError> {
        if self.take(symbol) {
            Ok(())
        } else {
            self.missing(what)
        }
    }

    fn end(&self) -> Result<(), SyntaxError> {
        if *self.peek() == TokenKind::End {
            Ok(())
        } else {
            self.missing("an operator or the end")
        }
    }

    fn node(at: usize, kind: Kind) -> Parsed {
        // A formula has 16 KiB at most, so every offset fits. A long chain `1 + 1 + ...` is as deep as it is long.
        let node = Expr::new(at as u32, kind);
        if node.height() > MAX_HEIGHT {
            return Err(SyntaxError {
                at,
                expect: Expect::FewerTerms,
            });
        }
        Ok(node)
    }

    fn nested(&mut self, parse: impl FnOnce(&mut Self) -> Parsed) -> Parsed {
        if self.depth >= MAX_DEPTH {
            return self.error(Expect::Shallower);
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn formula(&mut self) -> Parsed {
        self.nested(|p| {
            let at = p.at();
            let then = p.or()?;
            if !p.take_word("if") {
                return Ok(then);
            }
            let condition = p.or()?;
            if !p.take_word("else") {
                return p.missing("`else`");
            }
            let other = p.formula()?;
            Self::node(
                at,
                Kind::If(Box::new(If {
                    then,
                    condition,
                    other,
                })),
            )
        })
    }

    fn or(&mut self) -> Parsed {
        let at = self.at();
        let mut left = self.and()?;
        while self.take_word("or") {
            left = Self::node(at, Kind::Or(Box::new((left, self.and()?))))?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Parsed {
        let at = self.at();
        let mut left = self.not()?;
        while self.take_word("and") {
            left = Self::node(at, Kind::And(Box::new((left, self.not()?))))?;
        }
        Ok(left)
    }

    fn not(&mut self) -> Parsed {
        let at = self.at();
        if self.take_word("not") {
            let inner = self.nested(Self::not)?;
            return Self::node(at, Kind::Not(Box::new(inner)));
        }
        self.compare()
    }

    fn comparison(&mut self) -> Option<Compare> {
        let compare = match self.peek() {
            TokenKind::Symbol("==") => Compare::Equal,
            TokenKind::Symbol("!=") => Compare::NotEqual,
            TokenKind::Symbol("<") => Compare::Less,
            TokenKind::Symbol("<=") => Compare::LessEqual,
            TokenKind::Symbol(">") => Compare::Greater,
            TokenKind::Symbol(">=") => Compare::GreaterEqual,
            TokenKind::Word("in") => Compare::In,
            TokenKind::Word("is") => Compare::Is,
            TokenKind::Word("not") if matches!(self.tokens.get(self.next + 1), Some(t) if t.kind == TokenKind::Word("in")) =>
            {
                self.next += 1;
                Compare::NotIn
            }
            _ => return None,
        };
        self.next += 1;
        if compare == Compare::Is && self.take_word("not") {
            return Some(Compare::IsNot);
        }
        Some(compare)
    }

    fn compare(&mut self) -> Parsed {
        let at = self.at();
        let left = self.sum()?;
        let Some(op) = self.comparison() else {
            return Ok(left);
        };
        let right = self.sum()?;
        if self.comparison().is_some() {
            self.next -= 1;
            return self.error(Expect::ComparisonChain);
        }
        Self::node(at, Kind::Compare(op, Box::new((left, right))))
    }

    fn sum(&mut self) -> Parsed {
        let at = self.at();
        let mut left = self.term()?;
        loop {
            let op = match self.peek() {
                TokenKind::Symbol("+") => Binary::Add,
                TokenKind::Symbol("-") => Binary::Sub,
                _ => return Ok(left),
            };
            self.next += 1;
            left = Self::node(at, Kind::Binary(op, Box::new((left, self.term()?))))?;
        }
    }

    fn term(&mut self) -> Parsed {
        let at = self.at();
        let mut left = self.unary()?;
        loop {
            let op = match self.peek() {
                TokenKind::Symbol("*") => Binary::Mul,
                TokenKind::Symbol("/") => Binary::Div,
                TokenKind::Symbol("//") => Binary::FloorDiv,
                TokenKind::Symbol("%") => Binary::Rem,
                _ => return Ok(left),
            };
            self.next += 1;
            left = Self::node(at, Kind::Binary(op, Box::new((left, self.unary()?))))?;
        }
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        if self.take("-") {
            let inner = self.nested(Self::unary)?;
            return Self::node(at, Kind::Negate(Box::new(inner)));
        }
        let base = self.postfix()?;
        if self.take("**") {
            let exponent = self.nested(Self::unary)?;
            return Self::node(at, Kind::Binary(Binary::Pow, Box::new((base, exponent))));
        }
        Ok(base)
    }

    fn postfix(&mut self) -> Parsed {
        let at = self.at();
        let mut value = self.atom()?;
        loop {
            if self.take("[") {
                let index = self.formula()?;
                self.expect("]", "`]`")?;
                value = Self::node(at, Kind::Index(Box::new((value, index))))?;
            } else if self.take(".") {
                let TokenKind::Word(key) = *self.peek() else {
                    return self.missing("a key after `.`");
                };
                self.next += 1;
                value = Self::node(at, Kind::Key(Box::new(value), key.into()))?;
            } else if matches!(self.peek(), TokenKind::Symbol("(")) {
                return self.error(Expect::Callable);
            } else {
                return Ok(value);
            }
        }
    }

    fn atom(&mut self) -> Parsed {
        let at = self.at();
        let token = self.peek().clone();
        self.next += 1;
        let kind = match token {
            TokenKind::Number(value) => Kind::Value(value),
            TokenKind::Str(text) => Kind::Value(Value::str(text)),
            TokenKind::Word("True") => Kind::Value(Value::Bool(true)),
            TokenKind::Word("False") => Kind::Value(Value::Bool(false)),
            TokenKind::Word("None") => Kind::Value(Value::None),
            TokenKind::Word(word) if !RESERVED.contains(&word) => {
                if self.take("(") {
                    let (args, named) = self.arguments()?;
                    if !named.is_empty() {
                        self.next -= 1;
                        return self.error(Expect::NamedArgument(word.into()));
                    }
                    Kind::Call(Name::new(word), args)
                } else {
                    Kind::Name(Name::new(word))
                }
            }
            TokenKind::Param(name) => {
                if matches!(self.peek(), TokenKind::Symbol("(")) {
                    return self.error(Expect::SigilsSwapped(name.into()));
                }
                Kind::Name(Name::new(name))
            }
            TokenKind::Class(class) => {
                if !self.take("(") {
                    return self.error(Expect::ModuleArguments(class.into()));
                }
                let (positional, named) = self.arguments()?;
                Kind::Module(Module {
                    class: class.into(),
                    positional,
                    named,
                })
            }
            TokenKind::Symbol("(") => {
                let inner = self.formula()?;
                self.expect(")", "`)`")?;
                return Ok(inner);
            }
            TokenKind::Symbol("[") => self.list()?,
            _ => {
                self.next -= 1;
                return self.error(Expect::Operand(token.describe()));
            }
        };
        Self::node(at, kind)
    }

    #[allow(clippy::type_complexity)]
    fn arguments(&mut self) -> Result<(Vec<Expr>, Vec<(Name, Expr)>), SyntaxError> {
        let (mut positional, mut named) = (Vec::new(), Vec::new());
        if self.take(")") {
            return Ok((positional, named));
        }
        loop {
            let name = match (self.peek(), self.tokens.get(self.next + 1).map(|t| &t.kind)) {
                (TokenKind::Word(word), Some(TokenKind::Symbol("="))) => Some(Name::new(word)),
                _ => None,
            };
            match name {
                Some(name) => {
                    self.next += 2;
                    named.push((name, self.formula()?));
                }
                None if named.is_empty() => positional.push(self.formula()?),
                None => return self.error(Expect::PositionalAfterNamed),
            }
            if !self.take(",") {
                self.expect(")", "`,` or `)`")?;
                return Ok((positional, named));
            }
        }
    }

    fn list(&mut self) -> Result<Kind, SyntaxError> {
        if self.take("]") {
            return Ok(Kind::List(Vec::new()));
        }
        let first = self.formula()?;
        if self.take_word("for") {
            let mut vars = Vec::new();
            loop {
                match *self.peek() {
                    TokenKind::Word(word) if !RESERVED.contains(&word) => {
                        vars.push(Name::new(word))
                    }
                    _ => return self.missing("a name after `for`"),
                }
                self.next += 1;
                if !self.take(",") {
                    break;
                }
            }
            if !self.take_word("in") {
                return self.missing("`in`");
            }
            let over = self.formula()?;
            self.expect("]", "`]`")?;
            return Ok(Kind::For(Box::new(For {
                item: first,
                vars,
                over,
            })));
        }
        let mut items = vec![first];
        while self.take(",") {
            if matches!(self.peek(), TokenKind::Symbol("]")) {
                break;
            }
            items.push(self.formula()?);
        }
        self.expect("]", "`,` or `]`")?;
        Ok(Kind::List(items))
    }
}
