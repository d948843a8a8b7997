//! `dispatch context`.

use crate::args::{ContextVerb, Format};
use crate::config::{self, Config, Settings};
use crate::error::{Error, Result};
use crate::table::{Layout, Table};
use crate::tree::Tree;
use crate::{model, output};

/// Shows or changes contexts.
///
/// # Errors
/// An unknown context, or a configuration that cannot be written.
pub fn run(
    verb: Option<ContextVerb>,
    path: Option<&str>,
    config: &mut Config,
    settings: &Settings,
) -> Result {
    match verb {
        None => show(config, &config.contexts.keys().cloned().collect::<Vec<_>>(), settings),
        Some(ContextVerb::Current) => match config.find(&config.current) {
            Some(current) => show(config, &[current], settings),
            None => output::line(&format!("No such current context was found {}", config.current)),
        },
        Some(ContextVerb::Set { context }) => {
            let found = config.find(&context);
            config.current = found.ok_or_else(|| unknown(&context, config))?;
            config::save(path, config)?;
            output::line(&format!("Set context to {context}"))
        }
        Some(ContextVerb::Delete { context }) => {
            let found = config.find(&context).ok_or_else(|| unknown(&context, config))?;
            config.contexts.remove(&found);
            config::save(path, config)?;
            output::line(&format!("Deleted context {context}"))
        }
    }
}

/// `dispatch manage context`.
///
/// # Errors
/// An unknown context, or a configuration that cannot be written.
pub fn manage(
    set: Option<String>,
    path: Option<&str>,
    config: &mut Config,
    settings: &Settings,
) -> Result {
    run(set.map(|context| ContextVerb::Set { context }), path, config, settings)
}

fn unknown(name: &str, config: &Config) -> Error {
    let known: Vec<&str> = config.contexts.keys().map(String::as_str).collect();
    let known = match known.is_empty() {
        true => String::new(),
        false => format!("\nKnown contexts: {}", known.join(", ")),
    };
    Error::local(format!("No such context {name}{known}"))
}

fn show(config: &Config, names: &[String], settings: &Settings) -> Result {
    match settings.format {
        Format::Json => return output::print(&output::json(config, output::INDENT)),
        Format::Yaml => return output::print(&model::write(&Tree::of(config))),
        Format::Name => return names.iter().try_for_each(|name| output::line(name)),
        Format::Table => {}
    }
    let current = config.find(&config.current);
    let mut table = Table::new(Layout::Verbatim, &["Context", "Config"]);
    for name in names {
        let mut context = config.contexts.get(name).cloned().unwrap_or_default();
        context.cookie.clear();
        let label = if current.as_ref() == Some(name) { format!("* {name}") } else { name.clone() };
        table.row(&[label, output::json(&context, "  ").trim_end().to_owned()]);
    }
    output::print(&table.text(true))
}
