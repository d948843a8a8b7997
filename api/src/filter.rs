//! Which events a subscription gets: a pattern for types, and the filters of the CloudEvents Subscriptions API.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use sql::Expression;

use crate::CloudEvent;
use crate::cloud_event::{MAX_ATTRIBUTE, MAX_EXTENSION_NAME};

pub mod sql;
#[cfg(test)]
mod tests;

/// How deep filters may nest.
pub const MAX_DEPTH: usize = 16;
/// The most filters of a subscription, those inside of others included.
pub const MAX_FILTERS: usize = 256;
/// The most attributes that one filter names.
pub const MAX_ATTRIBUTES: usize = 64;

/// One filter: `{"exact": {"type": "order.made"}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Each attribute is there and equal.
    Exact(BTreeMap<String, String>),
    /// Each attribute is there and begins so.
    Prefix(BTreeMap<String, String>),
    /// Each attribute is there and ends so.
    Suffix(BTreeMap<String, String>),
    /// All of these fit.
    All(Vec<Filter>),
    /// One of these fits.
    Any(Vec<Filter>),
    /// This one does not fit.
    Not(Box<Filter>),
    /// This expression of CloudEvents SQL is true, and nothing in it fails.
    Sql(String),
}

const DIALECTS: &str = "exact, prefix, suffix, all, any, not, sql";

/// What is wrong with filters, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {reason}")]
pub struct FilterError {
    /// The place: `filters[0].any[1].exact.type`.
    pub at: String,
    /// What is wrong there.
    pub reason: String,
}

impl FilterError {
    fn new(at: impl Into<String>, reason: impl Into<String>) -> FilterError {
        FilterError { at: at.into(), reason: reason.into() }
    }
}

/// A filter by itself; its place is then the filter, such as `not.exact`.
impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Filter, D::Error> {
        let value = Value::deserialize(deserializer)?;
        one(&value, "filter", 1).map_err(serde::de::Error::custom)
    }
}

/// Reads the filters of a subscription.
///
/// # Errors
/// The first place that is wrong.
pub fn read(filters: &[Value]) -> Result<Vec<Filter>, FilterError> {
    list(filters, "filters", 1)
}

fn list(filters: &[Value], at: &str, depth: usize) -> Result<Vec<Filter>, FilterError> {
    if filters.len() > MAX_FILTERS {
        return Err(FilterError::new(at, format!("there are more than {MAX_FILTERS} filters")));
    }
    let each = filters.iter().enumerate();
    each.map(|(index, filter)| one(filter, &format!("{at}[{index}]"), depth)).collect()
}

fn one(filter: &Value, at: &str, depth: usize) -> Result<Filter, FilterError> {
    if depth > MAX_DEPTH {
        return Err(FilterError::new(at, format!("filters nest deeper than {MAX_DEPTH}")));
    }
    let members = filter.as_object().map(|object| object.iter().collect::<Vec<_>>());
    let Some(&[(dialect, value)]) = members.as_deref() else {
        let reason = format!("it should be an object with one member: {DIALECTS}");
        return Err(FilterError::new(at, reason));
    };
    let at = format!("{at}.{}", dialect.chars().take(32).collect::<String>());
    match dialect.as_str() {
        "exact" => texts(value, &at).map(Filter::Exact),
        "prefix" => texts(value, &at).map(Filter::Prefix),
        "suffix" => texts(value, &at).map(Filter::Suffix),
        "all" => several(value, &at, depth).map(Filter::All),
        "any" => several(value, &at, depth).map(Filter::Any),
        "not" => one(value, &at, depth + 1).map(|inner| Filter::Not(Box::new(inner))),
        "sql" => match value.as_str() {
            Some(text) => expression(text, &at).map(|_| Filter::Sql(text.to_owned())),
            None => Err(FilterError::new(at, "it should be an expression in a text")),
        },
        _ => Err(FilterError::new(at, format!("there is no such filter: {DIALECTS}"))),
    }
}

