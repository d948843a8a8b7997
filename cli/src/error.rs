//! What a command says when it fails.

use std::io;

use dispatch_api::client;

/// Why a command failed. The exit code is 1.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused, or could not be asked.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// Something on this side is wrong; the text for the user.
    #[error("{0}")]
    Local(String),
    /// All has been said.
    #[error("")]
    Silent,
    /// Whoever read the output has gone. Not a failure.
    #[error("")]
    Pipe,
}

/// The result of a command.
pub type Result<T = ()> = std::result::Result<T, Error>;

impl Error {
    /// A failure on this side.
    pub fn local(text: impl Into<String>) -> Error {
        Error::Local(text.into())
    }

    /// Whether the server says that something does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Client(client::Error::Api(problem, _)) if problem.code == 404)
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        let contains = |text: &str, words: &[&str]| words.iter().any(|word| text.contains(word));
        match self {
            Error::Client(client::Error::Api(problem, 401)) if problem.code == 401 => {
                Some("Say who you are with --token, or --service-account and --jwt-private-key.")
            }
            Error::Client(client::Error::Transport(text)) => {
                if contains(text, &["refused"]) {
                    Some("Is the server running? Start it with: dispatch up")
                } else if contains(text, &["certificate", "UnknownIssuer"]) {
                    Some("To accept any certificate of a server you trust: --insecure")
                } else if contains(text, &["corrupt message", "InvalidContentType"]) {
                    Some("The server does not seem to speak https: try --scheme http")
                } else if contains(text, &["lookup address", "Name or service not known"]) {
                    Some("Is the host right? See: dispatch context current")
                } else {
                    None
                }
            }
            _ => None,
        }
    }
}

/// The cause of a failed file operation, in the words that scripts know:
/// `open x.yaml: no such file or directory`.
pub fn file_cause(operation: &str, path: &str, error: &io::Error) -> String {
    let cause = match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    };
    format!("{operation} {path}: {cause}")
}
