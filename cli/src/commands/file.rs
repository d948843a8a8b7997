//! `create`, `update`, `apply` and `delete` with a file of resources.

use std::path::Path;

use dispatch_api::client::Resource;
use dispatch_api::{Image, Kind};

use super::{Session, archive};
use crate::args::FileArgs;
use crate::error::{Error, Result, file_cause};
use crate::files::{Document, Source};
use crate::nouns::Noun;
use crate::output::{self, INDENT};
use crate::tree::Tree;

/// The base images and images to start with.
const SEED: &str = include_str!("../../../images.yaml");

/// The members of the summary of `--json`, in their order.
const SUMMARY: &[&str] = &[
    "api",
    "baseImages",
    "images",
    "driverTypes",
    "drivers",
    "subscriptions",
    "functions",
    "secrets",
    "policies",
    "serviceInstances",
    "serviceaccounts",
    "organizations",
    "endpoints",
    "schedules",
];

/// What is done with each resource of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It must not exist yet.
    Create,
    /// It must exist.
    Update,
    /// It may exist.
    Apply,
    /// It must exist.
    Delete,
}

impl Action {
    fn done(self) -> &'static str {
        match self {
            Action::Create => "Created",
            Action::Update => "Updated",
            Action::Apply => "Applied",
            Action::Delete => "Deleted",
        }
    }
}

/// Works through a file.
///
/// # Errors
/// The first thing that fails; what was done before stays done.
pub async fn run(session: &Session, action: Action, args: &FileArgs) -> Result {
    let file = args.file.as_deref().unwrap_or_default();
    if action == Action::Update && file.contains("://") {
        return Err(Error::local("update takes a local file, not a URL: use apply"));
    }
    let source = Source::open(args, file).await?;
    work(session, action, &source).await
}

/// Works through the images to start with, or writes them to a file.
///
/// # Errors
/// The first thing that fails; what was done before stays done.
pub async fn seed(session: &Session, action: Action, write_to: Option<&Path>) -> Result {
    if let Some(path) = write_to {
        return std::fs::write(path, SEED).map_err(|error| {
            Error::local(file_cause("write", &path.display().to_string(), &error))
        });
    }
    work(session, action, &Source::text("the seed images", SEED.to_owned(), "")).await
}

/// Works through a file that has been read.
///
/// # Errors
/// The first thing that fails; what was done before stays done.
pub async fn work(session: &Session, action: Action, source: &Source) -> Result {
    let mut work = Work { session, action, source, summary: Vec::new() };
    // All are read before the first is acted upon.
    for document in source.documents()? {
        match document {
            Document::BaseImage(mut base_image) => {
                if action != Action::Delete {
                    archive::give(session, &mut base_image.docker_url, |path| source.path(path))
                        .await?;
                }
                work.act(base_image).await?;
            }
            Document::Image(image) => work.image(image).await?,
            Document::Function(mut function) => {
                if action != Action::Delete {
                    source.complete_function(&mut function).await?;
                }
                work.act(*function).await?;
            }
            Document::Secret(secret) => work.act(secret).await?,
            Document::Endpoint(endpoint) => work.act(endpoint).await?,
            Document::Api(api) => work.act(api).await?,
            Document::Schedule(schedule) => work.act(*schedule).await?,
            Document::Subscription(subscription) => work.act(*subscription).await?,
            Document::Driver(driver) => work.act(*driver).await?,
            Document::DriverType(mut driver_type) => {
                if matches!(action, Action::Create | Action::Update | Action::Apply) {
                    archive::give(session, &mut driver_type.image, |path| source.path(path))
                        .await?;
                }
                work.act(driver_type).await?;
            }
        }
    }
    if session.settings.json {
        let members = SUMMARY.iter().filter_map(|member| {
            let items: Vec<Tree> = work
                .summary
                .iter()
                .filter(|(key, _)| key == member)
                .map(|(_, item)| item.clone())
                .collect();
            match (items.is_empty(), *member) {
                (true, "endpoints" | "schedules") => None,
                (true, member) => Some((member.to_owned(), Tree::Leaf(serde_json::Value::Null))),
                (false, member) => Some((member.to_owned(), Tree::List(items))),
            }
        });
        return output::print(&output::json(&Tree::Map(members.collect()), INDENT));
    }
    Ok(())
}

struct Work<'a> {
    session: &'a Session,
    action: Action,
    source: &'a Source,
    summary: Vec<(&'static str, Tree)>,
}

impl Work<'_> {
    async fn image(&mut self, mut image: Image) -> Result {
        if self.action != Action::Delete {
            self.source.complete_image(&mut image)?;
        }
        self.act(image).await
    }

    async fn act<T: Noun>(&mut self, item: T) -> Result {
        let client = &self.session.client;
        let shown = match self.action {
            Action::Create => Tree::of(&client.create(&item).await?),
            Action::Update => {
                client.update(&item).await?;
                Tree::of(&item)
            }
            Action::Apply => {
                match client.update(&item).await.map_err(Error::from) {
                    Err(error) if error.is_not_found() => client.create(&item).await?,
                    updated => updated?,
                };
                Tree::of(&item)
            }
            Action::Delete => {
                let deleted = client.delete::<T>(item.name()).await?;
                Tree::of(deleted.as_ref().unwrap_or(&item))
            }
        };
        self.summary.push((T::SUMMARY, shown));
        let kind: Kind = <T as Resource>::KIND;
        output::line(&format!("{} {kind}: {}", self.action.done(), item.name()))
    }
}
