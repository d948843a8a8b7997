//! The routes of one host, as a tree of path segments.

use std::collections::HashMap;
use std::sync::Arc;

use dispatch_api::Endpoint;

use super::Match;
use super::path::Segment;

/// What a path may go on with from here.
#[derive(Debug, Default)]
pub(super) struct Node {
    exact: HashMap<String, Node>,
    parameter: Option<Box<Node>>,
    /// Routes that end here, in name order.
    ends: Vec<Route>,
    /// Routes that take whatever follows, in name order.
    rest: Vec<Route>,
}

#[derive(Debug)]
struct Route {
    endpoint: Arc<Endpoint>,
    parameters: Vec<String>,
}

impl Node {
    /// Adds a route; of equal ones those that were added first win.
    pub(super) fn insert(&mut self, pattern: &[Segment], endpoint: &Arc<Endpoint>) {
        let mut route = Route { endpoint: Arc::clone(endpoint), parameters: Vec::new() };
        let mut node = self;
        for segment in pattern {
            node = match segment {
                Segment::Exact(text) => node.exact.entry(text.clone()).or_default(),
                Segment::Parameter(name) => {
                    route.parameters.push(name.clone());
                    node.parameter.get_or_insert_default()
                }
                Segment::Rest => return node.rest.push(route),
            };
        }
        node.ends.push(route);
    }

    /// Finds the most exact route that takes a method.
    pub(super) fn find(&self, path: &[String], method: &str) -> Option<Match> {
        let mut values = Vec::new();
        let route = self.descend(path, method, &mut values)?;
        let names = route.parameters.iter().cloned();
        let parameters = names.zip(values.into_iter().map(str::to_owned)).collect();
        Some(Match { endpoint: Arc::clone(&route.endpoint), parameters })
    }

    /// Every node is reached in one way only, so this visits none twice.
    fn descend<'a>(
        &'a self,
        path: &'a [String],
        method: &str,
        values: &mut Vec<&'a str>,
    ) -> Option<&'a Route> {
        let Some((first, following)) = path.split_first() else {
            return pick(&self.ends, method).or_else(|| pick(&self.rest, method));
        };
        let exact = self.exact.get(first);
        if let Some(route) = exact.and_then(|node| node.descend(following, method, values)) {
            return Some(route);
        }
        if let Some(node) = &self.parameter {
            values.push(first);
            if let Some(route) = node.descend(following, method, values) {
                return Some(route);
            }
            values.pop();
        }
        pick(&self.rest, method)
    }
}

/// Of several routes the one that lists the method, otherwise one that takes it all the same: HEAD
/// is a GET without a body, and OPTIONS asks about a route instead of calling it.
fn pick<'a>(routes: &'a [Route], method: &str) -> Option<&'a Route> {
    let takes = |wanted: &str| {
        routes.iter().find(|route| {
            let methods = &route.endpoint.methods;
            methods.is_empty() || methods.iter().any(|method| method == wanted)
        })
    };
    match method {
        // A tunnel is not a request: answering 200 would hand the connection over.
        "CONNECT" => None,
        "HEAD" => takes("HEAD").or_else(|| takes("GET")),
        "OPTIONS" => takes("OPTIONS").or(routes.first()),
        other => takes(other),
    }
}
