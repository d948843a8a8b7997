//! What the request path reads instead of the store: functions that serve, routes and decrypted
//! secrets. One snapshot is replaced as a whole when something changes; it follows the change feed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use dispatch_api::{Endpoint, Function as FunctionResource, Kind, Retries};
use dispatch_runner::Revision;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::event;
use crate::function::Stored;
use crate::gateway::table::{self, Table};
use crate::resource::resource;
use crate::schema::Schema;
use crate::store::{self, Entity, Op, RevisionRow};

/// A function as the request path sees it.
pub struct Function {
    /// The function's UUID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What serves calls; none while no revision could be built.
    pub serving: Option<Serving>,
}

/// The revision of a function that serves.
pub struct Serving {
    /// What the runner needs.
    pub revision: Arc<Revision>,
    /// What the input must match.
    pub input: Option<Schema>,
    /// What the output must match.
    pub output: Option<Schema>,
    /// Secrets merged into the context.
    pub secrets: Vec<String>,
    /// How long a call may take.
    pub timeout: Option<Duration>,
    /// Whether `timeout` was set by the function's owner: only then the context names a deadline.
    pub own_timeout: bool,
    /// What happens to failed runs that nobody waits for.
    pub retries: Retries,
}

type ByOrg<T> = HashMap<String, HashMap<String, Arc<T>>>;

/// Everything the request path reads, at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    functions: ByOrg<Function>,
    secrets: ByOrg<BTreeMap<String, String>>,
    endpoints: ByOrg<Endpoint>,
    subscriptions: ByOrg<event::Subscription>,
    by_id: HashMap<String, Arc<event::Subscription>>,
    events: HashMap<String, Arc<event::Table>>,
    /// The gateway's routes.
    pub routes: Arc<Table>,
}

impl Snapshot {
    /// A function by name.
    pub fn function(&self, org: &str, name: &str) -> Option<&Arc<Function>> {
        self.functions.get(org)?.get(name)
    }

    /// A secret's values by its name.
    pub fn secret(&self, org: &str, name: &str) -> Option<&Arc<BTreeMap<String, String>>> {
        self.secrets.get(org)?.get(name)
    }

    /// A subscription by the id of its entity.
    pub fn subscription(&self, id: &str) -> Option<&Arc<event::Subscription>> {
        self.by_id.get(id)
    }

    /// What becomes of an organization's events.
    pub fn events(&self, org: &str) -> Option<&event::Table> {
        self.events.get(org).map(Arc::as_ref)
    }

    /// Builds what is derived from subscriptions.
    fn subscribe(&mut self) {
        let all = self.subscriptions.values().flat_map(HashMap::values);
        self.by_id = all.map(|it| (it.id.clone(), Arc::clone(it))).collect();
        let table = |names: &HashMap<String, Arc<event::Subscription>>| {
            Arc::new(event::Table::new(names.values().map(Arc::clone)))
        };
        self.events =
            self.subscriptions.iter().map(|(org, names)| (org.clone(), table(names))).collect();
    }

    /// Revisions that want workers at all times, also right after a start.
    fn kept(&self) -> Vec<Arc<Revision>> {
        let functions = self.functions.values().flat_map(HashMap::values);
        let serving = functions.filter_map(|function| function.serving.as_ref());
        serving
            .filter(|serving| {
                let settings = &serving.revision.settings;
                settings.min_scale > 0 || !settings.schedules.is_empty()
            })
            .map(|serving| Arc::clone(&serving.revision))
            .collect()
    }

    fn route(&mut self, app: &App) {
        let mut organizations: Vec<&String> = self
            .endpoints
            .iter()
            .filter(|(_, endpoints)| !endpoints.is_empty())
            .map(|(org, _)| org)
            .collect();
        let single = organizations.pop().filter(|_| organizations.is_empty()).cloned();
        let options =
            table::Options { domain: app.config.domain.clone(), single_organization: single };
        let endpoints = self.endpoints.values().flat_map(HashMap::values);
        self.routes = Arc::new(Table::build(endpoints.map(|e| Endpoint::clone(e)), &options));
    }
}

/// The tables and how far they have followed the change feed.
pub struct Tables {
    current: ArcSwap<Snapshot>,
    applied: watch::Sender<i64>,
}

