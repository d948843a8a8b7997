//! The configuration file and the settings that follow from it, the flags and the environment.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use dispatch_api::client::{Auth, Options};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::args::{Format, Global};
use crate::auth;
use crate::error::{Error, Result, file_cause};
use crate::output;

/// File names that are looked for in `~/.dispatch`.
const NAMES: &[&str] = &["config.json", "config.toml", "config.yaml", "config.yml"];
/// The most bytes of a configuration file.
const MAX_FILE: u64 = 1 << 20;

/// The configuration file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The name of the context in use.
    pub current: String,
    /// Servers and how to reach them.
    pub contexts: BTreeMap<String, Context>,
    /// What other versions of this program wrote.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// A server and how to reach it, in the words of the flags. What is empty or 0 is not set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Context {
    pub host: String,
    pub port: u16,
    pub scheme: String,
    pub organization: String,
    pub cookie: String,
    pub insecure: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub api_https_port: u16,
    #[serde(skip_serializing_if = "is_zero")]
    pub api_http_port: u16,
    #[serde(rename = "serviceaccount", skip_serializing_if = "String::is_empty")]
    pub service_account: String,
    #[serde(rename = "jwtprivatekey", skip_serializing_if = "String::is_empty")]
    pub jwt_private_key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub project: String,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(port: &u16) -> bool {
    *port == 0
}

impl Config {
    /// The key of a context; names are compared in lower case.
    pub fn find(&self, name: &str) -> Option<String> {
        let same = |key: &&String| key.to_lowercase() == name.to_lowercase();
        self.contexts
            .keys()
            .find(|key| *key == name)
            .or_else(|| self.contexts.keys().find(same))
            .cloned()
    }

    /// The context in use.
    pub fn context(&self) -> Option<&Context> {
        self.contexts.get(&self.find(&self.current)?)
    }
}

/// Where the configuration is, or will be written to.
///
/// # Errors
/// There is no home directory to look in.
pub fn path(given: Option<&str>) -> Result<PathBuf> {
    if let Some(path) = given.filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let home = home.ok_or_else(|| {
        Error::local("there is no home directory: name a configuration file with --config")
    })?;
    let found =
        NAMES.iter().map(|name| home.join(".dispatch").join(name)).find(|path| path.exists());
    Ok(found.unwrap_or_else(|| home.join(".dispatch").join(NAMES[0])))
}

/// Reads the configuration; one that was not named may be missing.
///
/// # Errors
/// It cannot be read, or is not of the right form.
pub fn load(given: Option<&str>) -> Result<Config> {
    let explicit = given.is_some_and(|path| !path.is_empty());
    let path = match path(given) {
        Err(_) if !explicit => return Ok(Config::default()),
        path => path?,
    };
    let name = path.display().to_string();
    let wrong = |cause: String| Error::local(format!("Error reading config file {name}: {cause}"));
    let mut text = String::new();
    match std::fs::File::open(&path) {
        Ok(file) => file.take(MAX_FILE).read_to_string(&mut text),
        Err(error) if !explicit && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Config::default());
        }
        Err(error) => Err(error),
    }
    .map_err(|error| wrong(file_cause("open", &name, &error)))?;
    if text.trim().is_empty() {
        return Ok(Config::default());
    }
    match extension(&path) {
        "toml" => toml::from_str(&text).map_err(|error| wrong(error.to_string())),
        "yaml" | "yml" => serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string())),
        "properties" | "hcl" => Err(wrong("write it as JSON, YAML or TOML".to_owned())),
        _ => serde_json::from_str(&text).map_err(|error| wrong(error.to_string())),
    }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

/// Writes the configuration, as a whole or not at all, readable by its owner alone: it may hold a
/// cookie.
///
/// # Errors
/// It cannot be written.
pub fn save(given: Option<&str>, config: &Config) -> Result<PathBuf> {
    let path = path(given)?;
    let text = match extension(&path) {
        "toml" => toml::to_string(config).map_err(|error| Error::local(error.to_string()))?,
        // JSON is YAML, too.
        _ => output::json(config, output::INDENT),
    };
    let write = || {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(text.as_bytes())?;
        // A configuration that is a link stays one.
        let target = path.canonicalize().unwrap_or_else(|_| path.clone());
        file.persist(target).map_err(|error| error.error)
    };
    write().map_err(|error| {
        let cause = file_cause("write", &path.display().to_string(), &error);
        Error::local(format!("error writing configuration: {cause}"))
    })?;
    Ok(path)
}

/// Adds or replaces a context. It becomes the current one if there is none, or if it is already;
/// returns the file and whether the context is the current one.
///
/// # Errors
/// The configuration cannot be read or written.
#[cfg_attr(not(feature = "server"), allow(dead_code))]
pub fn write_context(given: Option<&str>, name: &str, context: Context) -> Result<(PathBuf, bool)> {
    // Dots separate the parts of keys in other readers of this file.
    let name = name.to_lowercase().replace('.', "-");
    let path = path(given)?;
    let mut config = if path.exists() { load(given)? } else { Config::default() };
    config.contexts.insert(name.clone(), context);
    if config.context().is_none() {
        config.current.clone_from(&name);
    }
    let current = config.current.to_lowercase() == name;
    Ok((save(given, &config)?, current))
}

