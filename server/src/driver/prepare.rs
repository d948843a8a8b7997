//! From a driver and its type to a program with all it needs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dispatch_api::driver::Setting;
use dispatch_api::{Driver, DriverType, Function};
use dispatch_drivers::Kind;
use dispatch_runner::service::STATE;
use dispatch_runner::{BuildError, Egress, PullRequest, Service};

use super::{ingest, types};
use crate::app::App;
use crate::egress;
use crate::store::Entity;
use crate::tasks::build;

/// Where a driver posts its events, inside. The drivers of the third old generation know the port.
const SINK_PORT: u16 = 8080;
/// Where a driver serves HTTP, inside.
pub(super) const PORT: u16 = 80;
/// MiB of memory of a driver that names no limit.
const MEMORY: i64 = 256;
/// How long a driver may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// Why a driver does not run: a text and its cause.
pub(super) struct Fault {
    pub text: String,
    pub cause: String,
}

/// Where a driver's files are.
pub(super) fn files(app: &App, id: &str) -> PathBuf {
    app.config.data_dir.join("drivers").join(id)
}

/// The type's settings and the driver's own, which win.
fn settings(driver: &Driver, driver_type: &DriverType) -> Vec<Setting> {
    let own = |key: &str| driver.config.iter().any(|setting| setting.key == key);
    let of_type = driver_type.config.iter().filter(|setting| !own(&setting.key));
    of_type.chain(&driver.config).cloned().collect()
}

/// What the secrets become in the environment.
///
/// # Errors
/// A secret that is not there.
fn environment(app: &App, org: &str, driver: &Driver) -> Result<BTreeMap<String, String>, String> {
    let snapshot = app.live.load();
    let mut variables = BTreeMap::new();
    for name in &driver.secrets {
        let values = snapshot.secret(org, name).ok_or_else(|| {
            format!("secret {name} not found; make it with: dispatch create secret {name} FILE")
        })?;
        for (key, value) in values.iter().filter(|(key, _)| !key.contains(['=', '\0'])) {
            variables.insert(key.to_ascii_uppercase().replace('-', "_"), value.clone());
        }
    }
    Ok(variables)
}

/// Checks what can be known of a driver of a built-in type before it runs.
///
/// # Errors
/// What is wrong with its settings.
pub(super) fn check(
    app: &App,
    org: &str,
    driver: &Driver,
    driver_type: &DriverType,
) -> Result<(), String> {
    let Some(kind) = types::means(&driver_type.image) else { return Ok(()) };
    // Secrets may come later.
    let Ok(variables) = environment(app, org, driver) else { return Ok(()) };
    let settings = settings(driver, driver_type);
    let pairs = settings.iter().map(|setting| (setting.key.as_str(), setting.value.as_str()));
    let variable = |name: &str| variables.get(name).cloned();
    kind?.check(pairs, variable).map(drop).map_err(|error| error.to_string())
}

/// The ways to the places that a built-in driver's settings name, and the settings in which those
/// places have addresses of its own loopback.
#[derive(Debug, Default)]
struct Ways {
    links: Vec<(SocketAddrV4, dispatch_api::egress::Target)>,
    hosts: Vec<(String, Ipv4Addr)>,
    /// What stands in the settings, and what is to stand there.
    instead: Vec<(String, String)>,
}

impl Ways {
    fn to(addresses: Vec<dispatch_drivers::Address>) -> Result<Ways, String> {
        let mut ways = Ways::default();
        for dispatch_drivers::Address { host, port } in addresses {
            let inside = ways.place(&host);
            let address = SocketAddrV4::new(inside, port);
            if ways.links.iter().any(|(known, _)| *known == address) {
                continue;
            }
            if inside == Ipv4Addr::LOCALHOST && [SINK_PORT, PORT].contains(&port) {
                return Err(format!(
                    "{host}:{port} cannot be reached: a driver's own port {port} is taken; use the \
                     machine's name or another address"
                ));
            }
            let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            let target = format!("{bracketed}:{port}").parse();
            ways.links.push((address, target.map_err(|error| format!("{host}:{port}: {error}"))?));
        }
        Ok(ways)
    }

