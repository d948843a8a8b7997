//! `dispatch create subscription` and `dispatch update subscription`, and the filters of both.

use dispatch_api::Subscription;
use dispatch_api::subscription::{Reply, Target};
use serde_json::{Value, json};

use super::create::{retag, set};
use crate::args::{CreateSubscription, Filters, SubscriptionSettings, UpdateSubscription};
use crate::error::{Error, Result};
use crate::names;

/// A new subscription.
///
/// # Errors
/// A filter that is none.
pub fn new(args: CreateSubscription) -> Result<Subscription> {
    let name = if args.name.is_empty() { names::generate() } else { args.name };
    let mut subscription = Subscription { name, ..Subscription::default() };
    settle(&mut subscription, args.function, args.settings)?;
    Ok(subscription)
}

/// Puts what was given into a subscription.
///
/// # Errors
/// A filter that is none.
pub fn change(subscription: &mut Subscription, args: UpdateSubscription) -> Result {
    if args.resume {
        subscription.paused = false;
    }
    settle(subscription, args.function, args.settings)
}

fn settle(
    subscription: &mut Subscription,
    function: Option<String>,
    settings: SubscriptionSettings,
) -> Result {
    if function.is_some() || settings.uri.is_some() {
        subscription.function = function.unwrap_or_default();
        subscription.uri = settings.uri.unwrap_or_default();
    }
    set(&mut subscription.event_type, settings.event_type);
    if let Some(filters) = settings.filters.read()? {
        subscription.filters = filters;
    }
    set(&mut subscription.secrets, Some(settings.secret).filter(|list| !list.is_empty()));
    let retry = [
        settings.retry_attempts,
        settings.retry_backoff,
        settings.retry_max_backoff,
        settings.timeout,
    ];
    if retry.iter().any(Option::is_some) {
        let [attempts, backoff, max_backoff, timeout] = retry;
        let retry = subscription.retry.get_or_insert_default();
        set(&mut retry.attempts, attempts);
        set(&mut retry.backoff, backoff);
        set(&mut retry.max_backoff, max_backoff);
        set(&mut retry.timeout, timeout);
    }
    set(&mut subscription.concurrency, settings.concurrency);
    set(&mut subscription.ordering_key, settings.ordering_key);
    set(&mut subscription.batch, settings.batch);
    if let Some(text) = settings.dead_letter {
        subscription.dead_letter = target(text);
    }
    reply(&mut subscription.reply, settings.reply_type, settings.reply_source)?;
    subscription.paused |= settings.paused;
    retag(&mut subscription.tags, settings.application);
    Ok(())
}

fn target(text: String) -> Option<Target> {
    match text.contains("://") {
        _ if text.is_empty() => None,
        true => Some(Target { uri: text, ..Target::default() }),
        false => Some(Target { function: text, ..Target::default() }),
    }
}

fn reply(reply: &mut Option<Reply>, event_type: Option<String>, source: Option<String>) -> Result {
    match event_type {
        Some(none) if none.is_empty() => *reply = None,
        Some(event_type) => reply.get_or_insert_default().event_type = event_type,
        None => {}
    }
    match (reply, source) {
        (Some(reply), Some(source)) => reply.source = source,
        (None, Some(_)) => return Err(Error::local("--reply-source goes with --reply-type")),
        (_, None) => {}
    }
    Ok(())
}

impl Filters {
    /// The filters, if there are some; an empty one stands for none.
    ///
    /// # Errors
    /// What is no JSON, or no `ATTRIBUTE=VALUE`.
    pub fn read(self) -> Result<Option<Vec<Value>>> {
        let mut filters = Vec::new();
        let mut given = false;
        for text in self.filter {
            given = true;
            if !text.is_empty() {
                let filter: Value = serde_json::from_str(&text).map_err(|error| {
                    Error::local(format!("invalid argument {text:?} for \"--filter\": {error}"))
                })?;
                filters.push(filter);
            }
        }
        for (dialect, pairs) in
            [("exact", self.exact), ("prefix", self.prefix), ("suffix", self.suffix)]
        {
            for text in pairs {
                let (key, value) = text.split_once('=').ok_or_else(|| {
                    Error::local(format!(
                        "invalid argument {text:?} for \"--{dialect}\": use ATTRIBUTE=VALUE"
                    ))
                })?;
                filters.push(json!({ dialect: { key: value } }));
            }
        }
        filters.extend(self.sql.into_iter().map(|text| json!({ "sql": text })));
        Ok((given || !filters.is_empty()).then_some(filters))
    }
}
