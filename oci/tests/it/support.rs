//! Images, and a registry that can misbehave.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dispatch_oci::{Digest, Image, Images, Inside, Limits, Registries};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

/// The files of an image.
#[derive(Clone, Default)]
pub struct Made {
    pub blobs: HashMap<String, Vec<u8>>,
    pub manifest: Value,
    pub layers: Vec<String>,
    pub config: Value,
}

pub fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        header.set_cksum();
        builder.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

impl Made {
    fn blob(&mut self, bytes: Vec<u8>) -> Value {
        let (digest, size) = (Digest::of(&bytes).to_string(), bytes.len());
        self.blobs.insert(digest.clone(), bytes);
        json!({"mediaType": "application/octet-stream", "digest": digest, "size": size})
    }

    pub fn new(layers: &[Vec<u8>]) -> Made {
        let mut made = Made::default();
        let ids: Vec<String> = layers.iter().map(|tar| Digest::of(tar).to_string()).collect();
        let layers: Vec<Value> = layers.iter().map(|tar| made.blob(gzip(tar))).collect();
        made.layers = layers.iter().map(|layer| layer["digest"].as_str().unwrap().into()).collect();
        made.config = json!({"architecture": architecture(), "os": "linux",
            "config": {"Env": ["A=b"], "Cmd": ["run"]},
            "rootfs": {"type": "layers", "diff_ids": ids}});
        let config = made.blob(made.config.to_string().into_bytes());
        made.manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        made
    }

    /// Writes it as an OCI layout.
    pub fn layout(&self, directory: &Path) {
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let mut all = self.clone();
        let manifest = all.blob(self.manifest.to_string().into_bytes());
        for (digest, bytes) in &all.blobs {
            std::fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).unwrap();
        }
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        std::fs::write(directory.join("index.json"), index.to_string()).unwrap();
    }
}

/// What a registry does beside serving.
#[derive(Default)]
pub struct Habits {
    /// `user:password` it wants, and whether it wants a token instead of them.
    pub account: Option<(String, bool)>,
    /// So many bytes of a blob it sends before it hangs up, each time.
    pub breaks_after: Option<usize>,
    /// It does not know of ranges.
    pub no_ranges: bool,
    /// It sends other bytes for this digest.
    pub lies_about: Option<String>,
    /// It sends everybody who wants a blob there.
    pub redirects_to: Option<String>,
    /// Where it sends those without a token.
    pub realm: Option<String>,
}

#[derive(Default)]
struct Inner {
    made: Made,
    habits: Habits,
    seen: Mutex<Vec<String>>,
    address: Mutex<String>,
}

/// A registry on loopback.
pub struct Registry {
    pub host: String,
    inner: Arc<Inner>,
}

impl Registry {
    pub async fn start(made: Made, habits: Habits) -> Registry {
        let inner = Arc::new(Inner { made, habits, ..Inner::default() });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        inner.address.lock().unwrap().clone_from(&host);
        tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
        Registry { host, inner }
    }

    /// Paths that were asked for, with what was told besides.
    pub fn seen(&self) -> Vec<String> {
        self.inner.seen.lock().unwrap().clone()
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let (path, range, who) =
        (request.uri().path().to_owned(), header("range"), header("authorization"));
    inner.seen.lock().unwrap().push(format!("{path} {range} {who}"));
    let Habits { account, breaks_after, no_ranges, lies_about, redirects_to, realm } =
        &inner.habits;
    let address = inner.address.lock().unwrap().clone();
    if let Some((account, token)) = account {
        let basic = format!("Basic {}", STANDARD.encode(account));
        if path == "/token" {
            return match who == basic {
                true => axum::Json(json!({"token": "the-token"})).into_response(),
                false => StatusCode::UNAUTHORIZED.into_response(),
            };
        }
        let wanted = if *token { "Bearer the-token" } else { &basic };
        if who != wanted {
            let realm = realm.clone().unwrap_or_else(|| format!("http://{address}/token"));
            let challenge = match token {
                true => format!("Bearer realm=\"{realm}\",service=\"test\""),
                false => "Basic realm=\"test\"".to_owned(),
            };
            return (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)], "{}")
                .into_response();
        }
    }
    let Some(rest) = path.strip_prefix("/v2/team/image/") else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if let Some(version) = rest.strip_prefix("manifests/") {
        let text = inner.made.manifest.to_string();
        let known = version == "1" || version == Digest::of(text.as_bytes()).to_string();
        return if known { text.into_response() } else { StatusCode::NOT_FOUND.into_response() };
    }
    let digest = rest.strip_prefix("blobs/").unwrap_or_default();
    let Some(bytes) = inner.made.blobs.get(digest) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if let Some(other) = redirects_to {
        return (StatusCode::TEMPORARY_REDIRECT, [("location", other.clone())]).into_response();
    }
    let mut bytes = bytes.clone();
    if lies_about.as_deref() == Some(digest) {
        bytes[0] ^= 1;
    }
    let from = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
    let from: usize = from.and_then(|from| from.parse().ok()).filter(|_| !no_ranges).unwrap_or(0);
    let status = if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let rest = bytes[from..].to_vec();
    let body = match breaks_after {
        Some(most) if rest.len() > *most => {
            let part = rest[..*most].to_vec();
            let parts = futures_util::stream::unfold(Some(part), |part| async {
                if let Some(part) = part.clone().filter(|part| !part.is_empty()) {
                    return Some((Ok(part), Some(Vec::new())));
                }
                // What came before is to arrive.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                part.map(|_| (Err(std::io::Error::other("hung up")), None))
            });
            Body::from_stream(parts)
        }
        _ => Body::from(rest),
    };
    (status, body).into_response()
}

/// Images that may be had from these hosts without TLS.
pub fn images(directory: &Path, insecure: &[&str], limits: Limits) -> Images {
    let insecure = insecure.iter().map(|host| (*host).to_owned()).collect();
    let registries = Registries { insecure, ..Registries::default() };
    let inside = Inside { id: 1000, nameserver: "10.0.2.3".to_owned() };
    Images::open(directory.to_owned(), registries, limits, inside).unwrap()
}

pub async fn pull(images: &Images, source: &str) -> Result<Image, String> {
    let pulled = images.pull(&source.parse().unwrap(), None, &|_| {}).await;
    pulled.map_err(|error| error.to_string())
}

pub fn text(image: &Image, path: &str) -> String {
    std::fs::read_to_string(image.root.join(path)).unwrap()
}
