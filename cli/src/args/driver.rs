//! The words about event drivers and their types.

use clap::{Args, Subcommand};

/// An event driver.
#[derive(Debug, Args)]
pub struct CreateDriver {
    /// Its type (see `dispatch get eventdrivertypes`)
    #[arg(value_name = "TYPE")]
    pub driver_type: String,
    /// Its name; made up where it is not given
    #[arg(long, default_value = "", hide_default_value = true)]
    pub name: String,
    #[command(flatten)]
    pub set: Set,
    /// Secret whose keys become variables of its environment (can be repeated)
    #[arg(long)]
    pub secret: Vec<String>,
    /// MiB of memory it may use
    #[arg(long, value_name = "MIB")]
    pub memory: Option<i64>,
    /// Thousandths of a core it may use
    #[arg(long, value_name = "MILLIS")]
    pub cpu: Option<i64>,
    /// The only destination it may reach through the proxy, HOST[:PORT] (can be repeated)
    #[arg(long, value_name = "DESTINATION")]
    pub allow: Vec<String>,
    /// Port of its own 127.0.0.1 that leads to a place, PORT=HOST:PORT (can be repeated)
    #[arg(long)]
    pub link: Vec<String>,
    /// Application it belongs to
    #[arg(short, long)]
    pub application: Option<String>,
}

/// Settings of a driver or a type.
#[derive(Debug, Default, Args)]
pub struct Set {
    /// Setting of the driver, KEY=VALUE or KEY (can be repeated)
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub set: Vec<String>,
}

/// A type of event drivers.
#[derive(Debug, Args)]
pub struct CreateDriverType {
    /// Its name
    pub name: String,
    /// Its container image, oci:DIRECTORY or oci:FILE for one in files, or builtin:NAME
    pub image: String,
    /// Let strangers send requests to its drivers, through the gateway
    #[arg(long)]
    pub expose: bool,
    #[command(flatten)]
    pub set: Set,
    /// Secret with the username and password for its registry
    #[arg(long, value_name = "SECRET", default_value = "", hide_default_value = true)]
    pub registry_secret: String,
    /// Application it belongs to
    #[arg(short, long)]
    pub application: Option<String>,
}

/// What has a log.
#[derive(Debug, Subcommand)]
pub enum Log {
    /// The log of an event driver
    #[command(aliases = ["drivers", "eventdriver", "event-driver"])]
    Driver {
        /// Its name
        name: String,
        /// Go on as it grows
        #[arg(short, long)]
        follow: bool,
    },
}