impl Default for Tables {
    fn default() -> Tables {
        Tables { current: ArcSwap::default(), applied: watch::Sender::new(0) }
    }
}

impl Tables {
    /// The tables as they are now.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Changes with every change of the tables.
    pub fn follow(&self) -> watch::Receiver<i64> {
        self.applied.subscribe()
    }

    /// Waits until the change with this number is applied, or the server stops.
    pub async fn reached(&self, seq: i64, stopping: &CancellationToken) {
        let mut applied = self.applied.subscribe();
        tokio::select! {
            _ = applied.wait_for(|applied| *applied >= seq) => {}
            () = stopping.cancelled() => {}
        }
    }
}

/// Fills the tables from the store; returns the number of the last change they hold.
///
/// # Errors
/// The store cannot be read.
pub async fn load(app: &App) -> Result<i64, store::Error> {
    let seq = app.store.last_change().await?;
    let mut snapshot = Snapshot::default();
    for entity in app.store.all(Kind::Function).await? {
        put_function(app, &mut snapshot, &entity, None);
    }
    for (entity, row) in app.store.all_serving().await? {
        put_function(app, &mut snapshot, &entity, Some(&row));
    }
    for kind in [Kind::Secret, Kind::Endpoint, Kind::Subscription] {
        for entity in app.store.all(kind).await? {
            put(app, &mut snapshot, &entity);
        }
    }
    snapshot.route(app);
    snapshot.subscribe();
    let kept = snapshot.kept();
    app.live.current.store(Arc::new(snapshot));
    app.live.applied.send_replace(seq);
    for revision in kept {
        let runner = Arc::clone(&app.runner);
        tokio::spawn(async move {
            if let Err(error) = runner.prepare(&revision).await {
                let (org, function) = (&revision.organization, &revision.function);
                tracing::error!(org, function, %error, "its workers cannot be kept ready");
            }
        });
    }
    Ok(seq)
}

/// Follows the change feed until the server stops.
pub async fn follow(app: Arc<App>, mut seq: i64) {
    let mut feed = app.store.subscribe();
    loop {
        tokio::select! {
            changed = feed.changed() => if changed.is_err() { return },
            () = app.stopping.cancelled() => return,
        }
        feed.mark_unchanged();
        match apply(&app, seq).await {
            Ok(reached) => seq = reached,
            Err(error) => {
                tracing::warn!(%error, "the tables are reloaded");
                match load(&app).await {
                    Ok(reached) => seq = reached,
                    Err(error) => {
                        tracing::error!(%error, "the tables cannot be loaded; trying again");
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        feed.mark_changed();
                    }
                }
            }
        }
    }
}

/// Applies all changes after `seq`; returns the number of the last one.
async fn apply(app: &App, mut seq: i64) -> Result<i64, store::Error> {
    loop {
        let changes = app.store.changes(seq, 512).await?;
        let Some(last) = changes.last() else { return Ok(seq) };
        let reached = last.seq;
        let mut snapshot = Snapshot::clone(&app.live.current.load());
        let mut retired = Vec::new();
        for change in &changes {
            let before = snapshot.function(&change.org, &change.name).map(Arc::clone);
            let entity = match change.op {
                Op::Put => app.store.get(change.kind, &change.org, &change.name).await?,
                Op::Delete => None,
            };
            match (&entity, change.kind) {
                (Some(entity), Kind::Function) => {
                    let row = match serving_id(entity) {
                        Some(faas_id) => app.store.revision(&faas_id).await?,
                        None => None,
                    };
                    put_function(app, &mut snapshot, entity, row.as_ref());
                }
                (Some(entity), _) => put(app, &mut snapshot, entity),
                (None, kind) => remove(app, &mut snapshot, kind, &change.org, &change.name),
            }
            if change.kind == Kind::Function {
                let after = snapshot.function(&change.org, &change.name);
                retired.extend(replaced(before.as_deref(), after.map(Arc::as_ref)));
            }
        }
        if changes.iter().any(|change| change.kind == Kind::Endpoint) {
            snapshot.route(app);
        }
        if changes.iter().any(|change| change.kind == Kind::Subscription) {
            snapshot.subscribe();
        }
        app.live.current.store(Arc::new(snapshot));
        // Only now: no new call can reach the old revision any more.
        for faas_id in retired {
            app.runner.retire(&faas_id);
        }
        app.live.applied.send_replace(reached);
        seq = reached;
    }
}

