//! The words after `create` and `update`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{
    CreateDriver, CreateDriverType, CreateSchedule, CreateSubscription, SeedImages, UpdateSchedule,
    UpdateSubscription,
};

/// What can be created.
#[derive(Debug, Subcommand)]
pub enum Create {
    /// Create a base image
    #[command(aliases = ["base-images", "baseimage", "baseimages"])]
    BaseImage(CreateBaseImage),
    /// Create an image
    #[command(alias = "images")]
    Image(CreateImage),
    /// Create a function
    #[command(alias = "functions")]
    Function(Box<CreateFunction>),
    /// Create a secret
    #[command(alias = "secrets")]
    Secret(CreateSecret),
    /// Create an API: an endpoint whose paths begin with the organization
    #[command(alias = "apis")]
    Api(CreateEndpoint),
    /// Create an endpoint
    #[command(alias = "endpoints")]
    Endpoint(CreateEndpoint),
    /// Create a schedule: times at which a function is called
    #[command(alias = "schedules")]
    Schedule(CreateSchedule),
    /// Create a subscription: events of some types are delivered to a function or a URL
    #[command(alias = "subscriptions")]
    Subscription(Box<CreateSubscription>),
    /// Create an event driver: a program that brings events in or takes them out
    #[command(name = "eventdriver", aliases = ["eventdrivers", "event-driver", "event-drivers"])]
    EventDriver(Box<CreateDriver>),
    /// Create a type of event drivers
    #[command(name = "eventdrivertype", aliases = ["eventdrivertypes", "event-driver-type", "event-driver-types", "eventdriver-types", "eventdriver-type"])]
    EventDriverType(CreateDriverType),
    /// Create the base images and images to start with
    #[command(alias = "seed")]
    SeedImages(SeedImages),
}

/// What can be updated without a file.
#[derive(Debug, Subcommand)]
pub enum Update {
    /// Update an image: what is not given stays
    #[command(alias = "images")]
    Image(UpdateImage),
    /// Update a function: what is not given stays
    #[command(alias = "functions")]
    Function(Box<UpdateFunction>),
    /// Update a schedule: what is not given stays
    #[command(alias = "schedules")]
    Schedule(UpdateSchedule),
    /// Update a subscription: what is not given stays
    #[command(alias = "subscriptions")]
    Subscription(Box<UpdateSubscription>),
}

/// A base image.
#[derive(Debug, Args)]
pub struct CreateBaseImage {
    /// Its name
    pub name: String,
    /// Reference of the image, such as dispatchframework/python3-base:0.0.13 or
    /// registry.example:5000/team/image:1; oci:PATH for a directory or archive of this machine
    pub url: String,
    /// Language of the functions that run on it
    #[arg(long, default_value = "", hide_default_value = true)]
    pub language: String,
    /// Secret with the username and password for its registry
    #[arg(long, value_name = "SECRET", default_value = "", hide_default_value = true)]
    pub registry_secret: String,
    /// Wait until it can be used
    #[arg(long)]
    pub wait: bool,
    /// Accepted for old scripts.
    #[arg(short, long, hide = true)]
    pub application: Option<String>,
}

/// An image.
#[derive(Debug, Args)]
pub struct CreateImage {
    /// Its name
    pub name: String,
    /// Name of the base image
    pub base_image: String,
    #[command(flatten)]
    pub settings: ImageSettings,
}

/// An image that exists.
#[derive(Debug, Args)]
pub struct UpdateImage {
    /// Its name
    pub name: String,
    /// Name of the base image
    pub base_image: Option<String>,
    #[command(flatten)]
    pub settings: ImageSettings,
}

/// The settings of an image.
#[derive(Debug, Args)]
pub struct ImageSettings {
    /// File with packages of the language: requirements.txt, package.json, ...
    #[arg(long, value_name = "FILE")]
    pub runtime_deps: Option<PathBuf>,
    /// JSON file with packages of the system: {"packages": [{"name": ..., "version": ...}]}
    #[arg(long, value_name = "FILE")]
    pub system_deps: Option<PathBuf>,
    /// Secret that only the installer of the packages learns, such as how to get at a private index
    #[arg(long, value_name = "SECRET")]
    pub build_secret: Vec<String>,
    /// Application it belongs to
    #[arg(short, long, value_name = "NAME")]
    pub application: Option<String>,
    /// Wait until it is built
    #[arg(long)]
    pub wait: bool,
}

/// A function.
#[derive(Debug, Args)]
pub struct CreateFunction {
    /// Its name
    pub name: String,
    /// File or directory with the source; .git is left out. Not for an image that serves by itself
    pub path: Option<PathBuf>,
    #[command(flatten)]
    pub settings: FunctionSettings,
}

