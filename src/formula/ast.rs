//! The syntax tree of a formula. Every node knows the column it began at, for errors and explanations.

use super::lex::SyntaxError;
use crate::value::{Name, Value};
use std::fmt;
use std::sync::Arc;

/// A parsed formula together with the text it came from.
#[derive(Clone, Debug)]
pub struct Formula {
    /// The text as written in the database.
    pub text: Arc<str>,
    /// Its syntax tree.
    pub expr: Expr,
    /// The field of an entry that it stands in, such as `rows.matmul`.
    pub field: Arc<str>,
}

impl Formula {
    /// The formula as that of a field.
    pub fn of_field(self, field: &str) -> Formula {
        Formula {
            field: field.into(),
            ..self
        }
    }

    /// Parses `text`.
    pub fn parse(text: &str) -> Result<Formula, SyntaxError> {
        Ok(Formula {
            text: text.into(),
            expr: super::parse::formula(text)?,
            field: "".into(),
        })
    }

    /// The formula that is just `value`.
    pub fn constant(value: Value) -> Formula {
        let text = value.literal();
        Formula {
            text: text.into(),
            expr: Expr::new(0, Kind::Value(value)),
            field: "".into(),
        }
    }
}

/// One line of a `forward`: `name = flow`, or just `flow`.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The name that the flow's result is given.
    pub name: Option<Name>,
    /// The flow.
    pub flow: Formula,
}

impl Statement {
    /// Parses `text`.
    pub fn parse(text: &str) -> Result<Statement, SyntaxError> {
        let (name, expr) = super::parse::statement(text)?;
        Ok(Statement {
            name,
            flow: Formula {
                text: text.into(),
                expr,
                field: "".into(),
            },
        })
    }
}

/// A node of the syntax tree.
#[derive(Clone, Debug)]
pub struct Expr {
    /// Byte offset in the formula's text.
    pub at: u32,
    /// What the node is.
    pub kind: Kind,
    height: u16,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A literal.
    Value(Value),
    /// `hidden_size` or `${hidden_size}`.
    Name(Name),
    /// `-x`.
    Negate(Box<Expr>),
    /// `not x`.
    Not(Box<Expr>),
    /// `a + b` and the like.
    Binary(Binary, Box<(Expr, Expr)>),
    /// `a < b` and the like.
    Compare(Compare, Box<(Expr, Expr)>),
    /// `a and b`.
    And(Box<(Expr, Expr)>),
    /// `a or b`.
    Or(Box<(Expr, Expr)>),
    /// `then if condition else other`.
    If(Box<If>),
    /// `list[index]`.
    Index(Box<(Expr, Expr)>),
    /// `object.key`.
    Key(Box<Expr>, Arc<str>),
    /// `name(a, b)`: a function; in a `forward` a child or a primitive.
    Call(Name, Vec<Expr>),
    /// `{Class}(a, b, name=c)`.
    Module(Module),
    /// `[a, b]`.
    List(Vec<Expr>),
    /// `[item for vars in over]`.
    For(Box<For>),
}

/// `then if condition else other`.
#[derive(Clone, Debug)]
pub struct If {
    /// The value where the condition holds.
    pub then: Expr,
    /// The condition.
    pub condition: Expr,
    /// The value where it does not.
    pub other: Expr,
}

/// `{Class}(positional.., name=value..)`.
#[derive(Clone, Debug)]
pub struct Module {
    /// The class or entry name between the braces.
    pub class: Arc<str>,
    /// Arguments by position.
    pub positional: Vec<Expr>,
    /// Arguments by name.
    pub named: Vec<(Name, Expr)>,
}

/// `[item for vars in over]`.
#[derive(Clone, Debug)]
pub struct For {
    /// The expression of each item.
    pub item: Expr,
    /// The loop variables: one, or as many as each row of `over` has.
    pub vars: Vec<Name>,
    /// A list, or an integer n for 0 .. n-1.
    pub over: Expr,
}

/// An arithmetic operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Rem,
    Pow,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
    Is,
    IsNot,
}

impl Binary {
    /// The operator as written.
    pub fn symbol(self) -> &'static str {
        match self {
            Binary::Add => "+",
            Binary::Sub => "-",
            Binary::Mul => "*",
            Binary::Div => "/",
            Binary::FloorDiv => "//",
            Binary::Rem => "%",
            Binary::Pow => "**",
        }
    }
}

impl Compare {
    /// The comparison as written.
    pub fn symbol(self) -> &'static str {
        match self {
            Compare::Equal => "==",
            Compare::NotEqual => "!=",
            Compare::Less => "<",
            Compare::LessEqual => "<=",
            Compare::Greater => ">",
            Compare::GreaterEqual => ">=",
            Compare::In => "in",
            Compare::NotIn => "not in",
            Compare::Is => "is",
            Compare::IsNot => "is not",
        }
    }
}

impl Expr {
    /// A node that began at byte `at`.
    pub fn new(at: u32, kind: Kind) -> Expr {
        let mut height = 0;
        let node = Expr { at, kind, height };
        node.children(&mut |child| height = height.max(child.height));
        Expr {
            height: height.saturating_add(1),
            ..node
        }
    }

