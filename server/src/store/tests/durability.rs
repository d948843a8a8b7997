use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;

use super::super::{Entity, Error, Page, Store};
use super::{Kind, entity, job, store};

/// Transactions in a write-ahead log: every one ends with a frame that carries the database's size.
fn commits(wal: &[u8]) -> usize {
    let page = u32::from_be_bytes(wal[8..12].try_into().unwrap()) as usize;
    wal[32..].chunks_exact(24 + page).filter(|frame| frame[4..8] != [0; 4]).count()
}

#[tokio::test]
async fn what_waits_is_committed_together() {
    let (dir, store) = store().await;
    let wal = dir.path().join("dispatch.db-wal");
    let before = commits(&std::fs::read(&wal).unwrap());
    let creates = (0..200).map(|n| {
        let name = format!("e{n}");
        let jobs = vec![job("image", &name)];
        store.create(entity(Kind::Image, "o", &name), jobs)
    });
    for created in join_all(creates).await {
        created.unwrap();
    }
    let together = commits(&std::fs::read(&wal).unwrap()) - before;
    assert!((1..=20).contains(&together), "200 writes took {together} transactions");
    // One by one they cannot share.
    for n in 0..5 {
        store.create(entity(Kind::Secret, "o", &n.to_string()), Vec::new()).await.unwrap();
    }
    assert_eq!(commits(&std::fs::read(&wal).unwrap()) - before - together, 5);
}

const CHILD: &str = "DISPATCH_TEST_STORE";

/// The child of the test below: writes until it is killed and says what was acknowledged. By itself
/// it has nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_writes_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let store = Store::open(Path::new(&path)).await.unwrap();
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0.. {
                let name = format!("w{writer}-{n}");
                let jobs = vec![job("image", &name)];
                store.create(entity(Kind::Image, "o", &name), jobs).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "ack {name}").unwrap();
                out.flush().unwrap();
            }
        })
    });
    // The parent does not wait for ever.
    let _ = tokio::time::timeout(Duration::from_secs(60), join_all(writers)).await;
    std::process::exit(1);
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("dispatch.db");
    let (_, module) = module_path!().split_once("::").unwrap();
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg(format!("{module}::child_that_writes_until_it_is_killed"))
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut acknowledged = Vec::new();
        for line in out.lines() {
            // The harness writes its own words in front of the first one.
            let Ok(line) = line else { break };
            let Some((_, name)) = line.split_once("ack ") else { continue };
            acknowledged.push(name.to_owned());
            if acknowledged.len() == 100 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let count = acknowledged.len();
        assert!(count >= 100 * round, "the child stopped by itself after {count} writes");
        let store = Store::open(&path).await.unwrap();
        let names = store.list(Kind::Image, "o", Page::default()).await.unwrap();
        let names: std::collections::HashSet<_> = names.into_iter().map(|e| e.name).collect();
        for name in &acknowledged {
            assert!(names.contains(name), "{name} was acknowledged in round {round} and is lost");
        }
        // Whole operations only: each entity with its job and its change.
        let count = i64::try_from(names.len()).unwrap();
        assert_eq!(store.queue_depths().await.unwrap(), [("image".to_owned(), count, 0, 0)]);
        for name in names {
            store.remove(Kind::Image, "o", &name).await.unwrap();
        }
        let jobs = store.claim(&["image"], "me", 60_000_000, usize::MAX).await.unwrap();
        let ends = jobs
            .iter()
            .map(|job| store.finish_job(job.id, job.generation, super::super::JobEnd::Done));
        join_all(ends).await;
        assert_eq!(store.last_change().await.unwrap() % 2, 0, "every entity came and went");
        store.close().await;
    }
}

