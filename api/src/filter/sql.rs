//! CloudEvents SQL 1.0: expressions over the attributes of an event.
//!
//! An expression becomes steps for a small stack machine, so that however it is written neither reading nor
//! evaluating it needs a deep stack. Evaluation is total: there is a value, and the errors on the way to it.

mod functions;
mod like;
mod parse;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::CloudEvent;
use crate::cloud_event::Extension;

use functions::Function;
use like::Pattern;

pub use parse::{MAX_DEPTH, MAX_EXPRESSION, ParseError};

/// The work that one evaluation may do, in characters looked at. A filter that wants more does not match.
pub const MAX_WORK: usize = 1 << 18;

/// A value of the language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A truth value.
    Boolean(bool),
    /// A number of 32 bits.
    Integer(i32),
    /// A text.
    String(Cow<'a, str>),
}

/// What can go wrong on the way to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Error {
    /// Division by zero, or a result beyond 32 bits.
    #[error("a result of arithmetic does not exist in 32 bits")]
    Math,
    /// A text that is no number, or no truth value.
    #[error("a text is no number or no truth value")]
    Cast,
    /// An attribute that the event does not have.
    #[error("an attribute is missing")]
    MissingAttribute,
    /// A function that does not exist, or not with so many arguments.
    #[error("a function does not exist")]
    MissingFunction,
    /// A function that cannot do what it is asked for.
    #[error("an argument of a function is out of range")]
    FunctionEvaluation,
    /// More work than [`MAX_WORK`].
    #[error("it takes too much work")]
    Generic,
}

/// An expression that was read.
#[derive(Clone, Debug)]
pub struct Expression {
    steps: Vec<Step>,
    /// The first function that does not exist, and where it stands.
    unknown: Option<(String, usize)>,
}

#[derive(Clone, Debug)]
enum Step {
    Literal(Value<'static>),
    Attribute(String),
    Exists(String),
    Not,
    Negate,
    Binary(Operator),
    /// Goes on behind the operator when the left side of an `AND` (false) or an `OR` (true) decides.
    Decide(bool, usize),
    Like(Pattern, bool),
    /// So many elements, and whether none is to be equal.
    In(usize, bool),
    /// A function and so many arguments.
    Call(Option<Function>, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    And,
    Or,
    Xor,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Expression {
    /// Whether the expression is true of the event, without any error.
    pub fn matches(&self, event: &CloudEvent) -> bool {
        let (value, errors) = self.evaluate(event);
        errors.is_empty() && value == Value::Boolean(true)
    }

    /// The first function that does not exist, and the character, from 1, it stands at.
    pub fn unknown_function(&self) -> Option<(&str, usize)> {
        self.unknown.as_ref().map(|(name, at)| (name.as_str(), *at))
    }

    /// The expression's value for an event, and the errors on the way to it.
    pub fn evaluate<'e>(&'e self, event: &'e CloudEvent) -> (Value<'e>, Vec<Error>) {
        let mut machine = Machine::default();
        let mut next = 0;
        while let Some(step) = self.steps.get(next) {
            next += 1;
            match step {
                Step::Decide(deciding, target) => {
                    if machine.decides(*deciding) {
                        next = *target;
                    }
                }
                other => machine.step(other, event),
            }
            if machine.left == 0 {
                machine.errors.push(Error::Generic);
                return (Value::Boolean(false), machine.errors);
            }
        }
        let value = machine.stack.pop().map(|slot| slot.value);
        (value.unwrap_or(Value::Boolean(false)), machine.errors)
    }
}

/// A value, and whether an error is in it: what it is used in is then zero.
struct Slot<'e> {
    value: Value<'e>,
    failed: bool,
}

struct Machine<'e> {
    stack: Vec<Slot<'e>>,
    errors: Vec<Error>,
    /// Of the step that is being made.
    failed: bool,
    left: usize,
}

impl Default for Machine<'_> {
    fn default() -> Self {
        Machine { stack: Vec::new(), errors: Vec::new(), failed: false, left: MAX_WORK }
    }
}

impl<'e> Machine<'e> {
    fn step(&mut self, step: &'e Step, event: &'e CloudEvent) {
        self.work(1);
        self.failed = false;
        let value = match step {
            Step::Literal(value) => value.clone(),
            Step::Attribute(name) => attribute(event, name)
                .or_else(|| self.fail(Error::MissingAttribute))
                .unwrap_or(Value::Boolean(false)),
            Step::Exists(name) => Value::Boolean(event.attribute(name).is_some()),
            Step::Not => {
                let value = self.pop().and_then(|value| self.boolean(&value));
                Value::Boolean(value.is_some_and(|value| !value))
            }
            Step::Negate => {
                let value = self.pop().and_then(|value| self.integer(&value));
                self.number(value.map(i32::checked_neg))
            }
            Step::Binary(operator) => {
                let (right, left) = (self.pop(), self.pop());
                self.binary(*operator, left.zip(right))
            }
            Step::Like(pattern, negated) => {
                let fits = self.pop().map(|value| {
                    let text = value.into_text();
                    pattern.matches(&text, &mut self.left)
                });
                Value::Boolean(fits.is_some_and(|fits| fits != *negated))
            }
            Step::In(count, negated) => {
                let elements = self.take(*count);
                let value = self.pop();
                let found = elements.zip(value).map(|(all, value)| {
                    all.iter().any(|element| {
                        self.work(element.size());
                        self.equal(&value, element)
                    })
                });
                Value::Boolean(!self.failed && found.is_some_and(|found| found != *negated))
            }
            Step::Call(function, count) => {
                let arguments = self.take(*count);
                match function {
                    None => {
                        self.failed = true;
                        self.errors.push(Error::MissingFunction);
                        Value::Boolean(false)
                    }
                    Some(function) => functions::call(*function, arguments, self),
                }
            }
            Step::Decide(..) => return,
        };
        self.stack.push(Slot { value, failed: self.failed });
    }

