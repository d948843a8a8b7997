#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod durability;
mod egress;
mod entities;
mod events;
mod feed;
mod jobs;
mod lists;
mod revisions;
mod runs;
mod schedules;

use dispatch_api::{Kind, Status};
use serde_json::json;
use tempfile::TempDir;

use super::{Entity, NewJob, RevisionRow, RunRow, Store};

/// A store in a directory of its own.
async fn store() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("dispatch.db")).await.unwrap();
    (dir, store)
}

fn entity(kind: Kind, org: &str, name: &str) -> Entity {
    Entity {
        kind,
        org: org.to_owned(),
        project: "default".to_owned(),
        name: name.to_owned(),
        id: uuid::Uuid::new_v4().to_string(),
        revision: 0,
        status: Status::Initialized,
        reason: Vec::new(),
        created: 1,
        modified: 1,
        body: json!({ "count": 0 }),
    }
}

fn job(kind: &'static str, key: &str) -> NewJob {
    NewJob { kind, key: key.to_owned(), org: "o".to_owned(), payload: json!({ "n": 1 }), run_at: 0 }
}

fn revision(faas_id: &str) -> RevisionRow {
    RevisionRow {
        function_id: String::new(),
        number: 0,
        faas_id: faas_id.to_owned(),
        status: Status::Initialized,
        reason: Vec::new(),
        created: 1,
        body: json!({ "handler": "" }),
    }
}

/// A function `name` in organization `o` whose first revision is `name-1`.
async fn function(store: &Store, name: &str) -> Entity {
    let function = entity(Kind::Function, "o", name);
    let first = revision(&format!("{name}-1"));
    store.create_function(function, first, Vec::new()).await.unwrap().0
}

/// A run of that function, accepted at `created` and not ended.
fn run(function: &Entity, id: &str, created: i64) -> RunRow {
    RunRow {
        id: id.to_owned(),
        org: function.org.clone(),
        function: function.name.clone(),
        function_id: function.id.clone(),
        faas_id: format!("{}-1", function.name),
        status: Status::Initialized,
        created,
        modified: 0,
        finished: None,
        attempts: 0,
        dead: false,
        body: "{}".to_owned(),
    }
}

fn ended(function: &Entity, id: &str, created: i64) -> RunRow {
    RunRow {
        status: Status::Ready,
        finished: Some(created + 1),
        attempts: 1,
        ..run(function, id, created)
    }
}
