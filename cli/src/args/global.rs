//! Flags of every command.

use clap::{Args, ValueEnum};

/// Flags of every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Configuration file to use
    #[arg(
        long,
        global = true,
        env = "DISPATCH_CONFIG",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub config: Option<String>,
    /// Host of the server [default: localhost]
    #[arg(long, global = true, env = "DISPATCH_HOST", hide_env_values = true)]
    pub host: Option<String>,
    /// Port of the server [default: 443]
    #[arg(long, global = true, env = "DISPATCH_PORT", value_parser = port, hide_env_values = true)]
    pub port: Option<u16>,
    /// Protocol of the server: http or https [default: https]
    #[arg(long, global = true, env = "DISPATCH_SCHEME", hide_env_values = true)]
    pub scheme: Option<String>,
    /// Organization to work in
    #[arg(long, global = true, env = "DISPATCH_ORGANIZATION", hide_env_values = true)]
    pub organization: Option<String>,
    /// Project to work in
    #[arg(long, global = true, env = "DISPATCH_PROJECT", hide_env_values = true)]
    pub project: Option<String>,
    /// Accept any certificate of the server
    #[arg(long, global = true, env = "DISPATCH_INSECURE", value_parser = boolean,
        num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", hide_env_values = true)]
    pub insecure: Option<bool>,
    /// Bearer token to authenticate with
    #[arg(long, global = true, env = "DISPATCH_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Service account to authenticate as: NAME or ORGANIZATION/NAME
    #[arg(
        long,
        global = true,
        env = "DISPATCH_SERVICE_ACCOUNT",
        value_name = "NAME",
        hide_env_values = true
    )]
    pub service_account: Option<String>,
    /// Private key (PEM) of the service account
    #[arg(
        long,
        global = true,
        env = "DISPATCH_JWT_PRIVATE_KEY",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub jwt_private_key: Option<String>,
    /// Form of the output
    #[arg(
        short,
        long,
        global = true,
        env = "DISPATCH_OUTPUT",
        value_name = "FORMAT",
        hide_env_values = true
    )]
    pub output: Option<Format>,
    /// The same as --output json
    #[arg(long, global = true, env = "DISPATCH_JSON", hide = true, value_parser = boolean,
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub json: Option<bool>,
}

/// Forms of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table, or a message.
    #[default]
    #[value(alias = "")]
    Table,
    /// JSON, indented by four blanks.
    Json,
    /// YAML, with keys in lower case.
    Yaml,
    /// Names alone, one a line.
    Name,
}

/// An empty value, as scripts leave in the environment, is 0: not set.
fn port(text: &str) -> Result<u16, String> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| "use a number from 1 to 65535".to_owned())
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "y" | "yes" | "on" => Ok(true),
        "" | "0" | "f" | "false" | "n" | "no" | "off" => Ok(false),
        _ => Err("use true or false".to_owned()),
    }
}