    fn work(&mut self, amount: usize) {
        self.left = self.left.saturating_sub(amount);
    }

    fn fail<T>(&mut self, error: Error) -> Option<T> {
        self.failed = true;
        self.errors.push(error);
        None
    }

    /// The value on top, if no error is in it.
    fn pop(&mut self) -> Option<Value<'e>> {
        let slot = self.stack.pop()?;
        self.failed |= slot.failed;
        (!slot.failed).then_some(slot.value)
    }

    /// The values on top, if no error is in them.
    fn take(&mut self, count: usize) -> Option<Vec<Value<'e>>> {
        let slots = self.stack.split_off(self.stack.len().saturating_sub(count));
        self.failed |= slots.iter().any(|slot| slot.failed);
        (!self.failed).then(|| slots.into_iter().map(|slot| slot.value).collect())
    }

    /// Whether the value on top decides an `AND` or an `OR`; it is then the result. With an error in it the
    /// result is false.
    fn decides(&mut self, deciding: bool) -> bool {
        self.failed = false;
        let left = self.pop().and_then(|value| self.boolean(&value));
        let value = Value::Boolean(left.unwrap_or_default());
        self.stack.push(Slot { value, failed: self.failed });
        left.is_none_or(|left| left == deciding)
    }

    fn binary(&mut self, operator: Operator, sides: Option<(Value<'e>, Value<'e>)>) -> Value<'e> {
        use Operator as O;
        match operator {
            O::And | O::Or | O::Xor => {
                let sides =
                    sides.and_then(|(left, right)| self.boolean(&left).zip(self.boolean(&right)));
                Value::Boolean(sides.is_some_and(|(left, right)| match operator {
                    O::And => left && right,
                    O::Or => left || right,
                    _ => left != right,
                }))
            }
            O::Equal | O::NotEqual => {
                let equal = sides.map(|(left, right)| {
                    self.work(left.size().min(right.size()));
                    self.equal(&right, &left)
                });
                let wanted = operator == O::Equal;
                Value::Boolean(!self.failed && equal == Some(wanted))
            }
            O::Less | O::LessOrEqual | O::Greater | O::GreaterOrEqual => {
                let sides = self.integers(sides);
                Value::Boolean(sides.is_some_and(|(left, right)| match operator {
                    O::Less => left < right,
                    O::LessOrEqual => left <= right,
                    O::Greater => left > right,
                    _ => left >= right,
                }))
            }
            O::Add | O::Subtract | O::Multiply | O::Divide | O::Remainder => {
                let result = self.integers(sides).map(|(left, right)| match operator {
                    O::Add => left.checked_add(right),
                    O::Subtract => left.checked_sub(right),
                    O::Multiply => left.checked_mul(right),
                    O::Divide => left.checked_div(right),
                    // Of the least number by -1 it exists, unlike the quotient.
                    _ => (right != 0).then(|| left.wrapping_rem(right)),
                });
                self.number(result)
            }
        }
    }

    fn integers(&mut self, sides: Option<(Value<'e>, Value<'e>)>) -> Option<(i32, i32)> {
        sides.and_then(|(left, right)| self.integer(&left).zip(self.integer(&right)))
    }

    /// A result of arithmetic: nothing inside where it does not exist, nothing at all after another error.
    fn number(&mut self, result: Option<Option<i32>>) -> Value<'e> {
        let number = result.and_then(|result| result.or_else(|| self.fail(Error::Math)));
        Value::Integer(number.unwrap_or_default())
    }

    /// Whether `value`, cast to the type of `model`, equals it.
    fn equal(&mut self, model: &Value<'e>, value: &Value<'e>) -> bool {
        match model {
            Value::Boolean(model) => self.boolean(value) == Some(*model),
            Value::Integer(model) => self.integer(value) == Some(*model),
            Value::String(model) => value.text() == *model,
        }
    }

    fn boolean(&mut self, value: &Value<'e>) -> Option<bool> {
        match value {
            Value::Boolean(value) => Some(*value),
            Value::Integer(value) => Some(*value != 0),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            Value::String(_) => self.fail(Error::Cast),
        }
    }

    fn integer(&mut self, value: &Value<'e>) -> Option<i32> {
        match value {
            Value::Boolean(value) => Some(i32::from(*value)),
            Value::Integer(value) => Some(*value),
            Value::String(text) => text.parse().ok().or_else(|| self.fail(Error::Cast)),
        }
    }
}

impl<'a> Value<'a> {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Value::Boolean(true) => "true".into(),
            Value::Boolean(false) => "false".into(),
            Value::Integer(value) => value.to_string().into(),
            Value::String(text) => Cow::Borrowed(text),
        }
    }

    fn into_text(self) -> Cow<'a, str> {
        match self {
            Value::String(text) => text,
            other => other.text().into_owned().into(),
        }
    }

    fn size(&self) -> usize {
        match self {
            Value::String(text) => text.len(),
            _ => 1,
        }
    }
}

/// An attribute with its type: numbers and truth values are what they are, all else is text.
fn attribute<'e>(event: &'e CloudEvent, name: &str) -> Option<Value<'e>> {
    match event.extensions.get(name) {
        Some(Extension::Boolean(value)) => Some(Value::Boolean(*value)),
        Some(Extension::Integer(value)) => Some(Value::Integer(*value)),
        _ => event.attribute(name).map(Value::String),
    }
}