/// A small file system of its own, or nothing where the machine does not allow that.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let dir = TempDir::new().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"])
            .arg(dir.path())
            .output();
        mount.is_ok_and(|out| out.status.success()).then_some(SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_space_again() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: this test needs the right to mount a tmpfs");
        return;
    };
    let path = disk.0.path().join("dispatch.db");
    let store = Store::open(&path).await.unwrap();
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let body = json!({ "text": "x".repeat(20_000) });
    let big = |name: String| Entity { body: body.clone(), ..entity(Kind::Image, "o", &name) };
    let (mut stored, mut refused) = (0, Vec::new());
    for round in 0..100 {
        // Several at once, so that the failure meets a whole transaction.
        let creates = (0..4).map(|n| {
            let name = format!("e{round}-{n}");
            store.create(big(name.clone()), vec![job("image", &name)])
        });
        for result in join_all(creates).await {
            match result {
                Ok(_) => stored += 1,
                Err(error) => refused.push(error),
            }
        }
        if refused.len() > 8 {
            break;
        }
    }
    assert!(refused.len() > 8 && stored > 0, "{stored} stored, {} refused", refused.len());
    for error in &refused {
        assert!(
            matches!(error, Error::Unavailable(text) if text.contains("disk of the database is full")),
            "{error:?}"
        );
    }
    let count = |entities: Vec<Entity>| entities.len();
    assert_eq!(count(store.all(Kind::Image).await.unwrap()), stored, "reads go on");
    std::fs::remove_file(&ballast).unwrap();
    store.create(big("after".to_owned()), vec![job("image", "after")]).await.unwrap();
    stored += 1;
    assert_eq!(count(store.all(Kind::Image).await.unwrap()), stored);
    let depth = i64::try_from(stored).unwrap();
    assert_eq!(store.queue_depths().await.unwrap(), [("image".to_owned(), depth, 0, 0)]);
    assert_eq!(store.last_change().await.unwrap(), depth);
    store.close().await;
    let store = Store::open(&path).await.unwrap();
    assert_eq!(count(store.all(Kind::Image).await.unwrap()), stored);
    store.close().await;
}

