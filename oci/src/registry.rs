//! Reading from registries: the pull half of the OCI distribution specification 1.1, every answer
//! bounded.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, RANGE, WWW_AUTHENTICATE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::auth::{Challenge, Credentials};
use crate::digest::{Digest, Hashing};
use crate::manifest::{self, Descriptor};
use crate::reference::{Reference, is_host};
use crate::{Error, Result};

const CONNECT: Duration = Duration::from_secs(10);
/// How long a registry may be silent.
const SILENCE: Duration = Duration::from_secs(60);
const REDIRECTS: usize = 5;
/// How often a download is taken up again without getting further.
const TRIES: u32 = 5;
/// Bytes of an answer with a token, and of one that says what is wrong.
const MAX_TOKEN: u64 = 256 << 10;
const MAX_REASON: u64 = 4 << 10;

/// What the operator says about registries.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// `host:port` of those that are spoken to without TLS.
    pub insecure: Vec<String>,
    /// Registries and where to look first: `docker.io` and `mirror:5000`.
    pub mirrors: Vec<(String, String)>,
    /// A file with accounts in the form of Docker's `config.json`.
    pub accounts: Option<PathBuf>,
}

impl Registries {
    /// Reads a registry: `registry.example:5000`.
    ///
    /// # Errors
    /// It is none.
    pub fn host(text: &str) -> Result<String, String> {
        match is_host(text) {
            true => Ok(text.to_owned()),
            false => Err(format!("{text:?} is not a host, or host:port")),
        }
    }

    /// Reads a mirror: `docker.io=mirror.example:5000`.
    ///
    /// # Errors
    /// It is none.
    pub fn mirror(text: &str) -> Result<(String, String), String> {
        match text.split_once('=') {
            Some((from, to)) if is_host(from) && is_host(to) => {
                Ok((from.to_owned(), to.to_owned()))
            }
            _ => Err(format!("{text:?} is not of the form registry=mirror:port")),
        }
    }

    /// The hosts that have an image, the first to be asked first.
    pub(crate) fn hosts<'a>(&'a self, reference: &'a Reference) -> Vec<&'a str> {
        let of = |(from, to): &'a (String, String)| (*from == reference.registry).then_some(&**to);
        self.mirrors.iter().filter_map(of).chain([reference.host()]).collect()
    }
}

/// Whether secrets and images may pass there.
fn allowed(url: &Url, insecure: &[String]) -> bool {
    let Some(host) = url.host_str() else { return false };
    let port = url.port_or_known_default().unwrap_or_default();
    let plain = || {
        url.scheme() == "http"
            && insecure
                .iter()
                .any(|known| *known == host && port == 80 || *known == format!("{host}:{port}"))
    };
    url.scheme() == "https" || plain()
}

/// One repository of one registry.
pub(crate) struct Repository {
    http: Client,
    base: Url,
    host: String,
    name: String,
    credentials: Option<Credentials>,
    authorization: Option<String>,
    insecure: Arc<Vec<String>>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// What went wrong below HTTP, with its causes.
fn cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}

