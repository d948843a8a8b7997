//! The typed HTTP client.
//!
//! Everything that is read is bounded: bodies at [`MAX_BODY`] bytes, connecting at ten seconds,
//! answers at five minutes. Only a blocking run may take as long as a run may take, and a watch goes
//! on for as long as the server shows signs of life.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::gc::Garbage;
use crate::image::Archive;
use crate::validate::{self, Invalid};
use crate::{
    Egress, Function, Health, Image, ORGANIZATION_HEADER, PROJECT_HEADER, Problem, Revision, Run,
    Scale, Version,
};

mod answer;
mod event;
mod resource;
mod watch;

use answer::{answer, cause, decode, place, read, refusal, title};
pub use resource::{Api, Resource};
pub use watch::{Event, Text, Watch};

/// The most bytes of an answer.
pub const MAX_BODY: usize = 64 << 20;

const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(300);
/// Watched servers send a comment every 15 seconds.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest run, and some time to spare.
const LONGEST_RUN: Duration = Duration::from_secs(25 * 3600);
const LONGEST_BUILD: Duration = Duration::from_secs(2 * 3600);

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused: its problem, and the HTTP status.
    #[error("[Code: {}] {}", .0.code, .0.message)]
    Api(Problem, u16),
    /// The server could not be reached or went away.
    #[error("unexpected error received from server: {0}")]
    Transport(String),
    /// The answer is not what the API says.
    #[error("unexpected error received from server: {0}")]
    Decode(String),
    /// The request cannot be made: something in [`Options`] is malformed.
    #[error("{0}")]
    Options(String),
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Error {
        Error::Api(Problem::new(invalid.code, invalid.message), 422)
    }
}

/// The result of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// How a caller proves who it is.
#[derive(Clone)]
pub enum Auth {
    /// A cookie, as it was given at login; `unset` when there is none.
    Cookie(String),
    /// A bearer token.
    Bearer(String),
}

/// Where the server is and who asks.
#[derive(Clone)]
pub struct Options {
    /// Scheme, host and port, such as `http://127.0.0.1:8080`.
    pub base_url: String,
    /// The organization; empty means the server's default.
    pub organization: String,
    /// The project; empty means the server's default.
    pub project: String,
    /// The caller.
    pub auth: Auth,
    /// Whether any certificate of the server is accepted.
    pub insecure: bool,
}

/// Which runs a list holds.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Only runs of this function.
    pub function: Option<String>,
    /// Only runs in this status.
    pub status: Option<String>,
    /// Only runs whose last try failed, or only others.
    pub dead: Option<bool>,
    /// At most this many, the newest first.
    pub limit: Option<u32>,
}

impl RunFilter {
    fn query(&self) -> Vec<(&'static str, String)> {
        [
            ("functionName", self.function.clone()),
            ("status", self.status.clone()),
            ("dead", self.dead.map(|dead| dead.to_string())),
            ("limit", self.limit.map(|limit| limit.to_string())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }
}

/// A client of one server. Cheap to use for many requests, over connections that are kept.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    headers: HeaderMap,
    insecure: bool,
}

/// Makes the HTTP client underneath. `silence` is how long an answer may pause.
fn build(
    base: &Url,
    headers: &HeaderMap,
    insecure: bool,
    silence: Option<Duration>,
) -> Result<reqwest::Client> {
    let host = base.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    let mut builder = reqwest::Client::builder()
        .default_headers(headers.clone())
        .user_agent(concat!("dispatch/", env!("CARGO_PKG_VERSION")))
        .tls_danger_accept_invalid_certs(insecure)
        // A redirected request would carry credentials and sources to another server.
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT);
    if let Some(silence) = silence {
        builder = builder.read_timeout(silence);
    }
    if loopback {
        builder = builder.no_proxy();
        if base.scheme() == "http" {
            // Reading the machine's certificates takes longer than a request.
            builder = builder.tls_certs_only([]);
        }
    }
    builder.build().map_err(|error| Error::Options(cause(&error)))
}

impl Client {
    /// Makes a client; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Options`] for a malformed URL or a value that cannot be a header.
    pub fn new(options: &Options) -> Result<Client> {
        let malformed =
            |what: &str, value: &str| Error::Options(format!("{what} {value:?} is malformed"));
        let base = Url::parse(&options.base_url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| malformed("the server's address", &options.base_url))?;
        let mut headers = HeaderMap::new();
        let header = |what: &str, value: &str| {
            HeaderValue::from_str(value).map_err(|_| malformed(what, value))
        };
        headers.insert(ORGANIZATION_HEADER, header("the organization", &options.organization)?);
        if !options.project.is_empty() {
            headers.insert(PROJECT_HEADER, header("the project", &options.project)?);
        }
        let (name, value) = match &options.auth {
            Auth::Bearer(token) => (AUTHORIZATION, format!("Bearer {token}")),
            Auth::Cookie(cookie) if cookie.is_empty() => (COOKIE, "unset".to_owned()),
            Auth::Cookie(cookie) => (COOKIE, cookie.clone()),
        };
        let mut secret = HeaderValue::from_str(&value)
            .map_err(|_| Error::Options("the token or cookie is malformed".to_owned()))?;
        secret.set_sensitive(true);
        headers.insert(name, secret);
        let insecure = options.insecure;
        Ok(Client { http: build(&base, &headers, insecure, None)?, base, headers, insecure })
    }