fn expression(text: &str, at: &str) -> Result<Expression, FilterError> {
    let expression =
        Expression::parse(text).map_err(|error| FilterError::new(at, error.to_string()))?;
    match expression.unknown_function() {
        None => Ok(expression),
        Some((name, place)) => {
            let name = name.chars().take(32).collect::<String>();
            let reason = format!("there is no function {name} with so many arguments");
            Err(FilterError::new(at, format!("{reason} at character {place}")))
        }
    }
}

fn several(value: &Value, at: &str, depth: usize) -> Result<Vec<Filter>, FilterError> {
    match value.as_array() {
        Some(filters) if !filters.is_empty() => list(filters, at, depth + 1),
        _ => Err(FilterError::new(at, "it should be a list of one filter or more")),
    }
}

fn texts(value: &Value, at: &str) -> Result<BTreeMap<String, String>, FilterError> {
    let wanted = value.as_object().filter(|wanted| !wanted.is_empty());
    let Some(wanted) = wanted else {
        let reason =
            "it should be an object of one attribute or more, as in {\"type\": \"order.made\"}";
        return Err(FilterError::new(at, reason));
    };
    let mut texts = BTreeMap::new();
    for (name, value) in wanted {
        let text = value.as_str().unwrap_or_default().to_owned();
        texts.insert(name.clone(), text);
    }
    check_texts(&texts, at)?;
    Ok(texts)
}

fn check_texts(texts: &BTreeMap<String, String>, at: &str) -> Result<(), FilterError> {
    if texts.is_empty() || texts.len() > MAX_ATTRIBUTES {
        let reason = format!("it should name 1 to {MAX_ATTRIBUTES} attributes");
        return Err(FilterError::new(at, reason));
    }
    for (name, text) in texts {
        let at = || format!("{at}.{}", name.chars().take(64).collect::<String>());
        if !is_attribute(name) {
            let reason = "names of attributes are a to z and 0 to 9, such as subject";
            return Err(FilterError::new(at(), reason));
        }
        if text.is_empty() {
            return Err(FilterError::new(at(), "it should be a text that is not empty"));
        }
        if text.len() > MAX_ATTRIBUTE {
            let reason = format!("it should be at most {MAX_ATTRIBUTE} bytes long");
            return Err(FilterError::new(at(), reason));
        }
    }
    Ok(())
}

fn is_attribute(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=MAX_EXTENSION_NAME).contains(&name.len()) && name.bytes().all(plain)
}

/// Types of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TypePattern {
    /// `*`, or nothing: every type.
    #[default]
    Any,
    /// `order.*`: every type that begins with this, `order.`, and goes on: `order.made`, `order.made.eu`, but
    /// neither `order` nor `orders.made`.
    Below(String),
    /// `order.made`: this type alone.
    Exact(String),
}

impl TypePattern {
    /// Reads a pattern. Other stars, as in `*.made`, are part of a type like any letter.
    pub fn new(pattern: &str) -> TypePattern {
        match pattern.strip_suffix(".*") {
            _ if pattern.is_empty() || pattern == "*" => TypePattern::Any,
            Some(stem) if !stem.is_empty() => TypePattern::Below(format!("{stem}.")),
            _ => TypePattern::Exact(pattern.to_owned()),
        }
    }

    /// Whether a type fits.
    pub fn matches(&self, event_type: &str) -> bool {
        match self {
            TypePattern::Any => true,
            TypePattern::Below(stem) => {
                event_type.len() > stem.len() && event_type.starts_with(stem.as_str())
            }
            TypePattern::Exact(wanted) => event_type == wanted,
        }
    }
}

/// As it was read; what fits every type is `*`.
impl fmt::Display for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TypePattern::Any => f.write_str("*"),
            TypePattern::Below(stem) => write!(f, "{stem}*"),
            TypePattern::Exact(wanted) => f.write_str(wanted),
        }
    }
}

