//! The server's knobs: flag > `DISPATCH_*` > file > default, each in one line of one table.

mod list;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;
use clap::parser::ValueSource;
use dispatch_api::egress::Net;
use dispatch_runner::Tier;
use dispatch_runner::process::Wish;
use serde::Deserialize;

pub use self::list::{Directory, Host, List, Mirror};

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Lines for a person.
    Text,
    /// One JSON object a line.
    Json,
}

impl std::fmt::Display for LogFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LogFormat::Auto => "auto",
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

/// One knob as `--print-config` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The flag without dashes.
    pub name: &'static str,
    /// The value in force.
    pub value: String,
    /// Where it comes from: `flag`, `environment`, `file` or `default`.
    pub origin: &'static str,
}

/// What a function may reach: see `egress` of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EgressMode {
    /// Nothing.
    None,
    /// What a proxy lets through.
    Proxy,
    /// The same, noting all that is reached.
    Learn,
    /// What the machine reaches.
    Full,
}

impl std::fmt::Display for EgressMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            EgressMode::None => "none",
            EgressMode::Proxy => "proxy",
            EgressMode::Learn => "learn",
            EgressMode::Full => "full",
        })
    }
}

trait Show {
    fn show(&self) -> String;
}

macro_rules! show_as_text {
    ($($kind:ty),*) => { $(impl Show for $kind { fn show(&self) -> String { self.to_string() } })* };
}
show_as_text!(
    String,
    u16,
    u32,
    u64,
    i64,
    usize,
    bool,
    IpAddr,
    LogFormat,
    Tier,
    EgressMode,
    List<Net>,
    List<Host>,
    List<Directory>,
    List<Mirror>
);

