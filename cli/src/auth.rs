//! How a caller proves who it is.

use dispatch_api::client::Auth;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use crate::error::{Error, Result, file_cause};

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    iat: i64,
    exp: i64,
}

/// A token first, then a service account with its key; none of both leaves the cookie.
///
/// # Errors
/// The key cannot be read.
pub fn choose(token: &str, account: &str, key: &str, organization: &str) -> Result<Option<Auth>> {
    if !token.is_empty() {
        return Ok(Some(Auth::Bearer(token.to_owned())));
    }
    if account.is_empty() || key.is_empty() {
        return Ok(None);
    }
    let pem = std::fs::read(key).map_err(|error| {
        Error::local(format!("error reading key file: {}", file_cause("open", key, &error)))
    })?;
    let key = EncodingKey::from_rsa_pem(&pem).map_err(|error| {
        Error::local(format!("error parsing RSA private key from pem: {key}: {error}"))
    })?;
    let issuer = match account.contains('/') {
        true => account.to_owned(),
        false => format!("{organization}/{account}"),
    };
    let now = Timestamp::now();
    let claims = Claims {
        iss: &issuer,
        iat: (now - SignedDuration::from_mins(1)).as_second(),
        exp: (now + SignedDuration::from_hours(1)).as_second(),
    };
    jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key)
        .map(|token| Some(Auth::Bearer(token)))
        .map_err(|error| Error::local(format!("error generating JWT: {error}")))
}