fn replaced(before: Option<&Function>, after: Option<&Function>) -> Option<String> {
    let id = |function: Option<&Function>| {
        function?.serving.as_ref().map(|serving| serving.revision.faas_id.clone())
    };
    let before = id(before)?;
    (id(after).as_ref() != Some(&before)).then_some(before)
}

fn serving_id(entity: &Entity) -> Option<String> {
    entity.body.get("servingFaasId")?.as_str().map(str::to_owned)
}

fn insert<T>(map: &mut ByOrg<T>, entity: &Entity, value: T) {
    map.entry(entity.org.clone()).or_default().insert(entity.name.clone(), Arc::new(value));
}

fn put(app: &App, snapshot: &mut Snapshot, entity: &Entity) {
    match entity.kind {
        Kind::Secret => match crate::secret::open(app, entity) {
            Ok(values) => insert(&mut snapshot.secrets, entity, values),
            Err(error) => {
                tracing::error!(org = entity.org, secret = entity.name, %error, "unreadable secret");
            }
        },
        Kind::Endpoint => match resource::<Endpoint>(entity) {
            Ok(endpoint) => insert(&mut snapshot.endpoints, entity, endpoint),
            Err(error) => {
                tracing::error!(
                    org = entity.org,
                    endpoint = entity.name,
                    ?error,
                    "unreadable endpoint"
                );
            }
        },
        Kind::Subscription => match subscription(entity) {
            Ok(subscription) => insert(&mut snapshot.subscriptions, entity, subscription),
            Err(error) => {
                let (org, name) = (&entity.org, &entity.name);
                tracing::error!(org, subscription = name, error, "unreadable subscription");
            }
        },
        _ => {}
    }
}

fn subscription(entity: &Entity) -> Result<event::Subscription, String> {
    let stored = resource(entity).map_err(|error| error.problem.message)?;
    event::Subscription::new(&entity.id, &entity.org, stored).map_err(|error| error.to_string())
}

fn put_function(app: &App, snapshot: &mut Snapshot, entity: &Entity, row: Option<&RevisionRow>) {
    let serving = row.and_then(|row| match serve(app, entity, row) {
        Ok(serving) => {
            app.runner.expect(&serving.revision.language);
            Some(serving)
        }
        Err(error) => {
            tracing::error!(org = entity.org, function = entity.name, %error, "unreadable revision");
            None
        }
    });
    let function = Function { id: entity.id.clone(), name: entity.name.clone(), serving };
    insert(&mut snapshot.functions, entity, function);
}

fn serve(app: &App, entity: &Entity, row: &RevisionRow) -> Result<Serving, serde_json::Error> {
    let stored: Stored = serde_json::from_value(row.body.clone())?;
    let function: &FunctionResource = &stored.function;
    let compile = |schema: &Option<serde_json::Value>| {
        // Both were compiled when they were accepted.
        schema.as_ref().and_then(|schema| Schema::compile(schema).ok())
    };
    let own_timeout = function.timeout > 0;
    let timeout = u64::try_from(function.timeout).ok().filter(|timeout| *timeout > 0);
    Ok(Serving {
        revision: Arc::new(stored.revision(app, &entity.org, &entity.name, &row.faas_id)),
        input: compile(&function.schema.input),
        output: compile(&function.schema.output),
        secrets: function.secrets.clone(),
        timeout: Some(Duration::from_millis(timeout.unwrap_or(app.config.default_timeout)))
            .filter(|timeout| !timeout.is_zero()),
        own_timeout,
        retries: function.retries.unwrap_or_default(),
    })
}

fn remove(app: &App, snapshot: &mut Snapshot, kind: Kind, org: &str, name: &str) {
    fn take<T>(map: &mut ByOrg<T>, org: &str, name: &str) {
        if let Some(names) = map.get_mut(org) {
            names.remove(name);
            if names.is_empty() {
                map.remove(org);
            }
        }
    }
    match kind {
        Kind::Function => {
            take(&mut snapshot.functions, org, name);
            app.metrics.forget(org, name);
        }
        Kind::Secret => take(&mut snapshot.secrets, org, name),
        Kind::Endpoint => take(&mut snapshot.endpoints, org, name),
        Kind::Subscription => take(&mut snapshot.subscriptions, org, name),
        _ => {}
    }
}
