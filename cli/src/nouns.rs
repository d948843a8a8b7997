//! The nouns: their words, tables and models.

use dispatch_api::client::{Api, Resource};
use dispatch_api::driver::Setting;
use dispatch_api::scale::{Change, Scale};
use dispatch_api::{
    BaseImage, Destination, Driver, DriverType, Egress, EgressPolicy, Endpoint, Function, Image,
    Revision, Run, Schedule, Secret, Status, Subscription, run,
};
use jiff::Timestamp;

use crate::config::Settings;
use crate::output::{Show, date, instant};
use crate::table::Layout;

/// A resource as the command line knows it.
pub trait Noun: Resource + Show {
    /// Its word in messages: `Created base image: NAME`.
    const WORD: &'static str;
    /// Its word once it is deleted.
    const DELETED: &'static str = Self::WORD;
    /// Its word in commands: `dispatch get base-image`.
    const COMMAND: &'static str = Self::WORD;
    /// Its member in the summary of `--json` with a file.
    const SUMMARY: &'static str;
}

/// A resource that is built, which takes time and can fail.
pub trait Built: Noun {
    /// Where it is in its life.
    fn status(&self) -> Status;
    /// Why it failed.
    fn reason(&self) -> &[String];
}

macro_rules! nouns {
    ($($type:ty, $word:literal, $command:literal, $summary:literal;)*) => {
        $(impl Noun for $type {
            const WORD: &'static str = $word;
            const COMMAND: &'static str = $command;
            const SUMMARY: &'static str = $summary;
        })*
    };
}

nouns! {
    BaseImage, "base image", "base-image", "baseImages";
    Image, "image", "image", "images";
    Function, "function", "function", "functions";
    Secret, "secret", "secret", "secrets";
    Endpoint, "endpoint", "endpoint", "endpoints";
    Api, "api", "api", "api";
    Schedule, "schedule", "schedule", "schedules";
    Subscription, "subscription", "subscription", "subscriptions";
}

impl Noun for Driver {
    const WORD: &'static str = "event driver";
    const DELETED: &'static str = "drivers";
    const COMMAND: &'static str = "eventdriver";
    const SUMMARY: &'static str = "drivers";
}

impl Noun for DriverType {
    const WORD: &'static str = "event driver type";
    const DELETED: &'static str = "driver types";
    const COMMAND: &'static str = "eventdrivertype";
    const SUMMARY: &'static str = "driverTypes";
}

macro_rules! built {
    ($($type:ty),*) => {
        $(impl Built for $type {
            fn status(&self) -> Status {
                self.status
            }

            fn reason(&self) -> &[String] {
                &self.reason
            }
        })*
    };
}

built! { BaseImage, Image, Function }

impl Show for BaseImage {
    const MODEL: &'static str = r#"{"createdtime": 0, "dockerurl": "", "groups": [""], "id": "",
        "kind": "", "language": "", "name": "", "reason": [""], "spec": "", "status": "",
        "tags": [{"key": "", "value": ""}], "imageurl": ""}"#;
    const COLUMNS: &'static [&'static str] = &["Name", "URL", "Status", "Created Date"];

    fn label(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        let (url, status) = (self.docker_url.clone(), self.status.to_string());
        vec![self.name.clone(), url, status, date(self.created_time)]
    }
}

impl Show for Image {
    const MODEL: &'static str = r#"{"baseimagename": "", "createdtime": 0, "dockerurl": "",
        "groups": [""], "id": "", "kind": "", "language": "", "name": "", "reason": [""],
        "runtimedependencies": {"manifest": ""}, "status": "",
        "systemdependencies": {"packages": [{"name": "", "version": ""}]},
        "tags": [{"key": "", "value": ""}], "baseimage": "", "imageurl": ""}"#;
    const COLUMNS: &'static [&'static str] =
        &["Name", "URL", "BaseImage", "Status", "Created Date"];

    fn label(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        let (url, base) = (self.docker_url.clone(), self.base_image_name.clone());
        vec![self.name.clone(), url, base, self.status.to_string(), date(self.created_time)]
    }
}