impl Show for PathBuf {
    fn show(&self) -> String {
        self.display().to_string()
    }
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty = $default:expr, $env:literal;)*) => {
        /// The flags of `dispatch server` and `dispatch up`; the configuration file has the same
        /// names as keys.
        #[derive(Clone, Debug, Default, Deserialize, clap::Args)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
        pub struct ServerArgs {
            $($(#[doc = $doc])+ #[arg(long, env = $env, hide_env_values = true)]
            pub $name: Option<$kind>,)*
        }

        /// The configuration in force.
        #[derive(Clone, Debug)]
        pub struct Config {
            $($(#[doc = $doc])+ pub $name: $kind,)*
        }

        impl Config {
            fn merge(args: ServerArgs, file: ServerArgs, matches: Option<&ArgMatches>)
                -> (Config, Vec<Setting>)
            {
                let mut settings = Vec::new();
                $(
                    let given = args.$name.is_some();
                    let filed = file.$name.is_some();
                    let $name: $kind = args.$name.or(file.$name).unwrap_or_else(|| $default);
                    let origin = match matches.and_then(|m| m.value_source(stringify!($name))) {
                        Some(ValueSource::EnvVariable) => "environment",
                        _ if given => "flag",
                        _ if filed => "file",
                        _ => "default",
                    };
                    settings.push(Setting { name: stringify!($name), value: $name.show(), origin });
                )*
                (Config { $($name,)* }, settings)
            }
        }
    };
}

settings! {
    /// The directory that holds everything the server keeps
    data_dir: PathBuf = default_data_dir(), "DISPATCH_DATA_DIR";
    /// The address to listen on
    host: IpAddr = IpAddr::from([127, 0, 0, 1]), "DISPATCH_HOST";
    /// The port of the API
    port: u16 = 8080, "DISPATCH_PORT";
    /// The port of the gateway
    gateway_port: u16 = 8081, "DISPATCH_GATEWAY_PORT";
    /// The TOML file to read settings from
    config: PathBuf = PathBuf::new(), "DISPATCH_SERVER_CONFIG";
    /// The organization of requests that name none
    default_organization: String = "default".to_owned(), "DISPATCH_DEFAULT_ORGANIZATION";
    /// Refuse requests that name no organization
    strict_organization: bool = false, "DISPATCH_STRICT_ORGANIZATION";
    /// The domain of default endpoint hosts
    domain: String = "dispatch.local".to_owned(), "DISPATCH_DOMAIN";
    /// Redirect (308) to https where an endpoint allows nothing else, instead of answering 400
    gateway_redirect: bool = false, "DISPATCH_GATEWAY_REDIRECT";
    /// A file with the bearer token of administrators; without it every caller is one
    admin_token_file: PathBuf = PathBuf::new(), "DISPATCH_ADMIN_TOKEN_FILE";
    /// A file with the bearer token of viewers, who may read all but the values of secrets
    viewer_token_file: PathBuf = PathBuf::new(), "DISPATCH_VIEWER_TOKEN_FILE";
    /// The file with the master key of secrets; default: master.key in the data directory
    master_key_file: PathBuf = PathBuf::new(), "DISPATCH_MASTER_KEY_FILE";
    /// A directory with further language packs
    languages_dir: PathBuf = PathBuf::new(), "DISPATCH_LANGUAGES_DIR";
    /// How log lines are written
    log_format: LogFormat = LogFormat::Auto, "DISPATCH_LOG_FORMAT";
    /// What is logged: error, warn, info, debug, trace, or a filter such as dispatch_runner=debug
    log_level: String = "info".to_owned(), "DISPATCH_LOG_LEVEL";
    /// Finished runs kept per function
    run_retention_count: i64 = 1000, "DISPATCH_RUN_RETENTION_COUNT";
    /// Hours finished runs are kept
    run_retention_hours: i64 = 24 * 7, "DISPATCH_RUN_RETENTION_HOURS";
    /// Revisions kept per function, besides the one that serves
    revision_retention: usize = 10, "DISPATCH_REVISION_RETENTION";
    /// Hours dependency layers are kept that no image and no revision uses
    layer_retention_hours: i64 = 24 * 7, "DISPATCH_LAYER_RETENTION_HOURS";
    /// Runs of one function that may wait to be executed
    max_queued_runs: i64 = 10_000, "DISPATCH_MAX_QUEUED_RUNS";
    /// Runs that nobody waits for and that are executed at the same time
    async_concurrency: usize = 32, "DISPATCH_ASYNC_CONCURRENCY";
    /// Directories of the machine that event drivers of the default organization may name, with commas
    driver_directories: List<Directory> = List::default(), "DISPATCH_DRIVER_DIRECTORIES";
    /// Deliveries of events that are tried at the same time
    event_concurrency: usize = 64, "DISPATCH_EVENT_CONCURRENCY";
    /// Minutes in which an event with the same source and id is the same event
    event_dedup_minutes: i64 = 60, "DISPATCH_EVENT_DEDUP_MINUTES";
    /// Subscriptions that an event, and the replies it leads to, may pass one after the other
    event_hops: i64 = 16, "DISPATCH_EVENT_HOPS";
    /// Hours events are kept in the log, with their deliveries
    event_retention_hours: i64 = 24 * 7, "DISPATCH_EVENT_RETENTION_HOURS";
    /// MiB of events that are kept in the log; deliveries that wait keep theirs beyond
    event_retention_mib: i64 = 1024, "DISPATCH_EVENT_RETENTION_MIB";
    /// Workers of all functions together
    max_workers: usize = default_max_workers(), "DISPATCH_MAX_WORKERS";
    /// Workers of one organization; 0 means as many as of all together
    organization_workers: usize = 0, "DISPATCH_ORGANIZATION_WORKERS";
    /// MiB of the machine's memory to be left: while there are fewer, idle workers are stopped
    memory_reserve: u64 = 128, "DISPATCH_MEMORY_RESERVE";
    /// Processes of each language that wait, ready, for a function that needs a worker
    stem_cells: usize = 2, "DISPATCH_STEM_CELLS";
    /// The most of them where so many were needed at once a while ago and there is ample memory
    stem_cells_most: usize = 128, "DISPATCH_STEM_CELLS_MOST";
    /// Workers of a function that names no limit
    default_max_scale: usize = default_max_scale(), "DISPATCH_DEFAULT_MAX_SCALE";
    /// Calls of one function that may wait for a worker
    max_waiting: usize = 256, "DISPATCH_MAX_WAITING";
    /// Run functions even where nothing keeps them from the machine (tier D)
    insecure_no_isolation: bool = false, "DISPATCH_INSECURE_NO_ISOLATION";
    /// Isolate no better than this tier (A, B, C, D), to see what a worse machine allows
    isolation_at_most: Tier = Tier::A, "DISPATCH_ISOLATION_AT_MOST";
    /// Seconds an idle worker is kept
    idle_seconds: u64 = 300, "DISPATCH_IDLE_SECONDS";
    /// Seconds after which an idle worker stands still until the next call; 0 means never
    freeze_seconds: u64 = 30, "DISPATCH_FREEZE_SECONDS";
    /// MiB one worker of a function that names no limit may use
    default_memory: u64 = 512, "DISPATCH_DEFAULT_MEMORY";
    /// Thousandths of a core one worker of a function that names no limit may use; 0 means all
    default_cpu: u64 = 0, "DISPATCH_DEFAULT_CPU";
    /// Milliseconds a run of a function that names no limit may take
    default_timeout: u64 = 300_000, "DISPATCH_DEFAULT_TIMEOUT";
    /// Seconds the build of an image may take
    build_timeout: u64 = 600, "DISPATCH_BUILD_TIMEOUT";
    /// Registries of container images that are spoken to without TLS: 127.0.0.1:5000, with commas
    insecure_registries: List<Host> = List::default(), "DISPATCH_INSECURE_REGISTRIES";
    /// Where images are looked for first: docker.io=mirror.example:5000, with commas
    registry_mirrors: List<Mirror> = List::default(), "DISPATCH_REGISTRY_MIRRORS";
    /// Docker's config.json with accounts for the images of the default organization
    registry_accounts: PathBuf = default_registry_accounts(), "DISPATCH_REGISTRY_ACCOUNTS";
    /// MiB a container image may take, unpacked
    max_image: u64 = 8192, "DISPATCH_MAX_IMAGE";
    /// File with the packages that images of each organization may have
    package_rules: PathBuf = PathBuf::new(), "DISPATCH_PACKAGE_RULES";
    /// MiB the dependencies of an image may take
    max_layer: u64 = 1024, "DISPATCH_MAX_LAYER";
    /// What functions that do not say may reach: none, proxy, learn or full
    default_egress: EgressMode = EgressMode::Proxy, "DISPATCH_DEFAULT_EGRESS";
    /// Refuse functions with egress full
    forbid_full_egress: bool = false, "DISPATCH_FORBID_FULL_EGRESS";
    /// Private or other special ranges that functions may list, with commas: 10.1.0.0/16
    egress_allow_private: List<Net> = List::default(), "DISPATCH_EGRESS_ALLOW_PRIVATE";
    /// Ranges that no function reaches, with commas
    egress_deny: List<Net> = List::default(), "DISPATCH_EGRESS_DENY";
    /// Bytes of a request body at the gateway
    max_body: usize = 6 << 20, "DISPATCH_MAX_BODY";
    /// MiB of a source archive; unpacked it may be ten times as large
    max_source: u64 = 50, "DISPATCH_MAX_SOURCE";
    /// Seconds that calls may take to finish when the server stops
    drain_seconds: u64 = 30, "DISPATCH_DRAIN_SECONDS";
    /// Threads of the gateway and its workers; 0 means one for each core
    cores: usize = 0, "DISPATCH_CORES";
    /// Connections of the API, and of the gateway, at the same time
    max_connections: usize = 4096, "DISPATCH_MAX_CONNECTIONS";
}

fn default_data_dir() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    data.or(home.map(|home| home.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("dispatch")
}

fn default_registry_accounts() -> PathBuf {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    let directory = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from).or(home);
    directory.unwrap_or_default().join("config.json")
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn default_max_workers() -> usize {
    64 * processors()
}

fn default_max_scale() -> usize {
    4 * processors()
}

impl Config {
    /// Puts the configuration together. `matches` tells flags from environment variables.
    ///
    /// # Errors
    /// An unreadable file, an unknown key in it, or values that do not fit together.
    pub fn load(
        args: ServerArgs,
        matches: Option<&ArgMatches>,
    ) -> anyhow::Result<(Config, Vec<Setting>)> {
        let file = match &args.config {
            Some(path) if !path.as_os_str().is_empty() => read_file(path)?,
            _ => ServerArgs::default(),
        };
        let (config, settings) = Config::merge(args, file, matches);
        config.check()?;
        Ok((config, settings))
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.host.is_loopback() || !self.admin_token_file.as_os_str().is_empty(),
            "--host {} can be reached from other machines, and nothing would ask callers who they \
             are: give --admin-token-file, or listen on 127.0.0.1",
            self.host
        );
        anyhow::ensure!(
            dispatch_api::validate::is_name(&self.default_organization),
            "--default-organization {:?} is not a name: use letters, numbers, underscores and dashes",
            self.default_organization
        );
        anyhow::ensure!(
            self.port != self.gateway_port || self.port == 0,
            "--port and --gateway-port are both {}: choose two different ports",
            self.port
        );
        anyhow::ensure!(
            self.default_egress != EgressMode::Full || !self.forbid_full_egress,
            "--default-egress is full, which --forbid-full-egress forbids: choose another one"
        );
        crate::package_rules::Rules::read(&self.package_rules).map_err(anyhow::Error::msg)?;
        if let Some(wide) = self.egress_allow_private.0.iter().find(|net| net.prefix() < 7) {
            anyhow::bail!(
                "--egress-allow-private {wide} is wider than any private range: list the ranges \
                 that functions need"
            );
        }
        for (name, value) in [
            ("max-workers", self.max_workers),
            ("default-max-scale", self.default_max_scale),
            ("async-concurrency", self.async_concurrency),
            ("max-connections", self.max_connections),
        ] {
            anyhow::ensure!(value > 0, "--{name} must be at least 1");
        }
        Ok(())
    }

    /// What kind of sandboxes the launcher is to make.
    pub fn wish(&self) -> Wish {
        Wish { at_most: self.isolation_at_most, without_isolation: self.insecure_no_isolation }
    }

    /// How long calls may take to finish when the server stops.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }
}

fn read_file(path: &Path) -> anyhow::Result<ServerArgs> {
    use anyhow::Context as _;
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
    toml::from_str(&text)
        .with_context(|| format!("the configuration file {} is not valid", path.display()))
}

/// The table of `--print-config`: name, value and origin of every setting.
pub fn print(settings: &[Setting]) -> String {
    let mut text = String::new();
    for setting in settings {
        let name = setting.name.replace('_', "-");
        text += &format!("{name:<24} {:<40} {}\n", setting.value, setting.origin);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_flag_wins_over_the_file_and_the_file_over_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dispatch.toml");
        std::fs::write(&path, "port = 9000\ngateway-port = 9001\n").unwrap();
        let args = ServerArgs { config: Some(path), port: Some(9100), ..ServerArgs::default() };
        let (config, settings) = Config::load(args, None).unwrap();
        assert_eq!(
            (config.port, config.gateway_port, config.max_queued_runs),
            (9100, 9001, 10_000)
        );
        let origin = |name| settings.iter().find(|s| s.name == name).unwrap().origin;
        assert_eq!(origin("port"), "flag");
        assert_eq!(origin("gateway_port"), "file");
        assert_eq!(origin("max_queued_runs"), "default");
    }

    #[test]
    fn ranges_are_read_from_flags_and_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dispatch.toml");
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let args = ServerArgs { config: Some(path.clone()), ..ServerArgs::default() };
            Config::load(args, None)
        };
        let (config, settings) =
            load("egress-allow-private = \"10.1.0.0/16, 127.0.0.1\"\ndefault-egress = \"none\"\n")
                .unwrap();
        assert_eq!(config.default_egress, EgressMode::None);
        let shown = settings.iter().find(|s| s.name == "egress_allow_private").unwrap();
        assert_eq!(shown.value, "10.1.0.0/16,127.0.0.1");
        for bad in [
            "egress-allow-private = \"0.0.0.0/0\"",
            "egress-allow-private = \"::/0\"",
            "egress-deny = \"10.0.0.1/8\"",
            "default-egress = \"all\"",
            "default-egress = \"full\"\nforbid-full-egress = true",
        ] {
            assert!(load(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_key_names_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dispatch.toml");
        std::fs::write(&path, "prot = 9000\n").unwrap();
        let args = ServerArgs { config: Some(path), ..ServerArgs::default() };
        let error = format!("{:#}", Config::load(args, None).unwrap_err());
        assert!(error.contains("prot"), "{error}");
    }

    #[test]
    fn an_open_address_without_a_token_is_refused() {
        let args = ServerArgs { host: Some([0, 0, 0, 0].into()), ..ServerArgs::default() };
        let error = Config::load(args, None).unwrap_err().to_string();
        assert!(error.contains("--admin-token-file"), "{error}");
    }
}