/// A pattern and filters, checked and ready to be asked.
#[derive(Clone, Debug)]
pub struct Compiled {
    pattern: TypePattern,
    filters: Vec<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Text(fn(&str, &str) -> bool, Vec<(String, String)>),
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Sql(Expression),
}

/// Checks a subscription's pattern for types and its filters, all of which an event has to fit.
///
/// # Errors
/// The first place that is wrong, or that there is too much.
pub fn compile(pattern: &str, filters: &[Filter]) -> Result<Compiled, FilterError> {
    let mut left = MAX_FILTERS;
    Ok(Compiled {
        pattern: TypePattern::new(pattern),
        filters: nodes(filters, "filters", 1, &mut left)?,
    })
}

impl Filter {
    /// Checks this filter alone, for events of every type.
    ///
    /// # Errors
    /// As [`compile`].
    pub fn compile(&self) -> Result<Compiled, FilterError> {
        compile("*", std::slice::from_ref(self))
    }
}

fn nodes(
    filters: &[Filter],
    at: &str,
    depth: usize,
    left: &mut usize,
) -> Result<Vec<Node>, FilterError> {
    let each = filters.iter().enumerate();
    each.map(|(index, filter)| node(filter, &format!("{at}[{index}]"), depth, left)).collect()
}

fn node(filter: &Filter, at: &str, depth: usize, left: &mut usize) -> Result<Node, FilterError> {
    if depth > MAX_DEPTH {
        return Err(FilterError::new(at, format!("filters nest deeper than {MAX_DEPTH}")));
    }
    *left = left.checked_sub(1).ok_or_else(|| {
        FilterError::new(at, format!("there are more than {MAX_FILTERS} filters"))
    })?;
    let text = |dialect: &str, test, wanted: &BTreeMap<String, String>| {
        check_texts(wanted, &format!("{at}.{dialect}"))?;
        Ok(Node::Text(test, wanted.clone().into_iter().collect()))
    };
    let mut inner = |dialect: &str, filters: &[Filter]| {
        let at = format!("{at}.{dialect}");
        if filters.is_empty() {
            return Err(FilterError::new(at, "it should be a list of one filter or more"));
        }
        nodes(filters, &at, depth + 1, left)
    };
    match filter {
        Filter::Exact(wanted) => text("exact", |value, wanted| value == wanted, wanted),
        Filter::Prefix(wanted) => text("prefix", |value, wanted| value.starts_with(wanted), wanted),
        Filter::Suffix(wanted) => text("suffix", |value, wanted| value.ends_with(wanted), wanted),
        Filter::All(filters) => inner("all", filters).map(Node::All),
        Filter::Any(filters) => inner("any", filters).map(Node::Any),
        Filter::Not(filter) => {
            node(filter, &format!("{at}.not"), depth + 1, left).map(|node| Node::Not(node.into()))
        }
        Filter::Sql(text) => expression(text, &format!("{at}.sql")).map(Node::Sql),
    }
}

impl Compiled {
    /// The types it takes: what to look subscriptions up by.
    pub fn pattern(&self) -> &TypePattern {
        &self.pattern
    }

    /// Whether an event fits the pattern and all filters.
    pub fn matches(&self, event: &CloudEvent) -> bool {
        self.pattern.matches(&event.event_type)
            && self.filters.iter().all(|filter| filter.matches(event))
    }
}

impl Node {
    fn matches(&self, event: &CloudEvent) -> bool {
        match self {
            Node::Text(test, wanted) => wanted.iter().all(|(name, wanted)| {
                event.attribute(name).is_some_and(|value| test(&value, wanted))
            }),
            Node::All(nodes) => nodes.iter().all(|node| node.matches(event)),
            Node::Any(nodes) => nodes.iter().any(|node| node.matches(event)),
            Node::Not(node) => !node.matches(event),
            Node::Sql(expression) => expression.matches(event),
        }
    }
}
