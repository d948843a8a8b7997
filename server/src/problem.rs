//! From what went wrong to an HTTP answer. Every status of the control plane is decided here.
//!
//! Rules of a resource answer an [`Error`] made by one of the functions below, with a text for the
//! caller. Whatever else fails becomes [`Error::internal`]: logged once, here, and answered without
//! details.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dispatch_api::{Invalid, Kind, Problem, wire};

use crate::store;

/// An answer other than success.
#[derive(Debug)]
pub struct Error {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body.
    pub problem: Problem,
    /// When a new try makes sense.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// An answer whose body carries the status as its code.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Error {
        let problem = Problem::new(i64::from(status.as_u16()), message);
        Error { status, problem, retry_after: None }
    }

    /// Names the page in `docs/errors/`.
    #[must_use]
    pub fn page(mut self, page: &str) -> Error {
        self.problem.error = Some(page.to_owned());
        self
    }

    /// 400 with this text.
    pub fn bad_request(message: impl Into<String>) -> Error {
        Error::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404 `function hello not found`.
    pub fn not_found(noun: &str, name: &str) -> Error {
        Error::new(StatusCode::NOT_FOUND, format!("{noun} {name} not found"))
    }

    /// 409 `function hello already exists`.
    pub fn exists(kind: Kind, name: &str) -> Error {
        Error::new(StatusCode::CONFLICT, format!("{} {name} already exists", kind.noun()))
    }

    /// 500 without details; the cause is logged.
    pub fn internal(what: &str, cause: &(dyn std::fmt::Display + Send + Sync)) -> Error {
        tracing::error!(error = %cause, "{what}");
        Error::new(StatusCode::INTERNAL_SERVER_ERROR, what)
    }

    /// What the store said about a resource.
    pub fn store(kind: Kind, name: &str, error: store::Error) -> Error {
        match error {
            store::Error::Exists => Error::exists(kind, name),
            store::Error::Missing => Error::not_found(kind.noun(), name),
            store::Error::Refused(problem) => Error::from_problem(problem),
            store::Error::Conflict { current } => Error::new(
                StatusCode::CONFLICT,
                format!(
                    "{} {name} was changed by somebody else: its revision is now {current}; read \
                     it again and repeat the change",
                    kind.noun()
                ),
            )
            .page("revision-conflict"),
            store::Error::Unavailable(cause) => {
                tracing::error!(error = %cause, "the store does not take writes");
                let text = "the server cannot store anything at the moment: its operator finds the \
                            cause in its log";
                Error::new(StatusCode::SERVICE_UNAVAILABLE, text)
            }
            other => Error::internal(
                &format!("internal error when processing {} {name}", kind.noun()),
                &other,
            ),
        }
    }

    /// A problem whose code says the status: its own, or 422 for 601 to 606.
    pub fn from_problem(problem: Problem) -> Error {
        let status = match problem.code {
            601..=606 => StatusCode::UNPROCESSABLE_ENTITY,
            code => u16::try_from(code)
                .ok()
                .and_then(|code| StatusCode::from_u16(code).ok())
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        };
        let retry_after =
            (status == StatusCode::TOO_MANY_REQUESTS).then_some(Duration::from_secs(1));
        Error { status, problem, retry_after }
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Error {
        Error::from_problem(Problem::new(invalid.code, invalid.message))
    }
}

impl From<wire::Error> for Error {
    fn from(error: wire::Error) -> Error {
        match error {
            wire::Error::Syntax(cause) => {
                Error::bad_request(format!("parsing body body from \"\" failed, because {cause}"))
            }
            wire::Error::Invalid(invalid) => invalid.into(),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(&self.problem)).into_response();
        if let Some(after) = self.retry_after {
            let seconds = HeaderValue::from(after.as_secs().max(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}
