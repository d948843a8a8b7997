//! From host, method and path to an endpoint: one structure in memory, built as a whole.
//!
//! Each host has a tree of path segments, so that a lookup costs what the path is long and not what
//! the table holds. A host belongs to one organization: see [`Table::check_host`].

use std::collections::HashMap;
use std::sync::Arc;

use dispatch_api::Endpoint;

mod path;
mod tree;

pub use path::{BadPath, check_uri};
use tree::Node;

/// What the table must know about the server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The domain of default hosts.
    pub domain: String,
    /// The organization whose endpoints answer requests to any unknown host, where it is the only
    /// one that has endpoints.
    pub single_organization: Option<String>,
}

/// The routes of all enabled endpoints.
#[derive(Debug, Default)]
pub struct Table {
    domain: String,
    hosts: HashMap<String, Host>,
    /// Routes of the single organization, for hosts that are not in `hosts`.
    unknown: Node,
    /// Routes that begin with their organization's name, for every host that has none that fits.
    any: Node,
}

#[derive(Debug, Default)]
struct Host {
    org: String,
    routes: Node,
}

/// An endpoint that takes a request.
#[derive(Debug)]
pub struct Match {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// What its path's parameters stand for.
    pub parameters: Vec<(String, String)>,
}

impl Table {
    /// Builds the table. Organization and project of the endpoints must be filled in.
    pub fn build(endpoints: impl IntoIterator<Item = Endpoint>, options: &Options) -> Table {
        let domain = options.domain.to_ascii_lowercase();
        let mut table = Table { domain, ..Table::default() };
        let mut endpoints: Vec<Arc<Endpoint>> = endpoints.into_iter().map(Arc::new).collect();
        endpoints.sort_by(|a, b| (&a.org, &a.name).cmp(&(&b.org, &b.name)));
        for endpoint in &endpoints {
            let single = options.single_organization.as_ref() == Some(&endpoint.org);
            table.add(endpoint, single);
        }
        table
    }

    fn add(&mut self, endpoint: &Arc<Endpoint>, single: bool) {
        // One that is disabled answers nothing, and still keeps its hosts from others.
        let uris = if endpoint.enabled { endpoint.uris.as_slice() } else { &[] };
        let patterns: Vec<_> = uris.iter().filter_map(|uri| path::parse(uri).ok()).collect();
        let default = format!("{}.{}.{}", endpoint.project, endpoint.org, self.domain);
        let hosts = match endpoint.hosts.as_slice() {
            [] => &[default],
            hosts => hosts,
        };
        for host in hosts.iter().map(|host| host_name(host)) {
            if !self.is_free(&host, &endpoint.org) {
                continue;
            }
            let new = || Host { org: endpoint.org.clone(), ..Host::default() };
            let routes = &mut self.hosts.entry(host).or_insert_with(new).routes;
            patterns.iter().for_each(|pattern| routes.insert(pattern, endpoint));
        }
        if endpoint.hosts.is_empty() {
            if single {
                patterns.iter().for_each(|pattern| self.unknown.insert(pattern, endpoint));
            }
            // A path that carries its organization is told apart by it on any host.
            let org = path::Segment::Exact(endpoint.org.clone());
            let prefixed = patterns.iter().filter(|pattern| pattern.first() == Some(&org));
            prefixed.for_each(|pattern| self.any.insert(pattern, endpoint));
        }
    }

    /// Finds the endpoint for a request. `path` is the raw path of the request line.
    ///
    /// # Errors
    /// A path that is not well-formed.
    pub fn find(&self, host: &str, method: &str, path: &str) -> Result<Option<Match>, BadPath> {
        let path = path::segments(path)?;
        let own = self.hosts.get(&host_name(host)).map_or(&self.unknown, |host| &host.routes);
        Ok(own.find(&path, method).or_else(|| self.any.find(&path, method)))
    }

    /// Checks whether endpoints of an organization may answer on a host: its first user keeps it,
    /// and default hosts are their organization's.
    ///
    /// # Errors
    /// The host is another organization's.
    pub fn check_host(&self, host: &str, org: &str) -> Result<(), String> {
        if self.is_free(&host_name(host), org) {
            return Ok(());
        }
        Err(format!("the host {host:?} belongs to another organization"))
    }

    fn is_free(&self, host: &str, org: &str) -> bool {
        let below = host.strip_suffix(&self.domain).and_then(|labels| labels.strip_suffix('.'));
        let named = below.map(|labels| labels.rsplit('.').next().unwrap_or_default());
        named.is_none_or(|named| named.eq_ignore_ascii_case(org))
            && self.hosts.get(host).is_none_or(|host| host.org == org)
    }
}

/// A host without port, trailing dot and case.
pub fn host_name(host: &str) -> String {
    let host = match host.rsplit_once(':') {
        Some((name, _)) if !host.ends_with(']') => name,
        _ => host,
    };
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
