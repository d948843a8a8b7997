//! Reading answers, bounded, and saying what is wrong with them.

use reqwest::{Method, Response};
use serde::de::DeserializeOwned;

use super::{Error, MAX_BODY, Result};
use crate::Problem;

pub(super) async fn chunk(response: &mut Response, place: &str) -> Result<Option<Vec<u8>>> {
    let failed = |error: reqwest::Error| Error::Transport(format!("{place}: {}", cause(&error)));
    Ok(response.chunk().await.map_err(failed)?.map(Into::into))
}

pub(super) async fn read(mut response: Response) -> Result<Vec<u8>> {
    let (place, mut body) = (place(&response), Vec::new());
    while let Some(bytes) = chunk(&mut response, &place).await? {
        if body.len() + bytes.len() > MAX_BODY {
            let text = format!("{place}: the answer has more than {MAX_BODY} bytes");
            return Err(Error::Decode(text));
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body)
}

pub(super) async fn answer<T: DeserializeOwned>(response: Response) -> Result<T> {
    let place = place(&response);
    decode(&read(response).await?, &place)
}

pub(super) fn decode<T: DeserializeOwned>(body: &[u8], place: &str) -> Result<T> {
    serde_json::from_slice(body)
        .map_err(|error| Error::Decode(format!("{place}: the answer cannot be read: {error}")))
}

/// What the server says in an answer that is not a success.
pub(super) async fn refusal(response: Response, place: &str) -> Error {
    let status = response.status();
    let location = response.headers().get("location").and_then(|value| value.to_str().ok());
    let location = location.map(|to| format!(" to {to}")).unwrap_or_default();
    let body = match read(response).await {
        Ok(body) => body,
        Err(error) => return error,
    };
    match serde_json::from_slice::<Problem>(&body) {
        Ok(mut problem) => {
            if problem.code == 0 {
                problem.code = status.as_u16().into();
            }
            Error::Api(problem, status.as_u16())
        }
        Err(_) => {
            let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
            let text = format!("{place}: HTTP {status}{location}: {}", text.trim());
            Error::Decode(text.trim_end_matches(": ").to_owned())
        }
    }
}

pub(super) fn place(response: &Response) -> String {
    response.url().to_string()
}

/// `Get` for `GET`.
pub(super) fn title(method: &Method) -> String {
    let word = method.as_str();
    word[..1].to_owned() + &word[1..].to_ascii_lowercase()
}

/// The innermost cause: the one that says what happened.
pub(super) fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