impl Show for Function {
    const MODEL: &'static str = r#"{"source": "", "sourceurl": "", "sourcepath": "",
        "createdtime": 0, "faasid": "", "id": "", "image": "", "functionimageurl": "", "kind": "",
        "handler": "", "modifiedtime": 0, "name": "", "reason": [""],
        "schema": {"in": null, "out": null}, "secrets": [""], "services": [""], "status": "",
        "timeout": 0, "tags": [{"key": "", "value": ""}], "memory": 0, "cpu": 0, "concurrency": 0,
        "minscale": 0, "schedules": [""], "maxscale": 0, "environment": {"*": ""}, "egress": "",
        "egressallow": [""], "links": [{"listen": 0, "to": ""}], "retries": null}"#;
    const COLUMNS: &'static [&'static str] = &["Name", "FunctionImage", "Status", "Created Date"];

    fn label(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        let (image, status) = (self.function_image_url.clone(), self.status.to_string());
        vec![self.name.clone(), image, status, date(self.created_time)]
    }
}

impl Show for Secret {
    const MODEL: &'static str = r#"{"id": "", "kind": "", "name": "", "secrets": {"*": ""},
        "tags": [{"key": "", "value": ""}], "meta": {"createdtime": 0, "id": "", "kind": "",
        "modifiedtime": 0, "name": "", "org": "", "project": "", "revision": ""}}"#;
    const COLUMNS: &'static [&'static str] = &["ID", "Name", "Content"];

    fn label(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        vec![self.id.clone(), self.name.clone(), "<hidden>".to_owned()]
    }
}

/// URLs of an endpoint: one for each path and protocol.
fn urls(endpoint: &Endpoint, settings: &Settings) -> String {
    let both = ["http".to_owned(), "https".to_owned()];
    let protocols = if endpoint.protocols.is_empty() { &both[..] } else { &endpoint.protocols };
    let mut urls = Vec::new();
    for uri in &endpoint.uris {
        for protocol in protocols {
            let (port, usual) = match protocol.as_str() {
                "http" => (settings.api_http_port, 80),
                _ => (settings.api_https_port, 443),
            };
            let port = if port == usual { String::new() } else { format!(":{port}") };
            urls.push(format!("{protocol}://{}{port}{uri}", settings.host));
        }
    }
    urls.join("\n")
}

const ENDPOINT: &str = r#"{"authentication": "", "cors": false, "enabled": false, "function": "",
    "hosts": [""], "id": "", "kind": "", "methods": [""], "name": "", "protocols": [""],
    "status": "", "tags": [{"key": "", "value": ""}], "tls": "", "uris": [""]}"#;

impl Show for Api {
    const MODEL: &'static str = ENDPOINT;
    const COLUMNS: &'static [&'static str] =
        &["Name", "Function", "Protocol", "Method", "Domain", "Path", "Auth", "Status", "Enabled"];
    const LAYOUT: Layout = Layout::Lined;

    fn label(&self) -> String {
        self.0.name.clone()
    }

    fn cells(&self, settings: &Settings) -> Vec<String> {
        let mut cells = self.0.cells(settings);
        cells.insert(6, self.0.authentication.clone());
        cells.insert(7, self.0.status.to_string());
        cells
    }
}

impl Show for Endpoint {
    const MODEL: &'static str = ENDPOINT;
    const COLUMNS: &'static [&'static str] =
        &["Name", "Function", "Protocol", "Method", "Domain", "Path", "Enabled"];
    const LAYOUT: Layout = Layout::Lined;

    fn label(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, settings: &Settings) -> Vec<String> {
        vec![
            self.name.clone(),
            self.function.clone(),
            self.protocols.join("\n"),
            self.methods.join("\n"),
            self.hosts.join("\n"),
            urls(self, settings),
            self.enabled.to_string(),
        ]
    }
}

