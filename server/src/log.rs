//! Logs: text on a terminal, JSON otherwise.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Sends the logs of this process to standard error.
///
/// # Errors
/// The configured filter is not one.
pub fn init(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log_level).with_context(|| {
        format!("--log-level {:?}: use error, warn, info, debug or trace", config.log_level)
    })?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = match config.log_format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    // A second server in one process, as in tests, keeps the first one's.
    let _ = if json {
        builder.json().flatten_event(true).with_current_span(true).try_init()
    } else {
        let colour = terminal && std::env::var_os("NO_COLOR").is_none();
        builder.with_ansi(colour).with_target(false).try_init()
    };
    Ok(())
}
