//! `dispatch get`.

use dispatch_api::client::{Api, RunFilter};
use dispatch_api::{
    BaseImage, Driver, DriverType, Egress, Endpoint, Function, Image, Run, Scale, Schedule, Secret,
    Subscription,
};

use super::{Session, event, watch};
use crate::args::{
    By, Format, Get, GetBuilt, GetEndpoint, GetFunction, GetNamed, GetRun, GetSecret, SbomFormat,
};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::nouns::{self, Noun};
use crate::output;
use crate::table::printable;

/// Shows one resource, or all.
///
/// # Errors
/// What the server says.
pub async fn run(session: &Session, noun: Get) -> Result {
    match noun {
        Get::BaseImage(image) => images::<BaseImage>(session, &image).await,
        Get::Image(image) => match image.built.named.name.as_ref().filter(|_| image.sbom) {
            Some(name) => {
                let form = match image.sbom_format {
                    SbomFormat::Cyclonedx => "cyclonedx",
                    SbomFormat::Spdx => "spdx",
                };
                let bill = session.client.sbom(name, form).await?;
                output::line(&serde_json::to_string_pretty(&bill).unwrap_or_default())
            }
            None => images::<Image>(session, &image.built).await,
        },
        Get::Function(function) => functions(session, &function).await,
        Get::Run(run) => runs(session, run).await,
        Get::Secret(secret) => secrets(session, &secret).await,
        Get::Api(api) => endpoints::<Api>(session, &api, |api| &api.0).await,
        Get::Schedule(named) => resources::<Schedule>(session, &named).await,
        Get::Subscription(args) => match args.named.name.as_ref().filter(|_| args.progress) {
            Some(name) => event::progress(session, name).await,
            None => resources::<Subscription>(session, &args.named).await,
        },
        Get::EventDriver(named) => resources::<Driver>(session, &named).await,
        Get::EventDriverType(named) => resources::<DriverType>(session, &named).await,
        Get::Event(args) => event::log(session, &args).await,
        Get::Delivery(args) => event::deliveries(session, args).await,
        Get::Endpoint(endpoint) => endpoints::<Endpoint>(session, &endpoint, |it| it).await,
    }
}

async fn resources<T: Noun>(session: &Session, named: &GetNamed) -> Result {
    filtered::<T>(session, named, |_| true).await
}

async fn filtered<T: Noun>(
    session: &Session,
    named: &GetNamed,
    wanted: impl Fn(&T) -> bool,
) -> Result {
    let (client, settings) = (&session.client, &session.settings);
    match &named.name {
        Some(name) if named.watch => {
            // A name that does not exist is a mistake, not something to wait for.
            client.get::<T>(name).await?;
            let watch = client.watch::<T>().await?;
            watch::follow(watch, settings, |item: &T| item.name() == name).await
        }
        Some(name) => output::one(&client.get::<T>(name).await?, settings),
        None if named.watch => watch::follow(client.watch::<T>().await?, settings, wanted).await,
        None => {
            let mut items = client.list::<T>().await?;
            items.retain(wanted);
            output::list(&items, settings)
        }
    }
}

async fn images<T: Noun>(session: &Session, image: &GetBuilt) -> Result {
    match image.named.name.as_ref().filter(|_| image.logs) {
        Some(name) => log::<T>(session, name, image.follow).await,
        None => resources::<T>(session, &image.named).await,
    }
}

/// Shows the log of a resource.
///
/// # Errors
/// What the server says.
pub async fn log<T: Noun>(session: &Session, name: &str, follow: bool) -> Result {
    let mut logs = session.client.log::<T>(name, follow).await?;
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    while let Some(bytes) = logs.next().await? {
        if terminal {
            output::print(&printable(&String::from_utf8_lossy(&bytes)))?;
        } else {
            output::raw(&bytes)?;
        }
    }
    Ok(())
}

async fn functions(session: &Session, function: &GetFunction) -> Result {
    match &function.named.name {
        Some(name) if function.revisions => {
            output::list(&session.client.revisions(name).await?, &session.settings)
        }
        Some(name) if function.egress => {
            egress(name, &session.client.egress(name).await?, &session.settings)
        }
        Some(name) if function.scale => {
            scale(name, &session.client.scale(name).await?, &session.settings)
        }
        _ => resources::<Function>(session, &function.named).await,
    }
}