impl Show for Subscription {
    const MODEL: &'static str = r#"{"createdtime": 0, "eventtype": "", "function": "", "kind": "",
        "modifiedtime": 0, "name": "", "secrets": [""], "status": "",
        "tags": [{"key": "", "value": ""}], "uri": "", "filters": [null], "retry": null,
        "concurrency": 0, "orderingkey": "", "batch": 0, "deadletter": null, "reply": null,
        "paused": false}"#;
    const COLUMNS: &'static [&'static str] =
        &["Name", "Event type", "Function name", "Status", "Created Date"];

    fn label(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        let to = if self.uri.is_empty() { &self.function } else { &self.uri };
        let (event_type, status) = (self.event_type.clone(), self.status.to_string());
        vec![self.name.clone(), event_type, to.clone(), status, date(self.created_time)]
    }
}

impl Show for Driver {
    const MODEL: &'static str = r#"{"config": [{"key": "", "value": ""}], "created-time": 0,
        "expose": false, "kind": "", "modified-time": 0, "name": "", "reason": [""],
        "secrets": [""], "status": "", "tags": [{"key": "", "value": ""}], "type": "", "url": "",
        "memory": 0, "cpu": 0, "egress": "", "egressallow": [""],
        "links": [{"listen": 0, "to": ""}]}"#;
    const COLUMNS: &'static [&'static str] =
        &["Name", "Type", "Status", "Secrets", "Config", "URL", "Reason"];
    const LAYOUT: Layout = Layout::LinedVerbatim;

    fn label(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, settings: &Settings) -> Vec<String> {
        let pair = |setting: &Setting| match setting.value.as_str() {
            "" => setting.key.clone(),
            value => format!("{}={value}", setting.key),
        };
        let config: Vec<_> = self.config.iter().map(pair).collect();
        vec![
            self.name.clone(),
            self.driver_type.clone(),
            self.status.to_string(),
            self.secrets.join(","),
            config.join("\n"),
            self.url.replace("0.0.0.0", &settings.host),
            self.reason.join(", "),
        ]
    }
}

impl Show for DriverType {
    const MODEL: &'static str = r#"{"config": [{"key": "", "value": ""}], "created-time": 0,
        "expose": false, "image": "", "kind": "", "modified-time": 0, "name": "",
        "tags": [{"key": "", "value": ""}], "registrysecret": "", "builtin": false}"#;
    const COLUMNS: &'static [&'static str] = &["Name", "Image", "Expose"];
    const LAYOUT: Layout = Layout::Lined;

    fn label(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        vec![self.name.clone(), self.image.clone(), self.expose.to_string()]
    }
}

impl Show for Schedule {
    const MODEL: &'static str = r#"{"name": "", "function": "", "cron": "", "at": "",
        "timezone": "", "input": null, "secrets": [""], "missed": "", "paused": false,
        "lasttick": "", "lastrun": "", "nexttick": "", "id": "", "kind": "", "status": "",
        "reason": [""], "tags": [{"key": "", "value": ""}]}"#;
    const COLUMNS: &'static [&'static str] =
        &["Name", "Function", "Cron / At", "Time Zone", "Next", "Last", "Status"];

    fn label(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        let local = |time: &str| time.parse().map(instant).unwrap_or_default();
        let when = if self.cron.is_empty() { &self.at } else { &self.cron };
        let status = match self.status {
            Status::Ready if self.paused => "PAUSED".to_owned(),
            Status::Ready if self.next_tick.is_empty() => "OVER".to_owned(),
            status => status.to_string(),
        };
        vec![
            self.name.clone(),
            self.function.clone(),
            when.clone(),
            self.timezone.clone(),
            local(&self.next_tick),
            local(&self.last_tick),
            status,
        ]
    }
}

/// When a run started; the exact time where the server tells it.
pub fn started(run: &Run) -> Option<Timestamp> {
    run.executed_at.parse().ok().or_else(|| Timestamp::from_second(run.executed_time).ok())
}

/// When a run ended.
pub fn finished(run: &Run) -> Option<Timestamp> {
    let seconds = Some(run.finished_time).filter(|time| *time > 0 && *time != run::NEVER);
    run.finished_at.parse().ok().or_else(|| Timestamp::from_second(seconds?).ok())
}

