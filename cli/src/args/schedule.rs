//! The words about schedules.

use clap::{Args, ValueEnum};

/// A schedule.
#[derive(Debug, Args)]
pub struct CreateSchedule {
    /// Its name
    pub name: String,
    /// Name of the function it calls, which need not exist yet
    pub function: String,
    #[command(flatten)]
    pub settings: ScheduleSettings,
}

/// A schedule that exists.
#[derive(Debug, Args)]
pub struct UpdateSchedule {
    /// Its name
    pub name: String,
    /// Name of the function it calls
    pub function: Option<String>,
    #[command(flatten)]
    pub settings: ScheduleSettings,
    /// Go on after --paused; what passed meanwhile is not missed
    #[arg(long, conflicts_with = "paused")]
    pub resume: bool,
}

/// The settings of a schedule.
#[derive(Debug, Args)]
pub struct ScheduleSettings {
    /// When it ticks: "minute hour day month weekday", such as "*/5 8-18 * * mon-fri", seconds may
    /// stand before; or @hourly, @daily, @weekly, @monthly, @yearly
    #[arg(long, value_name = "EXPRESSION", allow_hyphen_values = true)]
    pub cron: Option<String>,
    /// The one time at which it ticks: 2026-12-24T18:00 in its time zone, or with Z or an offset
    #[arg(long, value_name = "TIME", conflicts_with = "cron")]
    pub at: Option<String>,
    /// Time zone, such as Europe/Berlin; default: UTC
    #[arg(long, alias = "timezone", value_name = "ZONE")]
    pub tz: Option<String>,
    /// Payload of the calls: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON")]
    pub input: Option<String>,
    /// Name of a secret; can be repeated
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub secret: Vec<String>,
    /// What happens to ticks at which the server or the function was not there; default: once
    #[arg(long)]
    pub missed: Option<Missed>,
    /// Let it stand still
    #[arg(long)]
    pub paused: bool,
    /// Application it belongs to
    #[arg(short, long, value_name = "NAME")]
    pub application: Option<String>,
}

/// What happens to missed ticks.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Missed {
    /// One call for the last of them.
    Once,
    /// No call, unless the last is less than a minute late.
    Skip,
    /// A call for each of the last 100.
    All,
}