    /// Where on the loopback a host is.
    fn place(&mut self, host: &str) -> Ipv4Addr {
        let next = |used: usize| {
            let [high, low] = u16::try_from(used).unwrap_or(u16::MAX).to_be_bytes();
            Ipv4Addr::new(127, 1, high, low.max(1))
        };
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) if address.is_loopback() => address,
            Ok(_) => {
                if let Some((_, text)) = self.instead.iter().find(|(from, _)| from == host)
                    && let Ok(known) = text.parse()
                {
                    return known;
                }
                let address = next(self.instead.len() + self.hosts.len() + 1);
                self.instead.push((host.to_owned(), address.to_string()));
                address
            }
            Err(_) if host.eq_ignore_ascii_case("localhost") => Ipv4Addr::LOCALHOST,
            Err(_) => {
                if let Some((_, known)) = self.hosts.iter().find(|(name, _)| name == host) {
                    return *known;
                }
                let address = next(self.instead.len() + self.hosts.len() + 1);
                self.hosts.push((host.to_owned(), address));
                address
            }
        }
    }
}

/// The program of a driver, about to run, and its token, which is worth something from now on.
///
/// # Errors
/// Why it cannot run.
pub(super) async fn service(
    app: &Arc<App>,
    entity: &Entity,
    log: &super::log::Log,
) -> Result<(Service, String), Fault> {
    let (org, name) = (&entity.org, &entity.name);
    let fault = |cause: String| Fault { text: format!("event driver {name} cannot run"), cause };
    let driver: Driver =
        crate::resource::resource(entity).map_err(|error| fault(error.problem.message))?;
    let found = types::find(app, org, &driver.driver_type).await;
    let found = found.map_err(|error| fault(error.to_string()))?;
    let missing = || fault(format!("driver type {} does not exist", driver.driver_type));
    let driver_type = found.ok_or_else(missing)?;
    let mut settings = settings(&driver, &driver_type);
    let mut variables = environment(app, org, &driver).map_err(fault)?;
    let function = Function {
        egress: driver.egress.clone(),
        egress_allow: driver.egress_allow.clone(),
        links: driver.links.clone(),
        ..Function::default()
    };
    let mut reach = egress::of(&app.config, &function);
    if driver.egress.is_empty() && reach == Egress::None {
        // Nobody said that it may reach nothing; where it goes stands in its settings.
        reach = Egress::Proxy(dispatch_runner::egress::Reach::default());
    }
    let mut ways = Ways::default();
    let mut arguments = Vec::new();
    let language = match types::means(&driver_type.image) {
        Some(kind) => {
            let kind = kind.map_err(fault)?;
            let pairs = settings.iter().map(|it| (it.key.as_str(), it.value.as_str()));
            let checked = kind.check(pairs, |name| variables.get(name).cloned());
            let checked = checked.map_err(|error| fault(error.to_string()))?;
            ways = Ways::to(checked.addresses()).map_err(fault)?;
            rewrite(kind, &ways.instead, &mut settings, &mut variables);
            arguments.extend(["driver".to_owned(), kind.name.to_owned()]);
            "exec".to_owned()
        }
        None => {
            let language = pull(app, entity, &driver_type, log).await.map_err(|cause| Fault {
                text: format!(
                    "error when pulling the image of event driver type {}",
                    driver_type.name
                ),
                cause,
            })?;
            if !settings.iter().any(|setting| setting.key == "dispatch-api-endpoint") {
                let value = format!("127.0.0.1:{SINK_PORT}");
                settings.push(Setting { key: "dispatch-api-endpoint".to_owned(), value });
            }
            // What is set to nothing is not passed.
            settings.retain(|it| it.key != "dispatch-api-endpoint" || !it.value.is_empty());
            language
        }
    };
    arguments.extend(settings.iter().map(|setting| match setting.value.as_str() {
        "" => format!("--{}", setting.key),
        value => format!("--{}={value}", setting.key),
    }));
    let directories = directories(app, org, &settings);
    let token = app.drivers.begin(org, name, &language, driver_type.expose).map_err(fault)?;
    let own = [
        ("AUTH_TOKEN", token.clone()),
        ("DRIVER_NAME", name.clone()),
        ("DRIVER_STATE", STATE.to_owned()),
        ("K_SINK", format!("http://127.0.0.1:{SINK_PORT}/v1/event/ingest")),
        ("PORT", PORT.to_string()),
    ];
    variables.extend(own.map(|(name, value)| (name.to_owned(), value)));
    let memory = if driver.memory == 0 { MEMORY } else { driver.memory };
    let service = Service {
        organization: org.clone(),
        name: name.clone(),
        language,
        arguments,
        environment: variables.into_iter().collect(),
        memory_bytes: memory.unsigned_abs() << 20,
        cpu_millis: driver.cpu.unsigned_abs(),
        egress: reach,
        links: ways.links,
        hosts: ways.hosts,
        state: files(app, &entity.id).join("state"),
        directories,
        ports: vec![SINK_PORT],
        taker: ingest::taker(app, org),
        grace: GRACE,
    };
    Ok((service, token))
}