/// A function that exists.
#[derive(Debug, Args)]
pub struct UpdateFunction {
    /// Its name
    pub name: String,
    /// File or directory with the new source; without it the source stays
    pub path: Option<PathBuf>,
    #[command(flatten)]
    pub settings: FunctionSettings,
}

/// The settings of a function.
#[derive(Debug, Args)]
pub struct FunctionSettings {
    /// Name of the image it runs on
    #[arg(long)]
    pub image: Option<String>,
    /// What to call in the source, such as hello.handle; a directory needs one
    #[arg(long)]
    pub handler: Option<String>,
    /// File with the JSON Schema of the input
    #[arg(long, value_name = "FILE")]
    pub schema_in: Option<PathBuf>,
    /// File with the JSON Schema of the output
    #[arg(long, value_name = "FILE")]
    pub schema_out: Option<PathBuf>,
    /// Name of a secret; can be repeated
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub secret: Vec<String>,
    /// Name of a service instance; can be repeated
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub service: Vec<String>,
    /// Milliseconds a run may take
    #[arg(long, value_name = "MS")]
    pub timeout: Option<i64>,
    /// Memory of a worker, in MiB
    #[arg(long, value_name = "MIB")]
    pub memory: Option<i64>,
    /// Processor time of a worker, in thousandths of a core
    #[arg(long, value_name = "MILLICORES")]
    pub cpu: Option<i64>,
    /// Calls a worker takes at a time
    #[arg(long, value_name = "N")]
    pub concurrency: Option<i64>,
    /// Workers that are kept ready
    #[arg(long, value_name = "N")]
    pub min_scale: Option<i64>,
    /// When to keep more ready, such as "5 mon-fri 08:00-18:00 Europe/Berlin"; can be repeated, and
    /// an empty one removes all
    #[arg(long, value_name = "WHEN")]
    pub schedule: Vec<String>,
    /// The most workers
    #[arg(long, value_name = "N")]
    pub max_scale: Option<i64>,
    /// Fork workers from a process that has loaded the source; --preload=false undoes it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub preload: Option<bool>,
    /// Environment variable of the workers; can be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// What workers may reach on the network
    #[arg(long)]
    pub egress: Option<Egress>,
    /// The only destination that workers may reach: a name, *.name, an address or a range; can be
    /// repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    pub allow: Vec<String>,
    /// A port of the workers' own 127.0.0.1 that leads to another place; can be repeated
    #[arg(long, value_name = "PORT=HOST:PORT")]
    pub link: Vec<String>,
    /// Further tries of a failed run that nobody waits for
    #[arg(long, value_name = "N")]
    pub retries: Option<i64>,
    /// Milliseconds before the first further try; doubled for each one after it
    #[arg(long, value_name = "MS")]
    pub retry_backoff: Option<i64>,
    /// Application it belongs to
    #[arg(short, long, value_name = "NAME")]
    pub application: Option<String>,
    /// Wait until it can be called
    #[arg(long)]
    pub wait: bool,
}

/// What a worker may reach.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Egress {
    /// Nothing.
    None,
    /// What a proxy lets through: the public internet, or what --allow lists.
    Proxy,
    /// The same without a list, and all that is reached is noted.
    Learn,
    /// The internet itself.
    Full,
}

/// A secret.
#[derive(Debug, Args)]
pub struct CreateSecret {
    /// Its name
    pub name: String,
    /// JSON file with the values: {"key": "value"}; "" for none
    pub file: String,
    /// Application it belongs to
    #[arg(short, long, value_name = "NAME")]
    pub application: Option<String>,
}

/// An API or an endpoint.
#[derive(Debug, Args)]
pub struct CreateEndpoint {
    /// Its name
    pub name: String,
    /// Name of the function it calls
    pub function: String,
    /// Host name it answers to; can be repeated
    #[arg(short, long, value_delimiter = ',', value_name = "HOST")]
    pub domain: Vec<String>,
    /// Path it answers to; can be repeated
    #[arg(short, long, value_delimiter = ',', default_value = "/")]
    pub path: Vec<String>,
    /// HTTP method it answers to; can be repeated
    #[arg(short, long, value_delimiter = ',', default_value = "GET")]
    pub method: Vec<String>,
    /// Answer to https only
    #[arg(long)]
    pub https_only: bool,
    /// Create it switched off
    #[arg(long)]
    pub disable: bool,
    /// Let browsers of other origins call it
    #[arg(long)]
    pub cors: bool,
    /// Who may call it
    #[arg(long, default_value = "public")]
    pub auth: String,
    /// Application it belongs to
    #[arg(short, long, value_name = "NAME")]
    pub application: Option<String>,
}
