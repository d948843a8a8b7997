//! Waiting until something is built.

use std::time::Duration;

use dispatch_api::client::Text;
use dispatch_api::{Kind, Status};
use indicatif::ProgressBar;

use super::Session;
use crate::error::{Error, Result};
use crate::nouns::Built;
use crate::output;
use crate::table::printable;

/// How often the server is asked.
const PACE: Duration = Duration::from_millis(300);

/// Waits until a resource can be used, and returns it then.
///
/// # Errors
/// Why it could not be built.
pub async fn built<T: Built>(session: &Session, mut item: T) -> Result<T> {
    let name = item.name().to_owned();
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(120));
    let title = format!("{} {name}", T::WORD);
    let mut log = None;
    let has_log = matches!(T::KIND, Kind::Image | Kind::BaseImage);
    if has_log && output::on_terminal() {
        log = session.client.log::<T>(&name, true).await.ok();
    }
    let mut pace = tokio::time::interval(PACE);
    let mut tail = String::new();
    while !matches!(item.status(), Status::Ready | Status::Error) {
        bar.set_message(format!("{title}: {} {tail}", item.status()));
        tokio::select! {
            _ = pace.tick() => item = session.client.get(&name).await?,
            text = more(&mut log), if log.is_some() => match text {
                Some(text) => tail = last_line(&text).unwrap_or(tail),
                None => log = None,
            },
        }
    }
    bar.finish_and_clear();
    if item.status() == Status::Ready {
        return Ok(item);
    }
    let reason = item.reason().join(", ");
    let mut text = format!("{title} is in status ERROR: {reason}");
    if has_log {
        let noun = T::WORD.replace(' ', "-");
        text += &format!("\nThe log of its build: dispatch get {noun} {name} --logs");
    }
    Err(Error::local(text))
}

async fn more(log: &mut Option<Text>) -> Option<Vec<u8>> {
    log.as_mut()?.next().await.ok().flatten()
}

fn last_line(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().rfind(|line| !line.trim().is_empty())?;
    Some(printable(line).chars().take(80).collect())
}