/// The directories of the machine that the settings name and the operator gives.
fn directories(app: &App, org: &str, settings: &[Setting]) -> Vec<PathBuf> {
    if org != app.config.default_organization {
        return Vec::new();
    }
    let given = app.config.driver_directories.0.iter().map(|directory| &directory.0);
    let named = |given: &&PathBuf| {
        settings.iter().any(|setting| Path::new(&setting.value).starts_with(given))
    };
    given.filter(named).cloned().collect()
}

/// Puts other addresses into the settings that name places.
fn rewrite(
    kind: &'static dispatch_drivers::DriverType,
    instead: &[(String, String)],
    settings: &mut [Setting],
    variables: &mut BTreeMap<String, String>,
) {
    for key in kind.all_keys().filter(|key| matches!(key.kind, Kind::Addresses(_))) {
        let of_settings = settings.iter_mut().filter(|setting| setting.key == key.name);
        let of_settings = of_settings.map(|setting| &mut setting.value);
        for value in of_settings.chain(variables.get_mut(&key.variable())) {
            for (from, to) in instead {
                *value = value.replace(&format!("[{from}]"), to).replace(from.as_str(), to);
            }
        }
    }
}

/// Gets a driver's image; answers the name of what it runs in.
async fn pull(
    app: &Arc<App>,
    entity: &Entity,
    driver_type: &DriverType,
    log: &super::log::Log,
) -> Result<String, String> {
    let (reference, secret) = (&driver_type.image, &driver_type.registry_secret);
    let account = build::credentials(app, &entity.org, reference, secret).await;
    let request = PullRequest {
        organization: entity.org.clone(),
        reference: driver_type.image.clone(),
        // Its own command is what runs, whatever else it holds.
        language: "http".to_owned(),
        credentials: account.map_err(|error| error.to_string())?,
        operators_accounts: entity.org == app.config.default_organization,
    };
    match app.runner.pull_image(&request, &|line| log.line(line)).await {
        Ok(pulled) => Ok(pulled.runtime),
        Err(BuildError::Rejected(cause) | BuildError::Failed(cause)) => Err(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16) -> dispatch_drivers::Address {
        dispatch_drivers::Address { host: host.to_owned(), port }
    }

    #[test]
    fn every_place_of_the_settings_has_an_address_of_its_own_inside() {
        let places = vec![
            address("localhost", 9092),
            address("a.example", 9092),
            address("b.example", 9092),
            address("a.example", 9093),
            address("10.0.0.5", 9092),
            address("127.0.0.1", 9092),
        ];
        let ways = Ways::to(places).expect("ways");
        let links: Vec<_> = ways.links.iter().map(|(at, to)| format!("{at} {to}")).collect();
        assert_eq!(
            links,
            [
                "127.0.0.1:9092 localhost:9092",
                "127.1.0.1:9092 a.example:9092",
                "127.1.0.2:9092 b.example:9092",
                "127.1.0.1:9093 a.example:9093",
                "127.1.0.3:9092 10.0.0.5:9092",
            ]
        );
        assert_eq!(ways.hosts.len(), 2);
        assert_eq!(ways.instead, [("10.0.0.5".to_owned(), "127.1.0.3".to_owned())]);
        assert!(Ways::to(vec![address("127.0.0.1", SINK_PORT)]).is_err());
    }
}
