//! `dispatch edit`.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use super::{
    BaseImage, Driver, DriverType, Endpoint, Function, Image, Noun, Result, Schedule, Secret,
    Session, Subscription, for_noun,
};
use crate::commands::file::{self, Action};
use crate::error::{Error, file_cause};
use crate::files::Source;
use crate::{input, nouns, output};

/// Opens a resource in an editor and sends what was changed.
///
/// # Errors
/// What the editor, the file or the server says.
pub async fn run(session: &Session, noun: &Noun, work_dir: &str) -> Result {
    for_noun!(noun, one(session, work_dir))
}

async fn one<T: nouns::Noun>(session: &Session, work_dir: &str, name: &str) -> Result {
    let item: T = session.client.get(name).await?;
    let before = output::yaml(&item);
    // Readable by its owner alone: it may be a secret.
    let mut file = tempfile::Builder::new()
        .prefix(&format!("dispatch-{}-", T::COMMAND))
        .suffix(".yaml")
        .tempfile()
        .map_err(|error| Error::local(format!("error creating a temporary file: {error}")))?;
    let path = file.path().to_owned();
    file.write_all(before.as_bytes())
        .and_then(|()| file.flush())
        .map_err(|error| Error::local(file_cause("write", &path.display().to_string(), &error)))?;
    edit(&path)?;
    let after = input::text(&path).map_err(Error::Local)?;
    if after == before {
        return output::line("Edit cancelled, no changes made.");
    }
    let source = Source::text(&path.display().to_string(), after, work_dir);
    if let Err(error) = file::work(session, Action::Update, &source).await {
        // What was written must not be lost.
        return Err(match file.keep() {
            Ok((_, path)) => {
                Error::local(format!("{error}\nThe edited file is kept: {}", path.display()))
            }
            Err(_) => error,
        });
    }
    Ok(())
}

/// Runs the editor until it ends.
fn edit(path: &Path) -> Result {
    let editor = std::env::var("EDITOR").ok().filter(|editor| !editor.trim().is_empty());
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let status = Command::new(program).args(words).arg(path).status().map_err(|error| {
        let cause = file_cause("exec", program, &error);
        Error::local(format!("error starting the editor (set EDITOR to another): {cause}"))
    })?;
    if !status.success() {
        return Err(Error::local(format!("the editor {program} failed: {status}")));
    }
    Ok(())
}