    /// Levels of the tree below and including this node.
    pub fn height(&self) -> usize {
        usize::from(self.height)
    }

    /// Calls `visit` on this node and every node below it.
    pub fn walk<'x>(&'x self, visit: &mut dyn FnMut(&'x Expr)) {
        visit(self);
        self.children(&mut |child| child.walk(visit));
    }

    /// Calls `visit` on each node right below this one.
    pub fn children<'x>(&'x self, visit: &mut dyn FnMut(&'x Expr)) {
        match &self.kind {
            Kind::Value(_) | Kind::Name(_) => {}
            Kind::Negate(a) | Kind::Not(a) | Kind::Key(a, _) => visit(a),
            Kind::Binary(_, ab)
            | Kind::Compare(_, ab)
            | Kind::And(ab)
            | Kind::Or(ab)
            | Kind::Index(ab) => {
                visit(&ab.0);
                visit(&ab.1);
            }
            Kind::If(i) => {
                visit(&i.then);
                visit(&i.condition);
                visit(&i.other);
            }
            Kind::Call(_, items) | Kind::List(items) => items.iter().for_each(visit),
            Kind::Module(m) => {
                m.positional.iter().for_each(&mut *visit);
                m.named.iter().for_each(|(_, e)| visit(e));
            }
            Kind::For(f) => {
                visit(&f.item);
                visit(&f.over);
            }
        }
    }

    /// How tightly the node binds; a child that binds less is printed in parentheses.
    fn strength(&self) -> u8 {
        match &self.kind {
            Kind::If(_) => 1,
            Kind::Or(_) => 2,
            Kind::And(_) => 3,
            Kind::Not(_) => 4,
            Kind::Compare(..) => 5,
            Kind::Binary(Binary::Add | Binary::Sub, _) => 6,
            Kind::Binary(Binary::Mul | Binary::Div | Binary::FloorDiv | Binary::Rem, _) => 7,
            Kind::Negate(_) => 8,
            Kind::Value(v) if v.to_f64().is_some_and(|x| x < 0.0) => 8,
            Kind::Binary(Binary::Pow, _) => 9,
            _ => 10,
        }
    }

    /// Prints the node with its names replaced by what `name` gives, where it gives something.
    ///
    /// With `&|_| None` this is the canonical text of the formula, which parses to the same tree again.
    pub fn print(&self, name: &dyn Fn(Name) -> Option<String>) -> String {
        let at = |child: &Expr, least: u8| {
            let text = child.print(name);
            if child.strength() < least {
                format!("({text})")
            } else {
                text
            }
        };
        let list = |items: &[Expr]| {
            items
                .iter()
                .map(|e| e.print(name))
                .collect::<Vec<_>>()
                .join(", ")
        };
        match &self.kind {
            Kind::Value(v) => v.literal(),
            Kind::Name(n) => name(*n).unwrap_or_else(|| n.to_string()),
            Kind::Negate(a) => format!("-{}", at(a, 8)),
            Kind::Not(a) => format!("not {}", at(a, 4)),
            Kind::Binary(Binary::Pow, ab) => format!("{} ** {}", at(&ab.0, 10), at(&ab.1, 8)),
            Kind::Binary(op, ab) => {
                let own = self.strength();
                format!("{} {} {}", at(&ab.0, own), op.symbol(), at(&ab.1, own + 1))
            }
            Kind::Compare(op, ab) => format!("{} {} {}", at(&ab.0, 6), op.symbol(), at(&ab.1, 6)),
            Kind::And(ab) => format!("{} and {}", at(&ab.0, 3), at(&ab.1, 4)),
            Kind::Or(ab) => format!("{} or {}", at(&ab.0, 2), at(&ab.1, 3)),
            Kind::If(i) => format!(
                "{} if {} else {}",
                at(&i.then, 2),
                at(&i.condition, 2),
                at(&i.other, 1)
            ),
            Kind::Index(ab) => format!("{}[{}]", at(&ab.0, 10), ab.1.print(name)),
            // A number takes the dot for its own.
            Kind::Key(a, key) if matches!(&a.kind, Kind::Value(v) if v.to_f64().is_some()) => {
                format!("({}).{key}", a.print(name))
            }
            Kind::Key(a, key) => format!("{}.{key}", at(a, 10)),
            Kind::Call(function, args) => format!("{function}({})", list(args)),
            Kind::Module(m) => {
                let named = m
                    .named
                    .iter()
                    .map(|(n, e)| format!("{n}={}", e.print(name)));
                let all: Vec<_> = m
                    .positional
                    .iter()
                    .map(|e| e.print(name))
                    .chain(named)
                    .collect();
                format!("{{{}}}({})", m.class, all.join(", "))
            }
            Kind::List(items) => format!("[{}]", list(items)),
            Kind::For(f) => {
                let vars = f
                    .vars
                    .iter()
                    .map(|v| v.as_str())
                    .collect::<Vec<_>>()
                    .join(", ");
                format!(
                    "[{} for {vars} in {}]",
                    f.item.print(name),
                    f.over.print(name)
                )
            }
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.print(&|_| None))
    }
}
