//! The functions of the language.

use std::borrow::Cow;

use super::{Error, Machine, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Int,
    Bool,
    String,
    Abs,
    Length,
    Concat,
    ConcatWs,
    Lower,
    Upper,
    Trim,
    Left,
    Right,
    Substring,
}

/// Names, and the least and most arguments.
const TABLE: [(&str, Function, usize, usize); 13] = [
    ("INT", Function::Int, 1, 1),
    ("BOOL", Function::Bool, 1, 1),
    ("STRING", Function::String, 1, 1),
    ("ABS", Function::Abs, 1, 1),
    ("LENGTH", Function::Length, 1, 1),
    ("CONCAT", Function::Concat, 0, usize::MAX),
    ("CONCAT_WS", Function::ConcatWs, 1, usize::MAX),
    ("LOWER", Function::Lower, 1, 1),
    ("UPPER", Function::Upper, 1, 1),
    ("TRIM", Function::Trim, 1, 1),
    ("LEFT", Function::Left, 2, 2),
    ("RIGHT", Function::Right, 2, 2),
    ("SUBSTRING", Function::Substring, 2, 3),
];

/// The function of this name, in any case, with so many arguments.
pub(super) fn find(name: &str, arguments: usize) -> Option<Function> {
    let fits = |row: &&(&str, Function, usize, usize)| {
        row.0.eq_ignore_ascii_case(name) && (row.2..=row.3).contains(&arguments)
    };
    TABLE.iter().find(fits).map(|row| row.1)
}

/// Calls a function. Where an argument is missing or cannot be cast the result is zero.
pub(super) fn call<'e>(
    function: Function,
    arguments: Option<Vec<Value<'e>>>,
    machine: &mut Machine<'e>,
) -> Value<'e> {
    let size = arguments.iter().flatten().map(Value::size).sum();
    machine.work(size);
    // With too much work no text is made any more.
    let arguments = arguments.filter(|_| machine.left > 0);
    match function {
        Function::Int | Function::Abs | Function::Length => {
            let number = arguments.and_then(|all| number(function, &all, machine));
            Value::Integer(number.unwrap_or_default())
        }
        Function::Bool => {
            let value = arguments.and_then(|all| machine.boolean(all.first()?));
            Value::Boolean(value.unwrap_or_default())
        }
        _ => Value::String(
            arguments.and_then(|all| text(function, all, machine)).unwrap_or_default(),
        ),
    }
}

fn number<'e>(function: Function, all: &[Value<'e>], machine: &mut Machine<'e>) -> Option<i32> {
    let value = all.first()?;
    match function {
        Function::Int => machine.integer(value),
        Function::Abs => {
            let value = machine.integer(value)?;
            if value == i32::MIN {
                let _: Option<()> = machine.fail(Error::Math);
            }
            Some(value.saturating_abs())
        }
        _ => i32::try_from(value.text().chars().count()).ok(),
    }
}

fn text<'e>(
    function: Function,
    all: Vec<Value<'e>>,
    machine: &mut Machine<'e>,
) -> Option<Cow<'e, str>> {
    let mut all = all.into_iter();
    match function {
        Function::Concat => return Some(join(all, "").into()),
        Function::ConcatWs => {
            let delimiter = all.next()?.into_text();
            // The delimiter is looked at again for each.
            machine.work(delimiter.len().saturating_mul(all.len()));
            return (machine.left > 0).then(|| join(all, &delimiter).into());
        }
        _ => {}
    }
    let text = all.next()?.into_text();
    match function {
        Function::Lower => Some(text.to_lowercase().into()),
        Function::Upper => Some(text.to_uppercase().into()),
        Function::Trim => Some(text.trim().to_owned().into()),
        Function::Left | Function::Right => {
            let count = machine.integer(&all.next()?)?;
            let Ok(count) = usize::try_from(count) else {
                let _: Option<()> = machine.fail(Error::FunctionEvaluation);
                return Some(text);
            };
            let skipped = text.chars().count().saturating_sub(count);
            Some(if function == Function::Left {
                text.chars().take(count).collect::<String>().into()
            } else {
                text.chars().skip(skipped).collect::<String>().into()
            })
        }
        Function::Substring => {
            let from = machine.integer(&all.next()?)?;
            let count = match all.next() {
                Some(count) => Some(machine.integer(&count)?),
                None => None,
            };
            substring(&text, from, count)
                .map(Cow::Owned)
                .or_else(|| machine.fail(Error::FunctionEvaluation))
        }
        _ => Some(text),
    }
}

/// Characters are counted from 1, or from the end where `from` is negative; there is nothing at 0.
fn substring(text: &str, from: i32, count: Option<i32>) -> Option<String> {
    let length = text.chars().count();
    let distance = usize::try_from(from.unsigned_abs()).ok()?;
    let count = count.map_or(Some(usize::MAX), |count| usize::try_from(count).ok())?;
    if distance > length {
        return None;
    }
    let skipped = match from {
        0 => return Some(String::new()),
        1.. => distance - 1,
        _ => length - distance,
    };
    Some(text.chars().skip(skipped).take(count).collect())
}

fn join<'e>(all: impl Iterator<Item = Value<'e>>, delimiter: &str) -> String {
    all.map(Value::into_text).collect::<Vec<_>>().join(delimiter)
}