/// How many workers there are, why, and what changed lately.
fn scale(name: &str, scale: &Scale, settings: &Settings) -> Result {
    if settings.format != Format::Table {
        return output::one(scale, settings);
    }
    output::line(&format!("Workers of {name}:\n"))?;
    output::one(scale, settings)?;
    output::line(&format!("\n{}: {}.", scale.reason, scale.explanation))?;
    let room = &scale.room;
    if room.most == 0 {
        return Ok(());
    }
    output::line(&format!(
        "All functions use {} of {} places; those of the organization {} of {}.",
        room.used, room.most, room.organization_used, room.organization_most
    ))?;
    if scale.changes.is_empty() {
        return Ok(());
    }
    output::line("\nLast changes:\n")?;
    output::list(&scale.changes, settings)
}

/// A policy, where a function went, and a policy to be pasted into its YAML.
fn egress(name: &str, egress: &Egress, settings: &Settings) -> Result {
    if settings.format != Format::Table {
        return output::one(egress, settings);
    }
    output::line(&format!("Policy of {name}:\n\n{}", output::yaml(&egress.policy)))?;
    for (what, list) in [("Reached", &egress.reached), ("Refused", &egress.refused)] {
        if !list.is_empty() {
            output::line(&format!("{what}:\n"))?;
            output::list(list, settings)?;
            output::line("")?;
        }
    }
    if egress.unlisted > 0 {
        output::line(&format!("{} more are not listed: there were too many.\n", egress.unlisted))?;
    }
    match &egress.suggested {
        Some(policy) => output::line(&format!(
            "To allow what was reached and nothing else, put this into the function's YAML:\n\n{}",
            output::yaml(policy)
        )),
        None => output::line(&format!(
            "Nothing was noted yet. To note what it reaches: dispatch update function {name} --egress learn"
        )),
    }
}

async fn secrets(session: &Session, secret: &GetSecret) -> Result {
    let mut settings = session.settings.clone();
    if secret.all && settings.format == Format::Table {
        settings.format = Format::Json;
    }
    if settings.format == Format::Table {
        output::line("Note: secret values are hidden, please use --all flag to get them\n")?;
    }
    let client = &session.client;
    match &secret.named.name {
        _ if secret.named.watch => {
            let name = secret.named.name.as_deref();
            let wanted = |item: &Secret| name.is_none_or(|name| item.name == name);
            watch::follow(client.watch::<Secret>().await?, &settings, wanted).await
        }
        Some(name) => output::one(&client.get::<Secret>(name).await?, &settings),
        None => output::list(&client.list::<Secret>().await?, &settings),
    }
}

async fn endpoints<T: Noun>(
    session: &Session,
    args: &GetEndpoint,
    endpoint: impl Fn(&T) -> &Endpoint,
) -> Result {
    let function = args.function.as_deref();
    let wanted = |item: &T| function.is_none_or(|function| endpoint(item).function == function);
    filtered(session, &args.named, wanted).await
}

async fn runs(session: &Session, args: GetRun) -> Result {
    let (client, settings) = (&session.client, &session.settings);
    if let Some(id) = &args.id {
        let run = client.get_run(args.function.as_deref(), id).await?;
        return output::one(&run, settings);
    }
    let filter = RunFilter {
        function: args.function,
        status: args.status.map(|status| status.to_uppercase()),
        dead: args.dead.then_some(true),
        limit: args.limit,
    };
    if args.follow {
        return watch::follow(client.watch_runs(&filter).await?, settings, |_: &Run| true).await;
    }
    let mut runs = client.runs(&filter).await?;
    if args.last {
        let newest = runs.into_iter().max_by_key(|run| (run.executed_time, nouns::started(run)));
        let newest = newest.ok_or_else(|| Error::local("there are no runs"))?;
        return output::one(&newest, settings);
    }
    match args.by {
        By::Function => runs.sort_by(|a, b| a.function_name.cmp(&b.function_name)),
        By::Status => runs.sort_by(|a, b| a.status.as_str().cmp(b.status.as_str())),
        By::Started => runs.sort_by_key(|run| std::cmp::Reverse(nouns::started(run))),
        By::Finished => runs.sort_by_key(|run| std::cmp::Reverse(nouns::finished(run))),
    }
    output::list(&runs, settings)
}