impl Repository {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// TLS cannot be used.
    pub fn new(
        settings: &Registries,
        host: &str,
        name: &str,
        credentials: Option<Credentials>,
    ) -> Result<Repository> {
        let insecure = Arc::new(settings.insecure.clone());
        let scheme = if insecure.iter().any(|known| known == host) { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/v2/{name}/"));
        let base = base.map_err(|error| Error::Invalid(format!("{host}: {error}")))?;
        let known = Arc::clone(&insecure);
        let policy = Policy::custom(move |attempt| {
            if attempt.previous().len() > REDIRECTS {
                return attempt.error("there are too many redirects");
            }
            if !allowed(attempt.url(), &known) {
                return attempt.error("it leads to a place without TLS");
            }
            attempt.follow()
        });
        let http = Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(policy)
            .user_agent(concat!("dispatch/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Unavailable(cause(&error)))?;
        let (host, name) = (host.to_owned(), name.to_owned());
        Ok(Repository { http, base, host, name, credentials, authorization: None, insecure })
    }

    /// A manifest or an index by tag or digest: its digest and its bytes.
    ///
    /// # Errors
    /// There is none, it is not for us, or it is not what the digest says.
    pub async fn manifest(&mut self, version: &str) -> Result<(Digest, Vec<u8>)> {
        let path = format!("manifests/{version}");
        let response = self.get(&path, Some(manifest::ACCEPT), 0).await?;
        let bytes = bounded(response, manifest::MAX_BYTES, &self.host).await?;
        let digest = Digest::of(&bytes);
        if version.contains(':') && digest.to_string() != version {
            return Err(Error::Invalid(format!(
                "{} sent another manifest for {version}: its digest is {digest}",
                self.host
            )));
        }
        Ok((digest, bytes))
    }

    /// Downloads a file of the image to `place`, going on where an earlier attempt ended. `progress`
    /// hears how many bytes there are.
    ///
    /// # Errors
    /// Also when its content is not what its digest says.
    pub async fn blob(
        &mut self,
        blob: &Descriptor,
        place: &Path,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let here = || std::fs::metadata(place).map_or(0, |data| data.len());
        let (mut tries, mut had) = (0, here());
        loop {
            match self.more(blob, place, progress).await {
                Ok(()) => break,
                Err(Error::Unavailable(why)) if tries + 1 < TRIES => {
                    tries = if here() > had { 0 } else { tries + 1 };
                    had = here();
                    tracing::debug!(why, tries, "a download is taken up again");
                    tokio::time::sleep(Duration::from_millis(200 << tries)).await;
                }
                Err(error) => return Err(error),
            }
        }
        let (path, size) = (place.to_owned(), blob.size);
        let hashed = tokio::task::spawn_blocking(move || {
            let file = std::fs::File::open(path)?;
            file.sync_all()?;
            Hashing::new(file, size).finish()
        });
        let hashed = hashed.await.map_err(|error| Error::Unavailable(error.to_string()))?;
        let (digest, bytes) = hashed.map_err(Error::files(place))?;
        if digest != blob.digest || bytes != blob.size {
            // Nothing of it is worth keeping.
            let _ = std::fs::remove_file(place);
            return Err(Error::Invalid(format!(
                "{} sent something else than {}: {bytes} bytes of {digest}",
                self.host, blob.digest
            )));
        }
        Ok(())
    }

    async fn more(
        &mut self,
        blob: &Descriptor,
        place: &Path,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let options = std::fs::File::options().write(true).create(true).truncate(false).open(place);
        let mut file = options.map_err(Error::files(place))?;
        let mut have = file.seek(SeekFrom::End(0)).map_err(Error::files(place))?;
        if have >= blob.size {
            return Ok(());
        }
        let mut response = self.get(&format!("blobs/{}", blob.digest), None, have).await?;
        if have > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            file.set_len(0).map_err(Error::files(place))?;
            file.rewind().map_err(Error::files(place))?;
            have = 0;
        }
        loop {
            let chunk = response.chunk().await;
            let chunk = chunk.map_err(|error| {
                Error::Unavailable(format!("{} broke off: {}", self.host, cause(&error)))
            })?;
            let Some(chunk) = chunk else { break };
            have += chunk.len() as u64;
            if have > blob.size {
                let _ = std::fs::remove_file(place);
                return Err(Error::Invalid(format!(
                    "{} sends more than the {} bytes of {}",
                    self.host, blob.size, blob.digest
                )));
            }
            file.write_all(&chunk).map_err(Error::files(place))?;
            progress(have);
        }
        if have < blob.size {
            return Err(Error::Unavailable(format!("{} broke off", self.host)));
        }
        Ok(())
    }

    /// A GET with whatever the registry wants of us, from byte `from` on.
    async fn get(&mut self, path: &str, accept: Option<&str>, from: u64) -> Result<Response> {
        let url = self.base.join(path);
        let url = url.map_err(|error| Error::Invalid(format!("{path}: {error}")))?;
        for last in [false, true] {
            let mut request = self.http.get(url.clone());
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(authorization) = &self.authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let response = request.send().await.map_err(|error| self.unreachable(&error))?;
            if response.status() == StatusCode::UNAUTHORIZED && !last {
                self.authorize(&response).await?;
                continue;
            }
            if response.status().is_success() {
                return Ok(response);
            }
            return Err(self.refusal(response).await);
        }
        Err(Error::Invalid(format!("{} wants something that is unknown here", self.host)))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        let help = match self.base.scheme() {
            "https" => "; if it has no TLS, its operator lists it with --insecure-registries",
            _ => "",
        };
        Error::Unavailable(format!("cannot reach {}: {}{help}", self.host, cause(error)))
    }

    async fn refusal(&self, response: Response) -> Error {
        let status = response.status();
        let (host, name) = (&self.host, &self.name);
        let reason = bounded(response, MAX_REASON, host).await.unwrap_or_default();
        let reason = reason_of(&reason);
        match status {
            StatusCode::NOT_FOUND => Error::Invalid(format!("{host} has no such image{reason}")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let who = match &self.credentials {
                    Some(known) => format!("the user {}", known.username),
                    None => "anybody without an account".to_owned(),
                };
                Error::Invalid(format!(
                    "{host} does not give {name} to {who}{reason}: name a secret with username and \
                     password (--registry-secret), or check that the image exists"
                ))
            }
            StatusCode::TOO_MANY_REQUESTS => {
                Error::Unavailable(format!("{host} has had too many requests from here{reason}"))
            }
            status if status.is_server_error() => {
                Error::Unavailable(format!("{host} answers {status}{reason}"))
            }
            status => Error::Invalid(format!("{host} answers {status}{reason}")),
        }
    }

    /// Gets what the next request needs.
    async fn authorize(&mut self, response: &Response) -> Result<()> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge = headers.filter_map(|value| value.to_str().ok()).find_map(Challenge::parse);
        let basic = self.credentials.as_ref().map(Credentials::basic);
        self.authorization = match challenge {
            None | Some(Challenge::Basic) => basic,
            Some(Challenge::Bearer { realm, service, scope }) => {
                Some(self.token(&realm, &service, &scope, basic).await?)
            }
        };
        Ok(())
    }

    async fn token(
        &self,
        realm: &str,
        service: &str,
        scope: &str,
        basic: Option<String>,
    ) -> Result<String> {
        let host = &self.host;
        let wrong = |why: &str| Error::Invalid(format!("{host} sends us to {realm:?}: {why}"));
        let mut url = Url::parse(realm).map_err(|error| wrong(&error.to_string()))?;
        if !allowed(&url, &self.insecure) {
            return Err(wrong("a place without TLS"));
        }
        let scope = match scope {
            "" => format!("repository:{}:pull", self.name),
            scope => scope.to_owned(),
        };
        for (name, value) in [("service", service), ("scope", &scope)] {
            if !value.is_empty() {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let mut request = self.http.get(url);
        if let Some(basic) = basic {
            request = request.header(AUTHORIZATION, basic);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let bytes = bounded(response, MAX_TOKEN, host).await?;
        let token: Token = serde_json::from_slice(&bytes)
            .map_err(|error| wrong(&format!("no token comes from there: {error}")))?;
        let token = if token.token.is_empty() { token.access_token } else { token.token };
        let printable = |byte: u8| byte.is_ascii_graphic();
        if token.is_empty() || !token.bytes().all(printable) {
            return Err(wrong("no token comes from there"));
        }
        Ok(format!("Bearer {token}"))
    }
}

/// A body of at most `most` bytes.
async fn bounded(mut response: Response, most: u64, host: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| Error::Unavailable(format!("{host} broke off: {}", cause(&error))))?
    {
        if (bytes.len() + chunk.len()) as u64 > most {
            return Err(Error::Invalid(format!("{host} answers with more than {most} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// What an error body says: `{"errors": [{"message": …}]}`.
fn reason_of(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<Reason>,
    }
    #[derive(Deserialize)]
    struct Reason {
        #[serde(default)]
        message: String,
    }
    let body: Option<Body> = serde_json::from_slice(body).ok();
    let first = body.and_then(|body| body.errors.into_iter().next()).map(|reason| reason.message);
    let clean =
        |text: String| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
    first
        .map(clean)
        .filter(|text| !text.is_empty())
        .map_or_else(String::new, |text| format!(" ({text})"))
}