impl Show for Run {
    const MODEL: &'static str = r#"{"blocking": false, "error": null, "event": null,
        "executedtime": 0, "faasid": "", "finishedtime": 0, "functionid": "", "functionname": "",
        "httpcontext": {"*": null}, "input": null, "logs": null, "name": "", "output": null,
        "reason": [""], "secrets": [""], "services": [""], "status": "",
        "tags": [{"key": "", "value": ""}]}"#;
    const COLUMNS: &'static [&'static str] = &["ID", "Function", "Status", "Started", "Finished"];

    fn label(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        let time = |time: Option<Timestamp>| time.map(instant).unwrap_or_default();
        vec![
            self.name.clone(),
            self.function_name.clone(),
            self.status.to_string(),
            time(started(self)),
            time(finished(self)),
        ]
    }
}

impl Show for EgressPolicy {
    const MODEL: &'static str =
        r#"{"egress": "", "egressallow": [""], "links": [{"listen": 0, "to": ""}]}"#;
    const COLUMNS: &'static [&'static str] = &["Egress", "Allow", "Links"];

    fn label(&self) -> String {
        self.egress.clone()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        let links = self.links.iter().map(|link| format!("{}={}", link.listen, link.to));
        let links: Vec<_> = links.collect();
        vec![self.egress.clone(), self.egress_allow.join(" "), links.join(" ")]
    }
}

impl Show for Destination {
    const MODEL: &'static str =
        r#"{"host": "", "port": 0, "count": 0, "firstseen": 0, "lastseen": 0}"#;
    const COLUMNS: &'static [&'static str] =
        &["Destination", "Count", "First Seen", "Last Seen", "Reason"];

    fn label(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        let (first, last) = (date(self.first_seen), date(self.last_seen));
        vec![self.label(), self.count.to_string(), first, last, self.reason.clone()]
    }
}

impl Show for Egress {
    const MODEL: &'static str = r#"{"policy": {"egress": "", "egressallow": [""],
        "links": [{"listen": 0, "to": ""}]}, "reached": [null], "refused": [null], "unlisted": 0}"#;
    const COLUMNS: &'static [&'static str] = EgressPolicy::COLUMNS;

    fn label(&self) -> String {
        self.policy.label()
    }

    fn cells(&self, settings: &Settings) -> Vec<String> {
        self.policy.cells(settings)
    }
}

impl Show for Scale {
    const MODEL: &'static str = r#"{"reason": "", "explanation": "", "workers": {"busy": 0,
        "idle": 0, "frozen": 0, "starting": 0, "waiting": 0}, "wanted": 0, "calls": 0, "queued": 0,
        "concurrency": 0, "least": 0, "most": 0, "room": {"used": 0, "most": 0,
        "organizationused": 0, "organizationmost": 0}, "changes": [null]}"#;
    const COLUMNS: &'static [&'static str] =
        &["Busy", "Idle", "Frozen", "Starting", "Wanted", "Least", "Most", "Calls", "Waiting"];

    fn label(&self) -> String {
        self.reason.clone()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        let workers = &self.workers;
        [
            workers.busy,
            workers.idle,
            workers.frozen,
            workers.starting,
            self.wanted,
            self.least,
            self.most,
            self.calls,
            self.queued,
        ]
        .map(|count| count.to_string())
        .to_vec()
    }
}

impl Show for Change {
    const MODEL: &'static str = r#"{"time": 0, "change": 0, "workers": 0, "reason": ""}"#;
    const COLUMNS: &'static [&'static str] = &["Time", "Change", "Workers", "Reason"];

    fn label(&self) -> String {
        self.reason.clone()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        let change = format!("{:+}", self.change);
        vec![date(self.time), change, self.workers.to_string(), self.reason.clone()]
    }
}

impl Show for Revision {
    const MODEL: &'static str = r#"{"number": 0, "faasid": "", "serving": false, "status": "",
        "reason": [""], "createdtime": 0, "image": "", "handler": "", "sourcedigest": ""}"#;
    const COLUMNS: &'static [&'static str] =
        &["Revision", "Serving", "Status", "Image", "Handler", "Created Date"];

    fn label(&self) -> String {
        self.number.to_string()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        vec![
            self.number.to_string(),
            self.serving.to_string(),
            self.status.to_string(),
            self.image.clone(),
            self.handler.clone(),
            date(self.created_time),
        ]
    }
}
