//! `dispatch manage check`.

use std::fmt::Write as _;

use dispatch_api::Health;
use dispatch_api::client::Client;
use serde::Serialize;

use crate::args::Format;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::table::printable;
use crate::{model, output, tree::Tree};

/// What keeps functions in, here and where the server is.
#[derive(Serialize)]
struct Check {
    /// Of this machine, for this user; none where this program has no server in it.
    machine: Option<Health>,
    /// Of the server, if one answers.
    server: Option<Health>,
}

/// Tries what this machine allows, and asks the server what it has.
///
/// # Errors
/// Where functions cannot run at all, so that scripts notice.
pub fn run(settings: &Settings) -> Result {
    // Before there are threads.
    let launcher = start()?;
    super::runtime()?.block_on(async {
        let machine = probe(launcher).await;
        let server = Client::new(&settings.client)?.health().await;
        match settings.format {
            Format::Table | Format::Name => {
                let mut text = String::new();
                if let Some(machine) = &machine {
                    text += &show("This machine, as this user", machine);
                    text.push('\n');
                }
                match &server {
                    Ok(server) => text += &show("The server", server),
                    Err(error) => _ = writeln!(text, "No server was asked: {error}"),
                }
                text += "docs/reference/isolation.md says what each tier promises.\n";
                output::print(&text)?;
            }
            format => {
                let check =
                    Check { machine: machine.clone(), server: server.as_ref().ok().cloned() };
                match format {
                    Format::Yaml => output::print(&model::write(&Tree::of(&check)))?,
                    _ => output::print(&output::json(&check, output::INDENT))?,
                }
            }
        }
        let tier = server.ok().or(machine).map(|health| health.isolation);
        if tier.as_deref() == Some("D") { Err(Error::Silent) } else { Ok(()) }
    })
}

fn show(where_: &str, health: &Health) -> String {
    let mut text = format!("{where_}: tier {}, {}\n\n", health.isolation, health.meaning);
    for layer in &health.layers {
        let mark = if layer.active { "yes" } else { "no" };
        _ = writeln!(text, "  {:<18} {mark:<4} {}", layer.name, layer.detail);
    }
    for (title, lines) in [
        ("Warning", health.warning.as_slice()),
        ("What would make it better", health.advice.as_slice()),
    ] {
        for line in lines {
            _ = write!(text, "\n{title}: {line}\n");
        }
    }
    // What a server says is not to do things to a terminal.
    printable(&text)
}

#[cfg(feature = "server")]
use dispatch_sandbox::Launcher;

/// Stands for what a program without a server does not have.
#[cfg(not(feature = "server"))]
struct Launcher;

#[cfg(feature = "server")]
fn start() -> Result<Launcher> {
    Launcher::start().map_err(|error| Error::local(error.to_string()))
}

#[cfg(feature = "server")]
async fn probe(launcher: Launcher) -> Option<Health> {
    Some(dispatch_server::health_of(&launcher.probe().await))
}

#[cfg(not(feature = "server"))]
fn start() -> Result<Launcher> {
    Ok(Launcher)
}

#[cfg(not(feature = "server"))]
async fn probe(_: Launcher) -> Option<Health> {
    None
}