/// What is in force for one command.
#[derive(Clone)]
pub struct Settings {
    /// Host of the server.
    pub host: String,
    /// The form of the output.
    pub format: Format,
    /// Whether the old `--json` was given.
    pub json: bool,
    /// Port of the gateway for http.
    pub api_http_port: u16,
    /// Port of the gateway for https.
    pub api_https_port: u16,
    /// How to reach the server.
    pub client: Options,
}

impl Settings {
    /// Flags and environment first, then the current context, then the defaults.
    ///
    /// # Errors
    /// A malformed value, or a private key that cannot be read.
    pub fn new(global: &Global, config: &Config) -> Result<Settings> {
        let context = config.context().cloned().unwrap_or_default();
        let first = |flag: &Option<String>, value: &str, default: &str| {
            let flag = flag.as_deref().unwrap_or_default();
            let found = [flag, value, default].into_iter().find(|text| !text.is_empty());
            found.unwrap_or_default().to_owned()
        };
        let port =
            |ports: [u16; 2], default| ports.into_iter().find(|port| *port != 0).unwrap_or(default);
        let scheme = first(&global.scheme, &context.scheme, "https");
        if scheme != "http" && scheme != "https" {
            let text = format!("invalid argument {scheme:?} for \"--scheme\": use http or https");
            return Err(Error::local(text));
        }
        let host = first(&global.host, &context.host, "localhost");
        let address = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        let number = port([global.port.unwrap_or(0), context.port], 443);
        let organization = first(&global.organization, &context.organization, "");
        let auth = auth::choose(
            global.token.as_deref().unwrap_or_default(),
            &first(&global.service_account, &context.service_account, ""),
            &first(&global.jwt_private_key, &context.jwt_private_key, ""),
            &organization,
        )?;
        let json = global.json.unwrap_or(false);
        let format = global.output.filter(|format| *format != Format::Table);
        Ok(Settings {
            host,
            format: format.unwrap_or(if json { Format::Json } else { Format::Table }),
            json,
            api_http_port: port([context.api_http_port, 0], 8081),
            api_https_port: port([context.api_https_port, 0], 8444),
            client: Options {
                base_url: format!("{scheme}://{address}:{number}"),
                organization,
                project: first(&global.project, &context.project, ""),
                auth: auth.unwrap_or(Auth::Cookie(context.cookie)),
                insecure: global.insecure.unwrap_or(context.insecure),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(text: &str) -> Config {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn flags_win_over_the_context_and_the_context_over_the_defaults() {
        let config = config(
            r#"{"current":"Ctx","contexts":{"ctx":{"host":"h","port":8080,"scheme":"http",
            "organization":"o","api-http-port":80,"insecure":true,"cookie":"c"}}}"#,
        );
        let settings = Settings::new(&Global::default(), &config).unwrap();
        assert_eq!(settings.client.base_url, "http://h:8080");
        assert_eq!(settings.client.organization, "o");
        assert!(settings.client.insecure);
        assert_eq!((settings.api_http_port, settings.api_https_port), (80, 8444));
        assert!(matches!(&settings.client.auth, Auth::Cookie(cookie) if cookie == "c"));
        let global = Global {
            host: Some("::1".to_owned()),
            port: Some(0),
            scheme: Some(String::new()),
            organization: Some("p".to_owned()),
            insecure: Some(false),
            token: Some("t".to_owned()),
            ..Global::default()
        };
        let settings = Settings::new(&global, &config).unwrap();
        assert_eq!(settings.client.base_url, "http://[::1]:8080");
        assert_eq!(settings.client.organization, "p");
        assert!(!settings.client.insecure);
        assert!(matches!(&settings.client.auth, Auth::Bearer(token) if token == "t"));
        let settings = Settings::new(&Global::default(), &Config::default()).unwrap();
        assert_eq!(settings.client.base_url, "https://localhost:443");
    }

    #[test]
    fn a_context_is_added_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").join("config.json");
        let name = path.to_str().unwrap();
        let context = Context { host: "127.0.0.1".to_owned(), port: 8080, ..Context::default() };
        let (written, current) = write_context(Some(name), "Local.Host", context.clone()).unwrap();
        assert_eq!((written.as_path(), current), (path.as_path(), true));
        let (_, current) = write_context(Some(name), "other", context).unwrap();
        assert!(!current, "the current context stays");
        let config = load(Some(name)).unwrap();
        assert_eq!(config.current, "local-host");
        assert_eq!(config.contexts.keys().collect::<Vec<_>>(), ["local-host", "other"]);
    }

    #[test]
    fn every_form_is_read_and_unknown_members_survive() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("c.json", "{\"current\":\"a\",\"x\":1,\"contexts\":{\"a\":{\"port\":1,\"y\":2}}}"),
            ("c.yaml", "current: a\nx: 1\ncontexts:\n  a:\n    port: 1\n    y: 2\n"),
            ("c.toml", "current = \"a\"\nx = 1\n[contexts.a]\nport = 1\ny = 2\n"),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            let name = path.to_str().unwrap();
            let config = load(Some(name)).unwrap();
            save(Some(name), &config).unwrap();
            let config = load(Some(name)).unwrap();
            assert_eq!((config.context().unwrap().port, &config.rest["x"]), (1, &Value::from(1)));
            assert_eq!(config.context().unwrap().rest["y"], Value::from(2), "{name}");
        }
    }
}
