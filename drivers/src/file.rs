//! `file`: files that appear or change in a directory; `file-sink`: events as files or lines.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use dispatch_api::CloudEvent;
use dispatch_api::cloud_event::Data;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::kind::Open;
use crate::message::{self, Format};
use crate::seen::{MOST, Seen};
use crate::state::State;
use crate::{DriverType, Emitter, Error, Key, Settings, Sink, Source, Unpublished};

pub(crate) const SOURCE: DriverType = DriverType {
    name: "file",
    about: "Emits `file.created` and `file.changed` for files in a directory",
    exposed: false,
    keys: &[
        Key::text("directory", "The directory, as the driver sees it").required(),
        Key::text("suffix", "Only files whose names end so"),
        Key::number("seconds", "Seconds between two looks", 1, 86_400).default("2"),
        Key::flag("content", "With what is in the file as data, up to 256 KiB"),
        Key::flag("recursive", "With the directories inside"),
        Key::flag("existing", "With files that are there at the first start"),
    ],
    open: Open::Source(watcher),
};

pub(crate) const SINK: DriverType = DriverType {
    name: "file-sink",
    about: "Writes events as files of a directory, or as lines of a file",
    exposed: false,
    keys: &[
        Key::text("path", "The directory, or the file").required(),
        Key::text("as", "A file for each event, or a line")
            .one_of(&["files", "lines"])
            .default("files"),
        Key::text("format", "The whole event as JSON, or its data")
            .one_of(&["event", "data"])
            .default("event"),
    ],
    open: Open::Sink(writer),
};

/// Bytes of a file that become data.
const MOST_CONTENT: u64 = 256 << 10;
const POSITION: &str = "files.json";

/// What tells whether a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// Microseconds since 1970.
    modified: i64,
    bytes: u64,
}

type Files = BTreeMap<String, Mark>;

struct Watcher {
    directory: PathBuf,
    suffix: String,
    every: Duration,
    with_content: bool,
    recursive: bool,
    existing: bool,
    state: State,
}

fn watcher(settings: &Settings) -> Result<Box<dyn Source>, Error> {
    Ok(Box::new(Watcher {
        directory: settings.get("directory").into(),
        suffix: settings.get("suffix").to_owned(),
        every: settings.seconds("seconds"),
        with_content: settings.is_on("content"),
        recursive: settings.is_on("recursive"),
        existing: settings.is_on("existing"),
        state: settings.state()?,
    }))
}

impl Watcher {
    /// The files that are there, by their paths below the directory.
    fn look(&self) -> std::io::Result<Files> {
        let mut found = Files::new();
        let mut queue = vec![self.directory.clone()];
        while let Some(directory) = queue.pop() {
            for entry in std::fs::read_dir(&directory)? {
                let entry = entry?;
                let path = entry.path();
                // No links: they lead to places that nobody named.
                let kind = entry.file_type()?;
                if kind.is_dir() && self.recursive {
                    queue.push(path);
                    continue;
                }
                let name = path.strip_prefix(&self.directory).ok().and_then(Path::to_str);
                let Some(name) = name.filter(|name| kind.is_file() && name.ends_with(&self.suffix))
                else {
                    continue;
                };
                // It may be gone already.
                let Ok(meta) = entry.metadata() else { continue };
                let modified = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
                let modified = i64::try_from(modified.as_micros()).unwrap_or(i64::MAX);
                if found.len() == MOST {
                    tracing::warn!("only {MOST} files are watched");
                    return Ok(found);
                }
                found.insert(name.to_owned(), Mark { modified, bytes: meta.len() });
            }
        }
        Ok(found)
    }

    fn event(&self, emitter: &Emitter, name: &str, mark: Mark, new: bool) -> CloudEvent {
        let time = Timestamp::from_microsecond(mark.modified).unwrap_or_else(|_| Timestamp::now());
        let event_type = if new { "file.created" } else { "file.changed" };
        let id = message::short(format!("{name}@{}+{}", mark.modified, mark.bytes));
        let content = (self.with_content && mark.bytes <= MOST_CONTENT)
            .then(|| std::fs::read(self.directory.join(name)).ok())
            .flatten();
        let data = match content {
            Some(bytes) => message::data(None, &bytes),
            None => Data::json(&serde_json::json!({ "path": name, "bytes": mark.bytes })).ok(),
        };
        let mut event = emitter.event(id, event_type, time, data);
        event.subject = Some(name.chars().filter(|letter| !letter.is_control()).collect());
        event
    }
}

impl Source for Watcher {
    fn run(
        self: Box<Self>,
        emitter: Emitter,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            let failed = |error: std::io::Error| {
                Error::Failed(format!("cannot read {}: {error}", self.directory.display()))
            };
            let mut seen = match Seen::read(&self.state, POSITION)? {
                Some(seen) => seen,
                None => {
                    let first =
                        if self.existing { Files::new() } else { self.look().map_err(failed)? };
                    Seen::begin(&self.state, POSITION, first)?
                }
            };
            let mut before = Files::new();
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(self.every) => {}
                }
                let now = self.look().map_err(failed)?;
                // Who still writes is left alone: a file is told of when it was the same twice.
                let fresh: Vec<(String, Mark)> = (now.iter())
                    .filter(|(name, mark)| !seen.has(name, mark))
                    .filter(|(name, mark)| before.get(*name) == Some(mark))
                    .map(|(name, mark)| (name.clone(), *mark))
                    .collect();
                let event = |name: &str, mark: &Mark, new| self.event(&emitter, name, *mark, new);
                seen.tell(&emitter, &fresh, event).await?;
                seen.keep(&now)?;
                before = now;
            }
        })
    }
}

struct Writer {
    path: PathBuf,
    lines: bool,
    format: Format,
}

fn writer(settings: &Settings) -> Result<Box<dyn Sink>, Error> {
    Ok(Box::new(Writer {
        path: settings.get("path").into(),
        lines: settings.get("as") == "lines",
        format: Format::of(settings),
    }))
}

impl Writer {
    fn write(&self, event: &CloudEvent) -> std::io::Result<()> {
        let (_, mut body) = self.format.write(event);
        if self.lines {
            // JSON has no line ends but between its parts.
            body.retain(|byte| *byte != b'\n' && *byte != b'\r');
            body.push(b'\n');
            let mut file =
                std::fs::OpenOptions::new().create(true).append(true).open(&self.path)?;
            file.write_all(&body)?;
            return file.sync_data();
        }
        std::fs::create_dir_all(&self.path)?;
        // The same event is the same file, and no id leads out of the directory.
        let name = message::file_name(event);
        let fresh = self.path.join(format!(".{name}.new"));
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(&body)?;
        file.sync_all()?;
        std::fs::rename(&fresh, self.path.join(name))?;
        std::fs::File::open(&self.path)?.sync_all()
    }
}

impl Sink for Writer {
    fn publish<'a>(&'a self, event: &'a CloudEvent) -> BoxFuture<'a, Result<(), Unpublished>> {
        let done = self.write(event).map_err(|error| {
            Unpublished::Later(format!("cannot write to {}: {error}", self.path.display()))
        });
        Box::pin(std::future::ready(done))
    }
}
