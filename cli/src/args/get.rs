//! The words after `get`.

use clap::{Args, Subcommand, ValueEnum};

use super::{GetDelivery, GetEvent, GetSubscription};

/// What can be shown.
#[derive(Debug, Subcommand)]
pub enum Get {
    /// Base images
    #[command(aliases = ["base-images", "baseimage", "baseimages"])]
    BaseImage(GetBuilt),
    /// Images
    #[command(alias = "images")]
    Image(GetImage),
    /// Functions
    #[command(alias = "functions")]
    Function(GetFunction),
    /// Runs of functions, or one run
    #[command(alias = "runs")]
    Run(GetRun),
    /// Secrets
    #[command(alias = "secrets")]
    Secret(GetSecret),
    /// APIs: endpoints whose paths begin with the organization
    #[command(alias = "apis")]
    Api(GetEndpoint),
    /// Endpoints
    #[command(alias = "endpoints")]
    Endpoint(GetEndpoint),
    /// Schedules
    #[command(alias = "schedules")]
    Schedule(GetNamed),
    /// Subscriptions
    #[command(alias = "subscriptions")]
    Subscription(GetSubscription),
    /// Event drivers
    #[command(name = "eventdriver", aliases = ["eventdrivers", "event-driver", "event-drivers"])]
    EventDriver(GetNamed),
    /// Types of event drivers
    #[command(name = "eventdrivertype", aliases = ["eventdrivertypes", "event-driver-type", "event-driver-types", "eventdriver-types", "eventdriver-type"])]
    EventDriverType(GetNamed),
    /// Events that were accepted, the newest first
    #[command(alias = "events")]
    Event(GetEvent),
    /// Deliveries of events to subscriptions, the newest first, or one delivery
    #[command(alias = "deliveries")]
    Delivery(GetDelivery),
}

/// One resource, or all.
#[derive(Debug, Args)]
pub struct GetNamed {
    /// Name of the only one to show
    pub name: Option<String>,
    /// Go on and show what changes
    #[arg(short, long)]
    pub watch: bool,
    /// Accepted for old scripts.
    #[arg(short, long, hide = true)]
    pub application: Option<String>,
}

/// Images.
#[derive(Debug, Args)]
pub struct GetImage {
    #[command(flatten)]
    pub built: GetBuilt,
    /// Show what packages are in it, as a bill of materials in JSON
    #[arg(long, requires = "name", conflicts_with_all = ["watch", "logs"])]
    pub sbom: bool,
    /// With --sbom: its form
    #[arg(long, value_name = "FORM", requires = "sbom", default_value = "cyclonedx")]
    pub sbom_format: SbomFormat,
}

/// The forms of a bill of materials.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SbomFormat {
    /// CycloneDX 1.6.
    Cyclonedx,
    /// SPDX 2.3.
    Spdx,
}

/// Images and base images.
#[derive(Debug, Args)]
pub struct GetBuilt {
    #[command(flatten)]
    pub named: GetNamed,
    /// Show the log of its build
    #[arg(long, requires = "name", conflicts_with = "watch")]
    pub logs: bool,
    /// With --logs: go on until the build has ended
    #[arg(short, long, requires = "logs")]
    pub follow: bool,
}

/// Functions.
#[derive(Debug, Args)]
pub struct GetFunction {
    #[command(flatten)]
    pub named: GetNamed,
    /// Show the function's revisions
    #[arg(long, requires = "name", conflicts_with = "watch")]
    pub revisions: bool,
    /// Show what it may reach on the network, what it reached, and the policy that allows just that
    #[arg(long, requires = "name", conflicts_with_all = ["watch", "revisions"])]
    pub egress: bool,
    /// Show how many workers it has now, and why
    #[arg(long, requires = "name", conflicts_with_all = ["watch", "revisions", "egress"])]
    pub scale: bool,
}

/// Secrets.
#[derive(Debug, Args)]
pub struct GetSecret {
    #[command(flatten)]
    pub named: GetNamed,
    /// Show the values, as JSON
    #[arg(long)]
    pub all: bool,
}

/// Endpoints.
#[derive(Debug, Args)]
pub struct GetEndpoint {
    #[command(flatten)]
    pub named: GetNamed,
    /// Only routes to this function
    #[arg(short, long = "func", value_name = "FUNCTION")]
    pub function: Option<String>,
}

/// Runs.
#[derive(Debug, Args)]
pub struct GetRun {
    /// Only runs of this function
    pub function: Option<String>,
    /// Id of the only run to show
    pub id: Option<String>,
    /// Only the newest run
    #[arg(long)]
    pub last: bool,
    /// Order of the runs; times are descending
    #[arg(long, default_value = "started")]
    pub by: By,
    /// Only runs in this status, such as READY or ERROR
    #[arg(long)]
    pub status: Option<String>,
    /// Only runs whose last try failed
    #[arg(long)]
    pub dead: bool,
    /// At most this many, the newest first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: Option<u32>,
    /// Go on and show runs that start or change
    #[arg(short, long, visible_short_alias = 'w', visible_alias = "watch")]
    pub follow: bool,
    /// Accepted for old scripts.
    #[arg(short, long, hide = true)]
    pub application: Option<String>,
}

/// Orders of runs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum By {
    /// The function's name.
    Function,
    /// The status.
    Status,
    /// The start, the newest first.
    Started,
    /// The end, the newest first.
    Finished,
}