#[tokio::test]
async fn a_full_disk_takes_no_event_without_its_deliveries() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: this test needs the right to mount a tmpfs");
        return;
    };
    let store = Store::open(&disk.0.path().join("dispatch.db")).await.unwrap();
    let subscription = entity(Kind::Subscription, "o", "s");
    let subscription = store.create(subscription, Vec::new()).await.unwrap();
    let event = |id: String| crate::store::NewEvent {
        org: "o".to_owned(),
        id,
        source: "/s".to_owned(),
        event_type: "t".to_owned(),
        hops: 0,
        body: "x".repeat(20_000),
        deliveries: vec![(subscription.id.clone(), String::new())],
    };
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..100 {
        let sends = (0..4).map(|n| store.append_events(vec![event(format!("{round}-{n}"))], 1));
        for result in join_all(sends).await {
            match result {
                Ok(receipt) => accepted += receipt.events,
                Err(Error::Unavailable(_)) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        if refused > 8 {
            break;
        }
    }
    assert!(refused > 8 && accepted > 0, "{accepted} accepted, {refused} refused");
    let log = store.newest_events("o", None, 1000).await.unwrap();
    let progress = store.progress(&subscription.id).await.unwrap();
    assert_eq!((log.len() as u64, progress.lag.unsigned_abs()), (accepted, accepted));
    store.close().await;
}

/// Runs statements on the file without the store.
async fn tinker(path: &Path, statements: &'static str) {
    let options: sqlx::any::AnyConnectOptions =
        format!("sqlite://{}", path.display()).parse().unwrap();
    let mut conn = options.connect().await.unwrap();
    sqlx::raw_sql(statements).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused_and_left_alone() {
    let (dir, store) = store().await;
    let path = dir.path().join("dispatch.db");
    store.close().await;
    tinker(&path, "INSERT INTO schema_version (version) VALUES (999)").await;
    let before = std::fs::read(&path).unwrap();
    let error = Store::open(&path).await.err().unwrap().to_string();
    assert!(error.contains("version 999") && error.contains("newer release"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    tinker(&path, "DELETE FROM schema_version WHERE version = 999").await;
    Store::open(&path).await.unwrap().close().await;
}

#[tokio::test]
async fn what_is_not_a_database_is_refused_with_its_cause() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("dispatch.db");
    std::fs::write(&path, "no database at all, ".repeat(500)).unwrap();
    let error = Store::open(&path).await.err().unwrap();
    assert!(matches!(error, Error::Corrupt(_)), "{error:?}");
    let error = Store::open(dir.path()).await.err().unwrap();
    let place = dir.path().display().to_string();
    assert!(matches!(&error, Error::Unavailable(text) if text.contains(&place)), "{error:?}");
    let error = Store::open(&dir.path().join("none/dispatch.db")).await.err().unwrap();
    assert!(matches!(&error, Error::Unavailable(text) if text.contains("none")), "{error:?}");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_an_error_and_not_a_panic() {
    let (dir, store) = store().await;
    store.create(entity(Kind::Image, "o", "a"), Vec::new()).await.unwrap();
    let path = dir.path().join("dispatch.db");
    for damage in [
        "UPDATE entity SET body = '{'",
        "UPDATE entity SET body = '{}', status = 'ODD'",
        "UPDATE entity SET status = 'READY', revision = 'many'",
        "UPDATE entity SET revision = 1, reason = x'ff'",
    ] {
        tinker(&path, damage).await;
        let read = store.get(Kind::Image, "o", "a").await;
        assert!(matches!(read, Err(Error::Corrupt(_))), "{damage}: {read:?}");
    }
}

#[tokio::test]
async fn any_path_will_do_and_the_file_is_private() {
    let dir = TempDir::new().unwrap();
    let place = dir.path().join("a b%41?x=1#f ü");
    std::fs::create_dir(&place).unwrap();
    let path = place.join("dispatch.db");
    let store = Store::open(&path).await.unwrap();
    store.create(entity(Kind::Image, "o", "a"), Vec::new()).await.unwrap();
    for name in ["dispatch.db", "dispatch.db-wal", "dispatch.db-shm"] {
        let mode = std::fs::metadata(place.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    store.close().await;
    // Everything is in the one file now.
    let files: Vec<_> =
        std::fs::read_dir(&place).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(files, ["dispatch.db"]);
    let closed = store.create(entity(Kind::Image, "o", "b"), Vec::new()).await;
    assert!(matches!(closed, Err(Error::Unavailable(_))), "{closed:?}");
    let closed = store.get(Kind::Image, "o", "a").await;
    assert!(matches!(closed, Err(Error::Unavailable(_))), "{closed:?}");
    store.close().await;
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.all(Kind::Image).await.unwrap().len(), 1);
}

#[tokio::test]
async fn closing_finishes_what_was_accepted() {
    let (dir, store) = store().await;
    let names: Vec<_> = (0..50).map(|n| format!("e{n}")).collect();
    let creates = names.iter().map(|name| store.create(entity(Kind::Image, "o", name), Vec::new()));
    let (results, ()) = tokio::join!(join_all(creates), store.close());
    let accepted = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(accepted, 50);
    let store = Store::open(&dir.path().join("dispatch.db")).await.unwrap();
    assert_eq!(store.all(Kind::Image).await.unwrap().len(), 50);
}

#[tokio::test]
async fn the_database_is_synced_at_every_commit() {
    let (_dir, store) = store().await;
    let settings = store
        .write(|tx| {
            Box::pin(async move {
                let mut settings = Vec::new();
                for pragma in ["PRAGMA synchronous", "PRAGMA foreign_keys"] {
                    let row = sqlx::query(pragma).fetch_one(&mut tx.conn).await?;
                    settings.push(sqlx::Row::try_get::<i64, _>(&row, 0)?);
                }
                Ok(settings)
            })
        })
        .await
        .unwrap();
    assert_eq!(settings, [2, 1], "synchronous = FULL, foreign keys enforced");
}
