//! The words about events: subscriptions, events, deliveries.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use dispatch_api::DeliveryState;

/// A subscription.
#[derive(Debug, Args)]
pub struct CreateSubscription {
    /// Name of the function that is called with each event; see --uri
    #[arg(required_unless_present = "uri", conflicts_with = "uri")]
    pub function: Option<String>,
    /// Its name; default: two words and a number
    #[arg(long, default_value = "", hide_default_value = true)]
    pub name: String,
    #[command(flatten)]
    pub settings: SubscriptionSettings,
}

/// A subscription that exists.
#[derive(Debug, Args)]
pub struct UpdateSubscription {
    /// Its name
    pub name: String,
    /// Name of the function that is called with each event
    #[arg(conflicts_with = "uri")]
    pub function: Option<String>,
    #[command(flatten)]
    pub settings: SubscriptionSettings,
    /// Go on after --paused
    #[arg(long, conflicts_with = "paused")]
    pub resume: bool,
}

/// The settings of a subscription.
#[derive(Debug, Args)]
pub struct SubscriptionSettings {
    /// Type of the events: order.made, order.* for all types below order, or *
    #[arg(long, value_name = "TYPE")]
    pub event_type: Option<String>,
    /// In place of a function: the URL that each event is posted to
    #[arg(long, value_name = "URL")]
    pub uri: Option<String>,
    #[command(flatten)]
    pub filters: Filters,
    /// Name of a secret for the function; can be repeated
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub secret: Vec<String>,
    /// Tries of a delivery in all; default: 8
    #[arg(long, value_name = "N")]
    pub retry_attempts: Option<i64>,
    /// Milliseconds before the second try, doubled before each further one; default: 1000
    #[arg(long, value_name = "MS")]
    pub retry_backoff: Option<i64>,
    /// The longest pause between two tries, in milliseconds; default: 300000
    #[arg(long, value_name = "MS")]
    pub retry_max_backoff: Option<i64>,
    /// Milliseconds that a URL may take to answer; default: 30000. A function has its own timeout
    #[arg(long, value_name = "MS")]
    pub timeout: Option<i64>,
    /// Deliveries at the same time; default: 16
    #[arg(long, value_name = "N")]
    pub concurrency: Option<i64>,
    /// An attribute, such as subject: events with the same value of it are delivered one after the
    /// other, in their order; an empty one removes it
    #[arg(long, value_name = "ATTRIBUTE")]
    pub ordering_key: Option<String>,
    /// The most events of one call; more than 1 makes the payload a list
    #[arg(long, value_name = "N")]
    pub batch: Option<i64>,
    /// Where events go whose deliveries failed for good; an empty one removes it
    #[arg(long, value_name = "FUNCTION|URL")]
    pub dead_letter: Option<String>,
    /// Type of the event that the function's result becomes; an empty one removes it
    #[arg(long, value_name = "TYPE")]
    pub reply_type: Option<String>,
    /// Source of that event; default: /ORGANIZATION/subscription/NAME
    #[arg(long, value_name = "SOURCE")]
    pub reply_source: Option<String>,
    /// Let deliveries wait
    #[arg(long)]
    pub paused: bool,
    /// Application it belongs to
    #[arg(short, long, value_name = "NAME")]
    pub application: Option<String>,
}

/// Which events are meant: those that fit all of these.
#[derive(Debug, Args)]
pub struct Filters {
    /// Only events that this filter of the CloudEvents Subscriptions API fits, such as {"not":
    /// {"suffix": {"type": ".test"}}}; can be repeated, and an empty one removes all
    #[arg(long, value_name = "JSON")]
    pub filter: Vec<String>,
    /// Only events with this value of an attribute; can be repeated
    #[arg(long, value_name = "ATTRIBUTE=VALUE")]
    pub exact: Vec<String>,
    /// Only events whose attribute begins so; can be repeated
    #[arg(long, value_name = "ATTRIBUTE=VALUE")]
    pub prefix: Vec<String>,
    /// Only events whose attribute ends so; can be repeated
    #[arg(long, value_name = "ATTRIBUTE=VALUE")]
    pub suffix: Vec<String>,
    /// Only events for which this expression of CloudEvents SQL is true; can be repeated
    #[arg(long, value_name = "EXPRESSION")]
    pub sql: Vec<String>,
}

