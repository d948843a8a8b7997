//! What a driver type is: data, from which arguments are checked, ways through the sandbox are made and pages are written.

use crate::{Error, Settings, Sink, Source};

/// A driver type.
#[derive(Debug)]
pub struct DriverType {
    /// Its name, at most 32 bytes.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// Whether strangers are to reach its HTTP port: the gateway then forwards a path to it.
    pub exposed: bool,
    pub(crate) keys: &'static [Key],
    pub(crate) open: Open,
}

/// The way of events through a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It emits events.
    Source,
    /// It takes events by HTTP and hands them on.
    Sink,
}

/// Checks the settings and makes the driver. Connects to nothing.
pub(crate) enum Open {
    Source(fn(&Settings) -> Result<Box<dyn Source>, Error>),
    Sink(fn(&Settings) -> Result<Box<dyn Sink>, Error>),
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Open::Source(_) => "Source",
            Open::Sink(_) => "Sink",
        })
    }
}

impl DriverType {
    /// The way of events through it.
    pub fn role(&self) -> Role {
        match self.open {
            Open::Source(_) => Role::Source,
            Open::Sink(_) => Role::Sink,
        }
    }

    /// Whether it answers HTTP on `$PORT`: what is exposed, and every sink.
    pub fn listens(&self) -> bool {
        self.exposed || self.role() == Role::Sink
    }

    /// Its own keys.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter()
    }

    /// Its own keys and those that all types of its role have.
    pub fn all_keys(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().chain(common(self.role()))
    }

    /// Checks everything that can be known without starting the driver. `args` are pairs of key and
    /// value; `env` looks up what secrets give, as the driver will see it.
    ///
    /// # Errors
    /// The first thing that is wrong, for the user.
    pub fn check<'a>(
        &'static self,
        args: impl IntoIterator<Item = (&'a str, &'a str)>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Settings, Error> {
        let settings = Settings::new(self, args, env)?;
        match self.open {
            Open::Source(open) => drop(open(&settings)?),
            Open::Sink(open) => drop(open(&settings)?),
        }
        Ok(settings)
    }
}

/// Keys that all types of a role have.
pub fn common(role: Role) -> &'static [Key] {
    const BOTH: [Key; 1] = [Key::flag("debug", "Write more to the log")];
    static SOURCE: [Key; 6] = [
        Key::text("source", "The events' `source`; default: the driver's name"),
        Key::text("refused", "What to do with an event that the server refuses")
            .one_of(&["skip", "stop"])
            .default("skip"),
        Key::text("sink", "URL that events are posted to; default: `K_SINK`"),
        Key::text("dispatch-api-endpoint", "`HOST:PORT` of the server, instead of a URL"),
        Key::flag("dry-run", "Write events to the log instead of sending them"),
        BOTH[0],
    ];
    static SINK: [Key; 2] =
        [Key::text("token", "What callers must send as `Authorization: Bearer`").secret(), BOTH[0]];
    match role {
        Role::Source => &SOURCE,
        Role::Sink => &SINK,
    }
}

/// Something a driver is told.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name: `--name=value`.
    pub name: &'static str,
    /// What it means, in one line.
    pub about: &'static str,
    /// What a value must look like.
    pub kind: Kind,
    /// Whether there must be one.
    pub need: Need,
    /// By which way it comes.
    pub given: Given,
}

/// What a value must look like.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// Present or not; also `true` and `false`.
    Flag,
    /// A whole number between two bounds.
    Number(u64, u64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Addresses to connect to, with commas between them: `host:port`, or URLs of these schemes,
    /// each with its usual port. The first scheme is meant where none is written.
    Addresses(&'static [(&'static str, u16)]),
}

/// Whether there must be a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// There must be one.
    Required,
    /// There may be one.
    Optional,
    /// This is it where none is given. `{key}` in it is another key's value.
    Default(&'static str),
}

/// By which way a value comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// As an argument.
    Argument,
    /// As an argument, or from a secret: as an environment variable.
    Either,
    /// From a secret only, so that it is in no list of processes.
    Secret,
}

impl Key {
    /// A text that may be given.
    pub const fn text(name: &'static str, about: &'static str) -> Key {
        Key { name, about, kind: Kind::Text, need: Need::Optional, given: Given::Argument }
    }

    /// A switch.
    pub const fn flag(name: &'static str, about: &'static str) -> Key {
        Key { kind: Kind::Flag, ..Key::text(name, about) }
    }

    /// A whole number between two bounds.
    pub const fn number(name: &'static str, about: &'static str, least: u64, most: u64) -> Key {
        Key { kind: Kind::Number(least, most), ..Key::text(name, about) }
    }

    /// Addresses that the driver connects to.
    pub const fn addresses(
        name: &'static str,
        about: &'static str,
        schemes: &'static [(&'static str, u16)],
    ) -> Key {
        Key { kind: Kind::Addresses(schemes), given: Given::Either, ..Key::text(name, about) }
    }

    /// One of a few words.
    pub const fn one_of(self, words: &'static [&'static str]) -> Key {
        Key { kind: Kind::OneOf(words), ..self }
    }

    /// There must be one.
    pub const fn required(self) -> Key {
        Key { need: Need::Required, ..self }
    }

    /// What it is where none is given.
    pub const fn default(self, value: &'static str) -> Key {
        Key { need: Need::Default(value), ..self }
    }

    /// Comes from secrets only.
    pub const fn secret(self) -> Key {
        Key { given: Given::Secret, ..self }
    }

    /// Comes from secrets too.
    pub const fn or_secret(self) -> Key {
        Key { given: Given::Either, ..self }
    }

    /// The environment variable that a secret's key of this name becomes.
    pub fn variable(&self) -> String {
        self.name.to_ascii_uppercase().replace('-', "_")
    }
}

/// A place that a driver connects to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}