    /// Reads one resource.
    ///
    /// # Errors
    /// Like all requests: what the server says, or why it could not be asked.
    pub async fn get<T: Resource>(&self, name: &str) -> Result<T> {
        answer(self.send(self.request(Method::GET, self.one::<T>(name)?)).await?).await
    }

    /// Reads all resources of a type, in name order.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn list<T: Resource>(&self) -> Result<Vec<T>> {
        answer(self.send(self.request(Method::GET, self.url(&[T::PATH], &[]))).await?).await
    }

    /// Creates a resource and returns it as the server stored it.
    ///
    /// # Errors
    /// Like all requests; 409 when it exists.
    pub async fn create<T: Resource>(&self, resource: &T) -> Result<T> {
        let request = self.request(Method::POST, self.url(&[T::PATH], &[])).json(resource);
        answer(self.send(request).await?).await
    }

    /// Replaces a resource.
    ///
    /// # Errors
    /// Like all requests; 404 when it does not exist.
    pub async fn update<T: Resource>(&self, resource: &T) -> Result<T> {
        let url = self.one::<T>(resource.name())?;
        answer(self.send(self.request(Method::PUT, url).json(resource)).await?).await
    }

    /// Deletes a resource; none is returned where the server answers no body.
    ///
    /// # Errors
    /// Like all requests; 404 when it does not exist.
    pub async fn delete<T: Resource>(&self, name: &str) -> Result<Option<T>> {
        let response = self.send(self.request(Method::DELETE, self.one::<T>(name)?)).await?;
        let place = place(&response);
        let body = read(response).await?;
        if body.is_empty() {
            return Ok(None);
        }
        decode(&body, &place).map(Some)
    }

    /// Follows the resources of a type: first those that exist, then what changes.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn watch<T: Resource>(&self) -> Result<Watch<T>> {
        self.follow(self.url(&[T::PATH], &[("watch", "true".to_owned())])).await
    }

    /// Calls a function. With `blocking` set the answer is the run that has ended.
    ///
    /// # Errors
    /// Like all requests. A function that fails is not an error: see the run.
    pub async fn run(&self, function: &str, run: &Run) -> Result<Run> {
        validate::path_name("functionName", "query", function)?;
        let url = self.url(&["/v1/runs"], &[("functionName", function.to_owned())]);
        let timeout = if run.blocking { LONGEST_RUN } else { ANSWER };
        answer(self.send(self.request(Method::POST, url).timeout(timeout).json(run)).await?).await
    }

    /// Reads runs, the newest first.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn runs(&self, filter: &RunFilter) -> Result<Vec<Run>> {
        let url = self.url(&["/v1/runs"], &filter.query());
        answer(self.send(self.request(Method::GET, url)).await?).await
    }

    /// Follows runs: first those that exist, then each that starts or changes.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn watch_runs(&self, filter: &RunFilter) -> Result<Watch<Run>> {
        let mut query = filter.query();
        query.push(("watch", "true".to_owned()));
        self.follow(self.url(&["/v1/runs"], &query)).await
    }

    /// Reads one run.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn get_run(&self, function: Option<&str>, id: &str) -> Result<Run> {
        let query: Vec<_> =
            function.map(|name| ("functionName", name.to_owned())).into_iter().collect();
        let url = self.url(&["/v1/runs", run_id(id)?], &query);
        answer(self.send(self.request(Method::GET, url)).await?).await
    }

    /// Tries a dead run again.
    ///
    /// # Errors
    /// Like all requests; 400 when the run is not dead.
    pub async fn redrive(&self, id: &str) -> Result<Run> {
        let url = self.url(&["/v1/runs", run_id(id)?, "redrive"], &[]);
        answer(self.send(self.request(Method::POST, url).json(&json!({}))).await?).await
    }

    /// Reads a function's revisions, the newest first.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn revisions(&self, function: &str) -> Result<Vec<Revision>> {
        validate::path_name("functionName", "path", function)?;
        let url = self.url(&[Function::PATH, function, "revisions"], &[]);
        answer(self.send(self.request(Method::GET, url)).await?).await
    }

    /// Reads what a function may reach on the network, and what it reached.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn egress(&self, function: &str) -> Result<Egress> {
        validate::path_name("functionName", "path", function)?;
        let url = self.url(&[Function::PATH, function, "egress"], &[]);
        answer(self.send(self.request(Method::GET, url)).await?).await
    }

    /// Reads how many workers a function has and wants, and why.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn scale(&self, function: &str) -> Result<Scale> {
        validate::path_name("functionName", "path", function)?;
        let url = self.url(&[Function::PATH, function, "scale"], &[]);
        answer(self.send(self.request(Method::GET, url)).await?).await
    }

    /// Removes files that nothing refers to, or says which; `older_than` in hours.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn gc(&self, dry_run: bool, older_than: Option<u32>) -> Result<Garbage> {
        let older = older_than.map(|hours| ("olderThan", hours.to_string()));
        let query: Vec<_> = [("dryRun", dry_run.to_string())].into_iter().chain(older).collect();
        let url = self.url(&["/v1/gc"], &query);
        answer(self.send(self.request(Method::POST, url)).await?).await
    }

    /// Makes an earlier revision of a function serve again; without a number the one before.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn rollback(&self, function: &str, revision: Option<i64>) -> Result<Function> {
        validate::path_name("functionName", "path", function)?;
        let url = self.url(&[Function::PATH, function, "rollback"], &[]);
        let body = revision.map_or_else(|| json!({}), |number| json!({ "revision": number }));
        answer(self.send(self.request(Method::POST, url).json(&body)).await?).await
    }

    /// Reads the log of a resource that has one: of the build of an image, of an event driver. With
    /// `follow` as it grows, until the build has ended or the driver is gone.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn log<T: Resource>(&self, name: &str, follow: bool) -> Result<Text> {
        validate::path_name(validate::path_field(T::KIND), "path", name)?;
        let query: &[_] = if follow { &[("follow", "true".to_owned())] } else { &[] };
        let url = self.url(&[T::PATH, name, "logs"], query);
        let response = self.send(self.request(Method::GET, url).timeout(LONGEST_BUILD)).await?;
        Ok(Text::new(response))
    }

    /// Reads what packages are in an image, in the form `cyclonedx` or `spdx`.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn sbom(&self, image: &str, form: &str) -> Result<serde_json::Value> {
        validate::path_name("imageName", "path", image)?;
        let url = self.url(&[Image::PATH, image, "sbom"], &[("format", form.to_owned())]);
        answer(self.send(self.request(Method::GET, url)).await?).await
    }

    /// Gives the server the archive of an image, so that a base image can name it.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn give_image(&self, file: std::fs::File) -> Result<Archive> {
        let body = reqwest::Body::from(tokio::fs::File::from_std(file));
        let request = self.request(Method::POST, self.url(&["/v1/imagearchive"], &[]));
        let request = request.timeout(LONGEST_BUILD).header("Content-Type", "application/x-tar");
        answer(self.send(request.body(body)).await?).await
    }

    /// Reads the server's version.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn version(&self) -> Result<Version> {
        answer(self.send(self.request(Method::GET, self.url(&["/v1/version"], &[]))).await?).await
    }

    /// How the server is, and what keeps its functions in.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn health(&self) -> Result<Health> {
        answer(self.send(self.request(Method::GET, self.url(&["/healthz"], &[]))).await?).await
    }

    async fn follow<T: DeserializeOwned>(&self, url: Url) -> Result<Watch<T>> {
        let watcher = build(&self.base, &self.headers, self.insecure, Some(SILENCE))?;
        let response = self.send(watcher.get(url).header("Accept", "text/event-stream")).await?;
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            let place = place(&response);
            return Err(Error::Decode(format!("{place}: this server cannot be watched")));
        }
        Ok(Watch::new(response))
    }

    /// A URL from a path and further segments, which are escaped.
    fn url(&self, segments: &[&str], query: &[(&'static str, String)]) -> Url {
        let mut url = self.base.clone();
        url.set_path(segments.first().unwrap_or(&"/"));
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(&segments[1..]);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    fn one<T: Resource>(&self, name: &str) -> Result<Url> {
        validate::path_name(validate::path_field(T::KIND), "path", name)?;
        Ok(self.url(&[T::PATH, name], &[]))
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url).header("Accept", "application/json").timeout(ANSWER)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let (client, request) = request.build_split();
        let request = request.map_err(|error| Error::Options(cause(&error)))?;
        let place = format!("{} {}", title(request.method()), request.url());
        let response = client
            .execute(request)
            .await
            .map_err(|error| Error::Transport(format!("{place}: {}", cause(&error))))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response, &place).await)
    }
}

fn run_id(id: &str) -> Result<&str> {
    match uuid::Uuid::parse_str(id) {
        Ok(_) => Ok(id),
        Err(_) => Err(Invalid::wrong_type("runName", "path", "uuid", id).into()),
    }
}
