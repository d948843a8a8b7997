//! Lists that go on.

use dispatch_api::client::{Event, Watch};
use serde::de::DeserializeOwned;

use crate::args::Format;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::output::{self, Show};
use crate::table::Table;

/// Shows what there is as a list, and then each change as one more.
///
/// # Errors
/// The server ended the watch; or, without a word, the user did.
pub async fn follow<T: Show + DeserializeOwned>(
    watch: Watch<T>,
    settings: &Settings,
    wanted: impl Fn(&T) -> bool,
) -> Result {
    tokio::select! {
        // The first to be asked, so that the signal is caught before anything is shown.
        biased;
        _ = tokio::signal::ctrl_c() => Err(Error::Silent),
        result = events(watch, settings, wanted) => result,
    }
}

async fn events<T: Show + DeserializeOwned>(
    mut watch: Watch<T>,
    settings: &Settings,
    wanted: impl Fn(&T) -> bool,
) -> Result {
    let mut table = Table::new(T::LAYOUT, T::COLUMNS);
    let mut first = Some(Vec::new());
    let mut shown: Vec<String> = Vec::new();
    while let Some(event) = watch.next().await? {
        match event {
            Event::Put(item) if wanted(&item) => {
                let label = item.label();
                if !shown.contains(&label) {
                    shown.push(label);
                }
                match &mut first {
                    Some(items) => items.push(*item),
                    None => output::more(&[*item], settings, &mut table)?,
                }
            }
            Event::Put(_) => {}
            Event::Delete(name) => {
                if let Some(at) = shown.iter().position(|label| *label == name) {
                    shown.swap_remove(at);
                    gone(&name, settings)?;
                }
            }
            Event::Synced => {
                let items = first.take().unwrap_or_default();
                if settings.format == Format::Table {
                    items.iter().for_each(|item| table.row(&item.cells(settings)));
                    output::print(&table.text(true))?;
                } else {
                    output::more(&items, settings, &mut table)?;
                }
            }
        }
    }
    Err(Error::local("the server ended the watch: start it again"))
}

/// Only the name of what was deleted is known.
fn gone(name: &str, settings: &Settings) -> Result {
    match settings.format {
        Format::Table => output::line(&format!("  {name} DELETED")),
        Format::Name => output::line(name),
        Format::Json => output::print(&output::json(
            &serde_json::json!([{ "name": name, "status": "DELETED" }]),
            output::INDENT,
        )),
        Format::Yaml => output::print(&format!("- name: {name}\n  status: DELETED\n")),
    }
}
