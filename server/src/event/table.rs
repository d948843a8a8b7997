//! The subscriptions of an organization, ready to be asked about events.

use std::collections::HashMap;
use std::sync::Arc;

use dispatch_api::filter::{self, Compiled, FilterError, TypePattern};
use dispatch_api::{CloudEvent, Subscription as Resource};

/// A subscription as events see it.
#[derive(Debug)]
pub struct Subscription {
    /// UUID of the entity.
    pub id: String,
    /// The organization it belongs to.
    pub org: String,
    /// What its owner wants.
    pub resource: Resource,
    filter: Compiled,
}

impl Subscription {
    /// Compiles the filters of a stored subscription.
    ///
    /// # Errors
    /// Filters that are none; they were checked when they were accepted.
    pub fn new(id: &str, org: &str, resource: Resource) -> Result<Subscription, FilterError> {
        let filter = compile(&resource)?;
        Ok(Subscription { id: id.to_owned(), org: org.to_owned(), resource, filter })
    }

    /// Whether it wants an event.
    pub fn wants(&self, event: &CloudEvent) -> bool {
        self.filter.matches(event)
    }

    /// Its id, and what orders its deliveries of this event.
    pub fn delivery_of(&self, event: &CloudEvent) -> (String, String) {
        let key = self.resource.ordering_key.as_str();
        let ordering = if key.is_empty() { None } else { event.attribute(key) };
        (self.id.clone(), ordering.unwrap_or_default().into_owned())
    }
}

/// The filter of a subscription.
///
/// # Errors
/// The first place in it that is wrong.
pub fn compile(resource: &Resource) -> Result<Compiled, FilterError> {
    filter::compile(&resource.event_type, &filter::read(&resource.filters)?)
}

/// All subscriptions of one organization. Most ask for one type, and are found by it.
#[derive(Debug, Default)]
pub struct Table {
    exact: HashMap<String, Vec<Arc<Subscription>>>,
    others: Vec<Arc<Subscription>>,
}

impl Table {
    /// The table of these subscriptions.
    pub fn new(subscriptions: impl IntoIterator<Item = Arc<Subscription>>) -> Table {
        let mut table = Table::default();
        for subscription in subscriptions {
            match subscription.filter.pattern() {
                TypePattern::Exact(event_type) => {
                    table.exact.entry(event_type.clone()).or_default().push(subscription);
                }
                _ => table.others.push(subscription),
            }
        }
        table
    }

    /// Those that want an event.
    pub fn matching(&self, event: &CloudEvent) -> Vec<Arc<Subscription>> {
        let exact = self.exact.get(&event.event_type).into_iter().flatten();
        let wanted = exact.chain(&self.others).filter(|subscription| subscription.wants(event));
        wanted.map(Arc::clone).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(name: &str, event_type: &str, filters: &str) -> Arc<Subscription> {
        let resource = Resource {
            name: name.to_owned(),
            event_type: event_type.to_owned(),
            filters: serde_json::from_str(filters).expect("JSON"),
            ordering_key: "subject".to_owned(),
            ..Resource::default()
        };
        Arc::new(Subscription::new(name, "o", resource).expect("a subscription"))
    }

    #[test]
    fn every_subscription_that_fits_is_found_once() {
        let table = Table::new([
            subscription("exact", "order.made", "[]"),
            subscription("below", "order.*", "[]"),
            subscription("all", "*", "[]"),
            subscription("filtered", "", r#"[{"suffix":{"type":".made"}}]"#),
            subscription("other", "order.gone", "[]"),
        ]);
        let names = |event_type: &str| {
            let event = CloudEvent { event_type: event_type.to_owned(), ..CloudEvent::default() };
            let found = table.matching(&event);
            let mut names: Vec<_> = found.iter().map(|it| it.resource.name.clone()).collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(names("order.made"), "all below exact filtered");
        assert_eq!(names("car.made"), "all filtered");
        assert_eq!(names("order"), "all");
    }

    #[test]
    fn the_ordering_key_is_an_attribute_or_nothing() {
        let subscription = subscription("s", "*", "[]");
        let mut event = CloudEvent::default();
        assert_eq!(subscription.delivery_of(&event), ("s".to_owned(), String::new()));
        event.subject = Some("42".to_owned());
        assert_eq!(subscription.delivery_of(&event), ("s".to_owned(), "42".to_owned()));
    }
}
