//! What a person or a script sees: messages, tables, JSON, YAML and names.

use std::io::{self, IsTerminal as _, Write as _};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::args::Format;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::model::{self, fill, model};
use crate::table::{Layout, Table, printable};
use crate::tree::Tree;

/// Something that can be shown in every form.
pub trait Show: Serialize {
    /// What it looks like in YAML when nothing is set: see [`model`].
    const MODEL: &'static str;
    /// The table's header.
    const COLUMNS: &'static [&'static str];
    /// The table's layout.
    const LAYOUT: Layout = Layout::Plain;

    /// Its name.
    fn label(&self) -> String;
    /// Its row in the table.
    fn cells(&self, settings: &Settings) -> Vec<String>;
}

/// Writes text to standard output.
///
/// # Errors
/// [`Error::Pipe`] when nobody reads any more.
pub fn print(text: &str) -> Result {
    raw(text.as_bytes())
}

/// Writes bytes to standard output, at once.
///
/// # Errors
/// [`Error::Pipe`] when nobody reads any more.
pub fn raw(bytes: &[u8]) -> Result {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Error::Pipe,
        _ => Error::local(format!("error writing output: {error}")),
    })
}

/// Writes a line to standard output.
///
/// # Errors
/// [`Error::Pipe`] when nobody reads any more.
pub fn line(text: &str) -> Result {
    print(&format!("{}\n", printable(text)))
}

/// Writes a failure and what to do about it to standard error.
pub fn failure(text: &str, hint: Option<&str>) {
    let (red, dim) = (anstyle::AnsiColor::Red.on_default(), anstyle::Style::new().dimmed());
    let mut err = anstream::stderr().lock();
    // Nothing can be done when this fails.
    let _ = writeln!(err, "{red}{}{red:#}", printable(text));
    if let Some(hint) = hint {
        let _ = writeln!(err, "{dim}{hint}{dim:#}");
    }
}

/// Whether progress can be shown.
pub fn on_terminal() -> bool {
    io::stderr().is_terminal()
}

/// JSON as scripts know it: indented, and with `<`, `>` and `&` escaped.
pub fn json<T: Serialize>(value: &T, indent: &str) -> String {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    // Writing to memory does not fail, and the keys of our types are texts.
    let _ = value.serialize(&mut serializer);
    let text = String::from_utf8(text).unwrap_or_default();
    let mut escaped = String::with_capacity(text.len() + 1);
    // These characters stand in texts only. Control characters that JSON allows could still do
    // things to a terminal.
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\u{7f}'..='\u{9f}' => {
                escaped += &format!("\\u{:04x}", u32::from(c));
            }
            c => escaped.push(c),
        }
    }
    escaped.push('\n');
    escaped
}

/// The indent of resources in JSON.
pub const INDENT: &str = "    ";

fn yaml_tree<T: Show>(item: &T) -> Tree {
    fill(Tree::of(item), &model(T::MODEL))
}

/// One resource as YAML.
pub fn yaml<T: Show>(item: &T) -> String {
    model::write(&yaml_tree(item))
}

/// One thing, alone.
///
/// # Errors
/// [`Error::Pipe`] when nobody reads any more.
pub fn one<T: Show>(item: &T, settings: &Settings) -> Result {
    match settings.format {
        Format::Json => print(&json(item, INDENT)),
        Format::Yaml => print(&yaml(item)),
        Format::Name => line(&item.label()),
        Format::Table => list(std::slice::from_ref(item), settings),
    }
}

/// A list.
///
/// # Errors
/// [`Error::Pipe`] when nobody reads any more.
pub fn list<T: Show>(items: &[T], settings: &Settings) -> Result {
    match settings.format {
        Format::Table => {
            let mut table = Table::new(T::LAYOUT, T::COLUMNS);
            items.iter().for_each(|item| table.row(&item.cells(settings)));
            print(&table.text(true))
        }
        _ => more(items, settings, &mut Table::new(T::LAYOUT, T::COLUMNS)),
    }
}

/// More of a list: rows without a header in the widths of those before.
///
/// # Errors
/// [`Error::Pipe`] when nobody reads any more.
pub fn more<T: Show>(items: &[T], settings: &Settings, table: &mut Table) -> Result {
    match settings.format {
        Format::Json => print(&json(&items, INDENT)),
        Format::Yaml => print(&model::write(&Tree::List(items.iter().map(yaml_tree).collect()))),
        Format::Name => items.iter().try_for_each(|item| line(&item.label())),
        Format::Table => {
            table.clear();
            items.iter().for_each(|item| table.row(&item.cells(settings)));
            print(&table.text(false))
        }
    }
}

/// What was done to something: a message, or the thing itself where a form is asked for.
///
/// # Errors
/// [`Error::Pipe`] when nobody reads any more.
pub fn done<T: Show>(message: &str, item: &T, settings: &Settings) -> Result {
    match settings.format {
        Format::Table => line(message),
        _ => one(item, settings),
    }
}

/// `Mon Jan  2 15:04:05 UTC 2006`, in local time.
pub fn date(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned(TimeZone::system()).strftime("%a %b %e %H:%M:%S %Z %Y").to_string()
}

/// RFC 3339 with what there is of nanoseconds, in local time.
pub fn instant(time: Timestamp) -> String {
    let time = time.to_zoned(TimeZone::system());
    let zone = if time.offset().is_zero() { "Z" } else { "%:z" };
    time.strftime(&format!("%Y-%m-%dT%H:%M:%S%.f{zone}")).to_string()
}
