//! PostgreSQL: channels and tables.

use std::process::Command;

use tempfile::TempDir;
use tokio_postgres::NoTls;

use crate::support::{Broker, Ingest, Start, free_port, publish, until_async};

const PASSWORD: &str = "s3:cr@t/";

/// The server refuses to run as root.
fn as_postgres(program: &std::path::Path) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(program);
    if nix_uid() == 0 {
        let (user, group) = account();
        command.uid(user).gid(group);
    }
    command.current_dir("/");
    command
}

fn nix_uid() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").unwrap().uid()
}

/// The account that the package has made, or nobody's.
fn account() -> (u32, u32) {
    let all = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = all.lines().find(|line| line.starts_with("postgres:"));
    let parts: Vec<&str> = line.unwrap_or("nobody:x:65534:65534").split(':').collect();
    (parts[2].parse().unwrap(), parts[3].parse().unwrap())
}

/// `None`, after a printed reason, where it is not installed.
async fn start(data: TempDir, port: u16) -> Option<Broker> {
    let (init, server) = (Broker::find("initdb")?, Broker::find("postgres")?);
    let (user, group) = account();
    if nix_uid() == 0 {
        std::os::unix::fs::chown(data.path(), Some(user), Some(group)).unwrap();
    }
    let place = data.path().join("db");
    if !place.exists() {
        let secret = data.path().join("secret");
        std::fs::write(&secret, PASSWORD).unwrap();
        if nix_uid() == 0 {
            std::os::unix::fs::chown(&secret, Some(user), Some(group)).unwrap();
        }
        let done = as_postgres(&init)
            .args(["-U", "u", "-A", "scram-sha-256", "--no-sync", "--pwfile"])
            .arg(&secret)
            .arg("-D")
            .arg(&place)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let mut command = as_postgres(&server);
    command.arg("-D").arg(&place).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-c"]);
    command.arg("unix_socket_directories=");
    let broker = Broker::start(&mut command, port, data).await;
    until_async("it takes queries", async || connect(port).await.is_some()).await;
    Some(broker)
}

async fn connect(port: u16) -> Option<tokio_postgres::Client> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user("u").password(PASSWORD).dbname("postgres");
    let (client, connection) = config.connect(NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

fn driver<'a>(port: u16, ingest: &Ingest, state: &TempDir) -> Start<'a> {
    Start::new("postgres")
        .arg("url", format!("postgres://127.0.0.1:{port}/postgres"))
        .arg("username", "u")
        .env("PASSWORD", PASSWORD)
        .to(ingest, state.path())
}

#[tokio::test]
async fn rows_are_told_of_once_and_none_is_passed_over() {
    let (state, port) = (tempfile::tempdir().unwrap(), free_port());
    let Some(broker) = start(tempfile::tempdir().unwrap(), port).await else { return };
    let ingest = Ingest::start().await;
    let client = connect(port).await.unwrap();
    client
        .batch_execute(
            "create table orders (id bigint generated always as identity primary key, note text); \
             insert into orders (note) select 'old' from generate_series(1, 3)",
        )
        .await
        .unwrap();
    let run =
        || driver(port, &ingest, &state).arg("table", "public.orders").arg("seconds", 1).run();
    ingest.answer(503);
    let running = run();
    until_async("a position", async || state.path().join("postgres.json").exists()).await;
    let position = || std::fs::read_to_string(state.path().join("postgres.json")).unwrap();
    let before = position();

    // One transaction takes a number and is slow; a later one is faster.
    let mut slow = connect(port).await.unwrap();
    let open = slow.transaction().await.unwrap();
    open.execute("insert into orders (note) values ('slow')", &[]).await.unwrap();
    client
        .execute("insert into orders (note) select 'fast' from generate_series(1, 150)", &[])
        .await
        .unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(ingest.refused(), 0, "the fast ones have to wait for the slow one");
    open.commit().await.unwrap();
    ingest.wait_for_refusals(2).await;
    running.crash().await;
    assert_eq!(position(), before, "the position moves when the server has the rows");

    ingest.answer(0);
    let running = run();
    ingest.wait_for(151).await;
    let data = broker.kill();
    let _broker = start(data, port).await.unwrap();
    let client = connect(port).await.unwrap();
    client.execute("insert into orders (note) values ('new')", &[]).await.unwrap();
    let events = ingest.wait_for(152).await;
    running.stop().await;
    assert_eq!(events.len(), 152);
    for event in events {
        assert_eq!(event.event_type, "postgres.row");
        assert!(event.id.starts_with("public.orders/"));
        assert!(!event.payload().get().contains("old"), "{:?}", event.data);
    }
}

#[tokio::test]
async fn channels_are_listened_to_again_after_a_loss() {
    let (state, port) = (tempfile::tempdir().unwrap(), free_port());
    let Some(broker) = start(tempfile::tempdir().unwrap(), port).await else { return };
    let ingest = Ingest::start().await;
    let running = driver(port, &ingest, &state).arg("channel", r#"my "channel""#).run();
    let sink = Start::new("postgres-sink")
        .arg("url", format!("postgres://u@127.0.0.1:{port}/postgres"))
        .arg("channel", r#"my "channel""#)
        .env("PASSWORD", PASSWORD)
        .run()
        .listening()
        .await;
    // Nobody keeps what is notified before somebody listens.
    until_async("the driver listens", async || {
        publish(&sink, "first", 202).await;
        !ingest.accepted().is_empty()
    })
    .await;
    let data = broker.kill();
    publish(&sink, "away", 503).await;
    let _broker = start(data, port).await.unwrap();
    until_async("the driver listens again", async || {
        publish(&sink, "second", 0).await;
        ingest.accepted().iter().any(|event| event.payload().get().contains("second"))
    })
    .await;
    running.stop().await;
    sink.stop().await;
}

#[tokio::test]
async fn events_become_rows_once() {
    let port = free_port();
    let Some(_broker) = start(tempfile::tempdir().unwrap(), port).await else { return };
    let client = connect(port).await.unwrap();
    client
        .batch_execute(
            "create table events (id text, source text, type text, subject text, \
             time timestamptz, data jsonb, primary key (source, id))",
        )
        .await
        .unwrap();
    let sink = Start::new("postgres-sink")
        .arg("url", format!("postgres://u@127.0.0.1:{port}/postgres"))
        .arg("table", "events")
        .env("PASSWORD", PASSWORD)
        .run()
        .listening()
        .await;
    for id in ["1", "2", "1"] {
        publish(&sink, id, 202).await;
    }
    let rows = client.query("select id, data->>'id' from events order by id", &[]).await.unwrap();
    let found: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(found, [("1".into(), "1".into()), ("2".into(), "2".into())]);
    sink.stop().await;
}
