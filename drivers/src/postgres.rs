//! `postgres`: notifications of a channel, or new rows of a table; `postgres-sink`: the other way.

use std::time::Duration;

use dispatch_api::CloudEvent;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc};
use tokio_postgres::{AsyncMessage, Client, Config, Notification};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;

use crate::backoff::Backoff;
use crate::connect::{CA, Lost, PASSWORD, Session, USERNAME, lost, tls, url};
use crate::emitter::BATCH_EVENTS;
use crate::kind::Open;
use crate::message::{self, Message};
use crate::state::State;
use crate::{DriverType, Emitter, Error, Key, Settings, Sink, Source, Unpublished};

const URL: Key = Key::addresses(
    "url",
    "The database: `postgres://host/database`, with `?sslmode=require` if TLS is a must",
    &[("postgres", 5432), ("postgresql", 5432)],
)
.required();

pub(crate) const SOURCE: DriverType = DriverType {
    name: "postgres",
    about: "Emits the notifications of a channel, or the new rows of a table",
    exposed: false,
    keys: &[
        URL,
        USERNAME,
        PASSWORD,
        CA,
        Key::text("channel", "The channel to listen to"),
        Key::text("table", "The table, with its schema or without"),
        Key::text("column", "A unique column of it that only grows").default("id"),
        Key::text("from", "Which rows at the first start").one_of(&["new", "all"]).default("new"),
        Key::number("seconds", "Seconds between two looks", 1, 86_400).default("2"),
        Key::text("type", "The events' `type`; default: `postgres.notification`, `postgres.row`"),
    ],
    open: Open::Source(source),
};

pub(crate) const SINK: DriverType = DriverType {
    name: "postgres-sink",
    about: "Inserts events into a table, each once, or notifies a channel",
    exposed: false,
    keys: &[
        URL,
        USERNAME,
        PASSWORD,
        CA,
        Key::text("table", "A table with the columns id, source, type, subject, time and data"),
        Key::text("channel", "The channel; the whole event is the payload, up to 7999 bytes"),
    ],
    open: Open::Sink(sink),
};

const TIMEOUT: Duration = Duration::from_secs(10);
const POSITION: &str = "postgres.json";
/// Notifications that wait; beyond it the connection is not read, and the database keeps them.
const WAITING: usize = 1000;

struct Server {
    config: Config,
    tls: MakeRustlsConnect,
}

impl Server {
    fn of(settings: &Settings) -> Result<Server, Error> {
        let url = url(settings, "url")?;
        let mut config: Config = url
            .as_str()
            .parse()
            .map_err(|error: tokio_postgres::Error| settings.wrong("url", &crate::chain(&error)))?;
        config
            .connect_timeout(TIMEOUT)
            .tcp_user_timeout(TIMEOUT * 3)
            .application_name(format!("dispatch driver {}", settings.name()));
        Ok(Server { config, tls: MakeRustlsConnect::new(tls(settings)?) })
    }

    /// A connection, what serves it, and what is notified on it.
    async fn connect(
        &self,
    ) -> Result<(Client, AbortOnDropHandle<()>, mpsc::Receiver<Notification>), Lost> {
        let (client, mut connection) = self.config.connect(self.tls.clone()).await.map_err(lost)?;
        let (to, notified) = mpsc::channel(WAITING);
        let served = tokio::spawn(async move {
            loop {
                match std::future::poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notification(notification))) => {
                        // Nobody listens where a table is read.
                        let _ = to.send(notification).await;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        tracing::debug!("the connection ended: {error}");
                        return;
                    }
                    None => return,
                }
            }
        });
        Ok((client, AbortOnDropHandle::new(served), notified))
    }
}

