//! From a request's headers to its caller.

use std::path::Path;

use anyhow::Context as _;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use dispatch_api::{Invalid, ORGANIZATION_HEADER, PROJECT_HEADER, validate};

use super::policy::{self, Action, Role};
use crate::app::App;
use crate::config::Config;
use crate::problem::Error;

/// The bearer tokens that mean somebody.
#[derive(Default)]
pub struct Tokens {
    admin: Option<String>,
    viewer: Option<String>,
}

impl Tokens {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// An unreadable file, or one without a token of at least 16 characters.
    pub fn load(config: &Config) -> anyhow::Result<Tokens> {
        Ok(Tokens {
            admin: read(&config.admin_token_file)?,
            viewer: read(&config.viewer_token_file)?,
        })
    }

    fn role(&self, headers: &HeaderMap) -> Result<Role, Error> {
        let Some(admin) = &self.admin else {
            return match self.viewer {
                None => same_site(headers).map(|()| Role::Admin),
                Some(_) => self.viewer_only(headers),
            };
        };
        match bearer(headers) {
            Some(token) if same(token, admin) => Ok(Role::Admin),
            _ => self.viewer_only(headers),
        }
    }

    fn viewer_only(&self, headers: &HeaderMap) -> Result<Role, Error> {
        match (&self.viewer, bearer(headers)) {
            (Some(viewer), Some(token)) if same(token, viewer) => Ok(Role::Viewer),
            _ => {
                Err(Error::new(StatusCode::UNAUTHORIZED, "unauthenticated for invalid credentials"))
            }
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the token file {}", path.display()))?;
    let token = text.trim();
    anyhow::ensure!(
        token.len() >= 16,
        "the token in {} has {} characters: use at least 16",
        path.display(),
        token.len()
    );
    Ok(Some(token.to_owned()))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn same(given: &str, wanted: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(given.as_bytes(), wanted.as_bytes()).is_ok()
}

/// Without tokens every program on this machine is trusted, but not every web page that a browser on
/// this machine shows: those betray themselves by `Origin`, or by a host name that is not ours.
fn same_site(headers: &HeaderMap) -> Result<(), Error> {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    let name = host_name(host);
    let local = name.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    let origin = text(header::ORIGIN);
    let own = origin.is_none_or(|origin| {
        origin.split_once("://").is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(host))
    });
    if local && own {
        return Ok(());
    }
    Err(Error::new(
        StatusCode::FORBIDDEN,
        "requests of web pages from elsewhere are refused; address the server as localhost or by \
         its IP address, or protect it with --admin-token-file",
    ))
}

fn host_name(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host.ends_with(']') => &host[..colon],
        _ => host,
    }
}

/// Who sent a request, and for which organization.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The organization everything is looked up in.
    pub org: String,
    /// The project new resources belong to.
    pub project: String,
    /// What the caller is.
    pub role: Role,
}

impl Caller {
    /// Whether the caller may do something beyond what every request is asked for.
    pub fn may(&self, action: Action) -> bool {
        policy::allows(self.role, action)
    }

    fn from_headers(app: &App, headers: &HeaderMap) -> Result<Caller, Error> {
        let role = app.tokens.role(headers)?;
        let config = &app.config;
        let org = name_header(headers, ORGANIZATION_HEADER)?;
        if org.is_none() && config.strict_organization {
            return Err(Invalid::required(ORGANIZATION_HEADER, "header").into());
        }
        Ok(Caller {
            org: org.unwrap_or_else(|| config.default_organization.clone()),
            project: name_header(headers, PROJECT_HEADER)?.unwrap_or_else(|| "default".to_owned()),
            role,
        })
    }
}

fn name_header(headers: &HeaderMap, name: &str) -> Result<Option<String>, Error> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let value = value.to_str().unwrap_or("?");
    if value.is_empty() {
        return Ok(None);
    }
    if !validate::is_name(value) || value.len() > validate::MAX_NAME {
        let text = format!(r"{name} in header should match '^[\w\d][\w\d\-]*$'");
        return Err(Invalid::new(validate::PATTERN, text).into());
    }
    Ok(Some(value.to_owned()))
}

impl FromRequestParts<std::sync::Arc<App>> for Caller {
    type Rejection = Error;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &std::sync::Arc<App>,
    ) -> Result<Caller, Error> {
        let caller = Caller::from_headers(app, &parts.headers)?;
        let action = if parts.method.is_safe() { Action::Read } else { Action::Write };
        if !caller.may(action) {
            let text = "this token may only read: use an administrator's token";
            return Err(Error::new(StatusCode::FORBIDDEN, text));
        }
        Ok(caller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                let name: header::HeaderName = name.parse().expect("a name");
                (name, value.parse().expect("a value"))
            })
            .collect()
    }

    #[test]
    fn pages_of_other_sites_are_refused_while_programs_pass() {
        for good in [
            headers(&[("host", "127.0.0.1:8080")]),
            headers(&[("host", "localhost:8080"), ("origin", "http://localhost:8080")]),
            headers(&[("host", "[::1]:8080")]),
            headers(&[]),
        ] {
            assert!(same_site(&good).is_ok(), "{good:?}");
        }
        for bad in [
            headers(&[("host", "127.0.0.1:8080"), ("origin", "https://evil.example")]),
            headers(&[("host", "127.0.0.1:8080"), ("origin", "null")]),
            headers(&[("host", "rebound.example:8080")]),
        ] {
            assert!(same_site(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_token_is_asked_for_where_one_is_set() {
        let tokens = Tokens {
            admin: Some("a-long-admin-token".to_owned()),
            viewer: Some("a-long-viewer-token".to_owned()),
        };
        let with = |token: &str| headers(&[("authorization", &format!("Bearer {token}"))]);
        assert_eq!(tokens.role(&with("a-long-admin-token")).ok(), Some(Role::Admin));
        assert_eq!(tokens.role(&with("a-long-viewer-token")).ok(), Some(Role::Viewer));
        assert!(tokens.role(&with("a-long-admin-tokem")).is_err());
        assert!(tokens.role(&headers(&[("cookie", "unset")])).is_err());
    }
}
