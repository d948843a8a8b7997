//! Reading expressions.

use super::functions::{self, Function};
use super::like::Pattern;
use super::{Expression, Operator, Step, Value};

/// The longest expression in bytes.
pub const MAX_EXPRESSION: usize = 4096;
/// How deep brackets and functions may nest.
pub const MAX_DEPTH: usize = 32;

/// What is wrong with an expression, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at character {at}")]
pub struct ParseError {
    /// The character, from 1.
    pub at: usize,
    /// What is wrong there.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A name, a keyword, or digits.
    Word(String),
    Text(String),
    /// `(`, `<=`, …
    Sign(&'static str),
    End,
}

/// Longer ones first.
const SIGNS: [&str; 15] =
    ["!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", ",", "+", "-", "*", "/", "%"];
const KEYWORDS: [&str; 9] = ["AND", "OR", "XOR", "NOT", "LIKE", "EXISTS", "IN", "TRUE", "FALSE"];

struct Parser {
    tokens: Vec<(Token, usize)>,
    next: usize,
    depth: usize,
    steps: Vec<Step>,
    unknown: Option<(String, usize)>,
}

type Parsed<T> = Result<T, ParseError>;

impl Expression {
    /// Reads an expression. One that calls a function that does not exist can be read:
    /// [`Expression::unknown_function`] tells.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Expression, ParseError> {
        if text.len() > MAX_EXPRESSION {
            let reason = format!("the expression is longer than {MAX_EXPRESSION} bytes");
            return Err(ParseError { at: 1, reason });
        }
        let tokens = tokens(text)?;
        let mut parser = Parser { tokens, next: 0, depth: 0, steps: Vec::new(), unknown: None };
        parser.binary(0)?;
        match parser.peek() {
            Token::End => Ok(Expression { steps: parser.steps, unknown: parser.unknown }),
            _ => parser.wrong("an operator or the end is expected"),
        }
    }
}

fn tokens(text: &str) -> Parsed<Vec<(Token, usize)>> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&first) = chars.get(at) {
        let start = at + 1;
        let token = match first {
            ' ' | '\t' | '\r' | '\n' => {
                at += 1;
                continue;
            }
            '\'' | '"' => {
                let Some((text, end)) = quoted(&chars, at) else {
                    let reason = "the text that begins here has no end".into();
                    return Err(ParseError { at: start, reason });
                };
                at = end;
                Token::Text(text)
            }
            _ if first.is_ascii_alphanumeric() => {
                let word = chars[at..].iter();
                let word: String =
                    word.take_while(|c| c.is_ascii_alphanumeric() || **c == '_').collect();
                at += word.len();
                Token::Word(word)
            }
            _ => {
                let two: String = chars[at..].iter().take(2).collect();
                let Some(sign) = SIGNS.into_iter().find(|sign| two.starts_with(sign)) else {
                    let reason = format!("{first:?} means nothing here");
                    return Err(ParseError { at: start, reason });
                };
                at += sign.len();
                Token::Sign(sign)
            }
        };
        tokens.push((token, start));
    }
    tokens.push((Token::End, chars.len() + 1));
    Ok(tokens)
}