fn source(settings: &Settings) -> Result<Box<dyn Source>, Error> {
    let server = Server::of(settings)?;
    let given = settings.maybe("type").map(str::to_owned);
    let event_type = |usual: &str| given.clone().unwrap_or_else(|| usual.to_owned());
    match (settings.maybe("channel"), settings.maybe("table")) {
        (Some(channel), None) => Ok(Box::new(Channel {
            server,
            channel: channel.to_owned(),
            event_type: event_type("postgres.notification"),
        })),
        (None, Some(table)) => Ok(Box::new(Table {
            server,
            table: table.to_owned(),
            column: settings.get("column").to_owned(),
            all: settings.get("from") == "all",
            every: settings.seconds("seconds"),
            event_type: event_type("postgres.row"),
            state: settings.state()?,
        })),
        _ => Err(settings.wrong("channel", "or the key table should be given, and not both")),
    }
}

struct Channel {
    server: Server,
    channel: String,
    event_type: String,
}

impl Session for Channel {
    const WHAT: &str = "postgres";

    async fn session(&mut self, emitter: &Emitter, backoff: &mut Backoff) -> Result<(), Lost> {
        let (client, _served, mut notified) = self.server.connect().await?;
        let listen = format!("LISTEN {}", quoted(&self.channel));
        client.batch_execute(&listen).await.map_err(lost)?;
        backoff.reset();
        tracing::info!("listening to {:?}", self.channel);
        let mut some = Vec::new();
        while notified.recv_many(&mut some, BATCH_EVENTS).await > 0 {
            // The database gives them no name, and keeps none.
            let events: Vec<CloudEvent> = (some.drain(..))
                .map(|notification| {
                    Message {
                        id: uuid::Uuid::now_v7().to_string(),
                        subject: Some(notification.channel()),
                        body: notification.payload().as_bytes(),
                        ..Message::default()
                    }
                    .into_event(emitter, &self.event_type)
                })
                .collect();
            emitter.emit_all(&events).await?;
        }
        Err(Lost::Connection("the connection is lost".into()))
    }
}

struct Table {
    server: Server,
    table: String,
    column: String,
    all: bool,
    every: Duration,
    event_type: String,
    state: State,
}

/// The last row that was emitted. Nothing: none yet, and all are wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Position {
    last: Option<String>,
}

impl Session for Table {
    const WHAT: &str = "postgres";

    async fn session(&mut self, emitter: &Emitter, backoff: &mut Backoff) -> Result<(), Lost> {
        let (client, _served, _) = self.server.connect().await?;
        let (table, column) = (path(&self.table), quoted(&self.column));
        let kind = "SELECT format_type(atttypid, NULL) FROM pg_attribute \
                    WHERE attrelid = $1::text::regclass AND attname = $2 AND NOT attisdropped";
        let kind = client.query_opt(kind, &[&table, &self.column]).await.map_err(lost)?;
        let Some(kind) = kind else {
            let what = format!("table {} has no column {}", self.table, self.column);
            return Err(Error::Failed(what).into());
        };
        let kind: String = kind.get(0);
        // Rows of transactions that began after one that still runs have to wait: that one may yet add rows
        // that come before them.
        let settled = "age(t.xmin) > age(pg_snapshot_xmin(pg_current_snapshot())::xid)";
        let mut position = match self.state.read::<Position>(POSITION)? {
            Some(position) => position,
            None => {
                let last =
                    format!("SELECT max(t.{column})::text FROM {table} AS t WHERE {settled}");
                let row = client.query_one(&last, &[]).await.map_err(lost)?;
                let position = Position { last: if self.all { None } else { row.get(0) } };
                self.state.write(POSITION, &position)?;
                position
            }
        };
        let next = format!(
            "SELECT t.{column}::text, row_to_json(t)::text FROM {table} AS t \
             WHERE ($1::text IS NULL OR t.{column} > $1::text::{kind}) AND {settled} \
             ORDER BY t.{column} LIMIT {BATCH_EVENTS}"
        );
        let next = client.prepare(&next).await.map_err(lost)?;
        tracing::info!("reading table {} by {}", self.table, self.column);
        loop {
            let rows = client.query(&next, &[&position.last]).await.map_err(lost)?;
            backoff.reset();
            let (mut events, mut last) = (Vec::with_capacity(rows.len()), None);
            for row in &rows {
                let (key, json): (String, String) = (row.get(0), row.get(1));
                let data = message::data(None, json.as_bytes());
                let id = message::short(format!("{}/{key}", self.table));
                let mut event = emitter.event(id, &self.event_type, Timestamp::now(), data);
                event.subject = Some(self.table.clone());
                events.push(event);
                last = Some(key);
            }
            if last.is_some() {
                emitter.emit_all(&events).await?;
                position = Position { last };
                self.state.write(POSITION, &position)?;
            }
            if rows.len() < BATCH_EVENTS {
                tokio::time::sleep(self.every).await;
            }
        }
    }
}