/// An event, or several from a file.
#[derive(Debug, Args)]
pub struct Emit {
    /// Type of the event, such as order.made
    #[arg(required_unless_present = "batch_file", conflicts_with = "batch_file")]
    pub event_type: Option<String>,
    /// What it carries
    #[arg(long, value_name = "JSON")]
    pub data: Option<String>,
    /// File with what it carries, - for standard input: JSON, text or anything else
    #[arg(long, value_name = "FILE")]
    pub data_from_file: Option<String>,
    /// Media type of the file; default: found out from what is in it
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// Send the file as bytes, whatever is in it
    #[arg(long)]
    pub binary: bool,
    /// Where the event comes from
    #[arg(long, alias = "source", default_value = "dispatch", value_name = "SOURCE")]
    pub source_id: String,
    /// Its id. An event with the source and the id of an earlier one is not delivered again;
    /// default: a new UUID
    #[arg(long, value_name = "ID")]
    pub event_id: Option<String>,
    /// Version of its type, in events of 0.1
    #[arg(long, value_name = "VERSION")]
    pub event_type_version: Option<String>,
    /// URL of the schema of what it carries
    #[arg(long, value_name = "URL")]
    pub event_schema_url: Option<String>,
    /// Version of CloudEvents; default: 0.1, and 1.0 with --subject
    #[arg(long, value_name = "VERSION")]
    pub spec_version: Option<Spec>,
    /// What in the source it is about
    #[arg(long)]
    pub subject: Option<String>,
    /// A further attribute; can be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub extension: Vec<String>,
    /// Instead of one event those of this file, - for standard input: events as JSON, in lists or
    /// one after the other
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "data_from_file", "content_type",
        "binary", "source_id", "event_id", "event_type_version", "event_schema_url", "spec_version",
        "subject", "extension"])]
    pub batch_file: Option<String>,
}

/// Versions of CloudEvents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Spec {
    /// That of the old system.
    #[value(name = "0.1")]
    V0_1,
    /// The current one.
    #[value(name = "1.0")]
    V1_0,
}

/// Subscriptions.
#[derive(Debug, Args)]
pub struct GetSubscription {
    #[command(flatten)]
    pub named: super::GetNamed,
    /// Show how far it is: what waits, what was delivered, what failed and why
    #[arg(long, requires = "name", conflicts_with = "watch")]
    pub progress: bool,
}

/// Events of the log.
#[derive(Debug, Args)]
pub struct GetEvent {
    /// Only of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,
    /// At most this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: Option<u32>,
}

/// Deliveries.
#[derive(Debug, Args)]
pub struct GetDelivery {
    /// Id of the only delivery to show
    #[arg(conflicts_with_all = ["subscription", "state", "limit"])]
    pub id: Option<String>,
    /// Only those of this subscription
    #[arg(long, value_name = "NAME")]
    pub subscription: Option<String>,
    /// Only those in this state
    #[arg(long, value_parser = state(), ignore_case = true)]
    pub state: Option<DeliveryState>,
    /// At most this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: Option<u32>,
}

fn state() -> impl TypedValueParser<Value = DeliveryState> {
    PossibleValuesParser::new(DeliveryState::ALL.map(DeliveryState::as_str))
        .map(|word| DeliveryState::parse(&word).unwrap_or_default())
}

/// A dead delivery, or all of a subscription.
#[derive(Debug, Args)]
pub struct RedriveDelivery {
    /// The delivery's id
    #[arg(required_unless_present = "subscription", conflicts_with = "subscription")]
    pub id: Option<String>,
    /// All dead deliveries of this subscription
    #[arg(long, value_name = "NAME")]
    pub subscription: Option<String>,
}

/// Events of the log for a subscription once more.
#[derive(Debug, Args)]
pub struct Replay {
    /// Name of the subscription
    #[arg(long, value_name = "NAME")]
    pub subscription: String,
    /// Only events that were accepted since then: 2026-01-31T08:00:00Z, or so long ago: 90min, 2d
    #[arg(long, value_name = "TIME")]
    pub since: String,
    /// Only events that were accepted before then; default: now
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    #[command(flatten)]
    pub filters: Filters,
    /// Only count
    #[arg(long)]
    pub dry_run: bool,
}