/// A text in quotes, and the place behind it. A backslash before the quote makes it part of the text; other
/// backslashes stay, for `LIKE`.
fn quoted(chars: &[char], start: usize) -> Option<(String, usize)> {
    let quote = chars[start];
    let (mut text, mut at) = (String::new(), start + 1);
    loop {
        match (*chars.get(at)?, chars.get(at + 1)) {
            ('\\', Some(next)) => {
                if *next != quote {
                    text.push('\\');
                }
                text.push(*next);
                at += 2;
            }
            (next, _) if next == quote => return Some((text, at + 1)),
            (next, _) => {
                text.push(next);
                at += 1;
            }
        }
    }
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(token, _)| token)
    }

    fn wrong<T>(&self, reason: impl Into<String>) -> Parsed<T> {
        let last = self.tokens.len().saturating_sub(1);
        let at = self.tokens.get(self.next.min(last)).map_or(1, |(_, at)| *at);
        Err(ParseError { at, reason: reason.into() })
    }

    fn sign(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(sign) if *sign == wanted);
        self.next += usize::from(found);
        found
    }

    fn keyword(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Token::Word(word) if word.eq_ignore_ascii_case(wanted));
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: &str) -> Parsed<()> {
        if self.sign(wanted) { Ok(()) } else { self.wrong(format!("{wanted:?} is expected")) }
    }

    /// Operators from this level on; those of one level bind from left to right.
    fn binary(&mut self, level: usize) -> Parsed<()> {
        if level == LEVELS.len() {
            return self.postfix();
        }
        self.binary(level + 1)?;
        while let Some(operator) = self.operator(level) {
            let deciding = match operator {
                Operator::And => Some(false),
                Operator::Or => Some(true),
                _ => None,
            };
            let decide = self.steps.len();
            self.steps.extend(deciding.map(|deciding| Step::Decide(deciding, 0)));
            self.binary(level + 1)?;
            self.steps.push(Step::Binary(operator));
            let end = self.steps.len();
            if let (Some(_), Some(Step::Decide(_, target))) = (deciding, self.steps.get_mut(decide))
            {
                *target = end;
            }
        }
        Ok(())
    }

    fn operator(&mut self, level: usize) -> Option<Operator> {
        let text = match self.peek() {
            Token::Word(text) => text.as_str(),
            Token::Sign(text) => text,
            _ => return None,
        };
        let found = LEVELS[level].iter().find(|(name, _)| name.eq_ignore_ascii_case(text))?.1;
        self.next += 1;
        Some(found)
    }

    /// An operand with `NOT` and `-` before it, and `LIKE` and `IN` behind it.
    fn postfix(&mut self) -> Parsed<()> {
        let mut prefixes = Vec::new();
        loop {
            if self.keyword("NOT") {
                prefixes.push(Step::Not);
            } else if matches!(self.peek(), Token::Sign("-")) && !self.is_number_next() {
                self.next += 1;
                prefixes.push(Step::Negate);
            } else {
                break;
            }
        }
        self.operand()?;
        self.steps.extend(prefixes.into_iter().rev());
        loop {
            let negated = self.keyword("NOT");
            if self.keyword("LIKE") {
                let Token::Text(pattern) = self.peek() else {
                    return self.wrong("LIKE wants a text in quotes");
                };
                let step = Step::Like(Pattern::new(pattern), negated);
                self.next += 1;
                self.steps.push(step);
            } else if self.keyword("IN") {
                self.expect("(")?;
                let count = self.list()?;
                if count == 0 {
                    return self.wrong("IN wants one element or more");
                }
                self.steps.push(Step::In(count, negated));
            } else if negated {
                return self.wrong("LIKE or IN is expected behind NOT");
            } else {
                return Ok(());
            }
        }
    }

    /// Whether digits follow the sign at once: `-10` is a number, `- 10` and `-'10'` an operator.
    fn is_number_next(&self) -> bool {
        let at = |token: usize| self.tokens.get(token).map(|(_, at)| *at);
        let together = at(self.next).map(|at| at + 1) == at(self.next + 1);
        let token = self.tokens.get(self.next + 1).map(|(token, _)| token);
        together && matches!(token, Some(Token::Word(word)) if is_digits(word))
    }

    /// What comes behind an opening bracket, up to the closing one: how many.
    fn list(&mut self) -> Parsed<usize> {
        let mut count = 0;
        if self.sign(")") {
            return Ok(count);
        }
        loop {
            self.nested()?;
            count += 1;
            if !self.sign(",") {
                self.expect(")")?;
                return Ok(count);
            }
        }
    }

    fn nested(&mut self) -> Parsed<()> {
        if self.depth == MAX_DEPTH {
            return self.wrong(format!("brackets nest deeper than {MAX_DEPTH}"));
        }
        self.depth += 1;
        self.binary(0)?;
        self.depth -= 1;
        Ok(())
    }

    fn operand(&mut self) -> Parsed<()> {
        let sign = match self.peek() {
            Token::Sign(sign @ ("-" | "+")) if self.is_number_next() => *sign,
            _ => "",
        };
        self.next += usize::from(!sign.is_empty());
        let token = self.peek().clone();
        match token {
            Token::Text(text) => self.literal(Value::String(text.into())),
            Token::Word(word) if is_digits(&word) => match format!("{sign}{word}").parse() {
                Ok(number) => self.literal(Value::Integer(number)),
                Err(_) => self.wrong("the number does not fit in 32 bits"),
            },
            Token::Word(word) if word.eq_ignore_ascii_case("TRUE") => {
                self.literal(Value::Boolean(true))
            }
            Token::Word(word) if word.eq_ignore_ascii_case("FALSE") => {
                self.literal(Value::Boolean(false))
            }
            Token::Word(word) if word.eq_ignore_ascii_case("EXISTS") => {
                self.next += 1;
                let Token::Word(name) = self.peek().clone() else {
                    return self.wrong("EXISTS wants an attribute");
                };
                self.attribute(name, Step::Exists)
            }
            Token::Word(name) if is_sign(self.tokens.get(self.next + 1), "(") => self.call(name),
            Token::Word(name) => self.attribute(name, Step::Attribute),
            Token::Sign("(") => {
                self.next += 1;
                self.nested()?;
                self.expect(")")
            }
            _ => self.wrong("an attribute, a number, a text or a bracket is expected"),
        }
    }

    fn literal(&mut self, value: Value<'static>) -> Parsed<()> {
        self.steps.push(Step::Literal(value));
        self.next += 1;
        Ok(())
    }

    fn attribute(&mut self, name: String, step: fn(String) -> Step) -> Parsed<()> {
        if KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(&name)) {
            return self.wrong(format!("{name} is no operand"));
        }
        if !super::super::is_attribute(&name) {
            return self.wrong("attributes are named with a to z and 0 to 9 only");
        }
        self.steps.push(step(name));
        self.next += 1;
        Ok(())
    }

    fn call(&mut self, name: String) -> Parsed<()> {
        let at = self.next;
        let fits = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let is_keyword = KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(&name));
        if is_keyword || !name.bytes().all(fits) {
            return self.wrong("functions are named with letters and _ only");
        }
        self.next += 2;
        let count = self.list()?;
        let function: Option<Function> = functions::find(&name, count);
        if function.is_none() && self.unknown.is_none() {
            self.unknown = Some((name, self.tokens[at].1));
        }
        self.steps.push(Step::Call(function, count));
        Ok(())
    }
}

fn is_digits(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_sign(token: Option<&(Token, usize)>, wanted: &str) -> bool {
    matches!(token, Some((Token::Sign(sign), _)) if *sign == wanted)
}

/// From what binds least to what binds most.
const LEVELS: [&[(&str, Operator)]; 4] = [
    &[("AND", Operator::And), ("OR", Operator::Or), ("XOR", Operator::Xor)],
    &[
        ("=", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<>", Operator::NotEqual),
        ("<", Operator::Less),
        ("<=", Operator::LessOrEqual),
        (">", Operator::Greater),
        (">=", Operator::GreaterOrEqual),
    ],
    &[("+", Operator::Add), ("-", Operator::Subtract)],
    &[("*", Operator::Multiply), ("/", Operator::Divide), ("%", Operator::Remainder)],
];