fn sink(settings: &Settings) -> Result<Box<dyn Sink>, Error> {
    let insert = match (settings.maybe("table"), settings.maybe("channel")) {
        (Some(table), None) => Some(format!(
            "INSERT INTO {} (id, source, type, subject, time, data) \
             VALUES ($1, $2, $3, $4, $5::text::timestamptz, $6::text::jsonb) ON CONFLICT DO NOTHING",
            path(table)
        )),
        (None, Some(_)) => None,
        _ => {
            return Err(settings.wrong("table", "or the key channel should be given, and not both"));
        }
    };
    Ok(Box::new(Writer {
        server: Server::of(settings)?,
        insert,
        channel: settings.get("channel").to_owned(),
        connection: Mutex::default(),
    }))
}

struct Writer {
    server: Server,
    /// Nothing: the channel is notified.
    insert: Option<String>,
    channel: String,
    connection: Mutex<Option<(Client, AbortOnDropHandle<()>)>>,
}

impl Writer {
    async fn write(&self, event: &CloudEvent) -> Result<(), Unpublished> {
        let mut held = self.connection.lock().await;
        let (client, served) = match held.take() {
            Some(known) if !known.0.is_closed() => known,
            _ => {
                let (client, served, _) = self.server.connect().await?;
                (client, served)
            }
        };
        let event = event.to_v1();
        let done = match &self.insert {
            Some(insert) => {
                let data = event.data.is_some().then(|| event.payload().get().to_owned());
                let values: &[&(dyn tokio_postgres::types::ToSql + Sync)] = &[
                    &event.id,
                    &event.source,
                    &event.event_type,
                    &event.subject,
                    &event.time,
                    &data,
                ];
                client.execute(insert.as_str(), values).await
            }
            None => {
                let text = event.to_http_structured().unwrap_or_default();
                let text = String::from_utf8_lossy(&text).into_owned();
                client.execute("SELECT pg_notify($1, $2)", &[&self.channel, &text]).await
            }
        };
        match done {
            Ok(_) => {
                *held = Some((client, served));
                Ok(())
            }
            Err(error) => {
                let why = crate::chain(&error);
                // Data that cannot be, or breaks a rule of the table, never will be.
                let code = error.code().map_or("", |code| code.code());
                let never = ["22", "23"].iter().any(|class| code.starts_with(class));
                Err(if never { Unpublished::Never(why) } else { Unpublished::Later(why) })
            }
        }
    }
}

impl Sink for Writer {
    fn publish<'a>(&'a self, event: &'a CloudEvent) -> BoxFuture<'a, Result<(), Unpublished>> {
        Box::pin(self.write(event))
    }
}

/// A name in SQL, whatever it is.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name, with or without its schema.
fn path(name: &str) -> String {
    name.split('.').map(quoted).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_become_anything_else() {
        assert_eq!(path("public.orders"), r#""public"."orders""#);
        assert_eq!(path(r#"a"; DROP TABLE b; --"#), r#""a""; DROP TABLE b; --""#);
    }
}
