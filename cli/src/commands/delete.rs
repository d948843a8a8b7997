//! `dispatch delete`.

use super::{
    BaseImage, Driver, DriverType, Endpoint, Function, Image, Noun, Result, Schedule, Secret,
    Session, Subscription, for_noun,
};
use crate::args::Format;
use crate::nouns;
use crate::output::{self, INDENT};
use crate::tree::Tree;

/// Deletes one resource.
///
/// # Errors
/// What the server says.
pub async fn run(session: &Session, noun: &Noun) -> Result {
    for_noun!(noun, one(session))
}

async fn one<T: nouns::Noun>(session: &Session, name: &str) -> Result {
    let (deleted, settings) = (session.client.delete::<T>(name).await?, &session.settings);
    let label = deleted.as_ref().map_or(name, |deleted| deleted.name());
    let message = format!("Deleted {}: {label}", T::DELETED);
    match (&deleted, settings.format) {
        (Some(deleted), _) => output::done(&message, deleted, settings),
        (None, Format::Table) => output::line(&message),
        (None, Format::Name) => output::line(name),
        // The server answers no body: its name is all there is to show.
        (None, format) => {
            let tree = Tree::Map(vec![
                ("name".to_owned(), Tree::text(name)),
                ("tags".to_owned(), Tree::Leaf(serde_json::Value::Null)),
            ]);
            match format {
                Format::Yaml => output::print(&crate::model::write(&tree)),
                _ => output::print(&output::json(&tree, INDENT)),
            }
        }
    }
}
