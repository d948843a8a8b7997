//! Signatures of requests.

use std::time::Duration;

use aws_lc_rs::hmac;
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

/// Signatures in one header; services send one, or two while a secret changes.
const MOST_SIGNATURES: usize = 8;

/// Who signs, and how.
#[derive(Debug)]
pub(super) enum Scheme {
    /// `X-Hub-Signature-256: sha256=HEX` of the body.
    GitHub,
    /// `Stripe-Signature: t=TIME,v1=HEX` of `TIME.BODY`.
    Stripe,
    /// `X-Slack-Signature: v0=HEX` of `v0:TIME:BODY`, the time in a header of its own.
    Slack,
    /// Anything like these.
    Generic(Generic),
}

/// Where a signature stands and what it is of.
#[derive(Debug)]
pub(super) struct Generic {
    pub header: String,
    pub prefix: String,
    pub base64: bool,
    pub timestamp: Option<String>,
}

/// What signatures are checked with.
pub(super) struct Verifier {
    keys: Vec<hmac::Key>,
    window: i64,
}

impl Verifier {
    pub fn new<'a>(
        algorithm: &str,
        secrets: impl Iterator<Item = &'a str>,
        window: Duration,
    ) -> Verifier {
        let algorithm = match algorithm {
            "sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            "sha512" => hmac::HMAC_SHA512,
            _ => hmac::HMAC_SHA256,
        };
        let keys = secrets.map(|secret| hmac::Key::new(algorithm, secret.as_bytes())).collect();
        Verifier { keys, window: i64::try_from(window.as_secs()).unwrap_or(i64::MAX) }
    }

    /// The signature, when it is right and its time is near.
    pub fn verify(
        &self,
        scheme: &Scheme,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Vec<u8>, &'static str> {
        let header = |name: &str| {
            let mut all = headers.get_all(name).iter();
            let first = all.next().ok_or("a header is missing")?;
            // Two of them: which one did whoever was before us look at?
            if all.next().is_some() {
                return Err("a header is there twice");
            }
            first.to_str().map_err(|_| "a header is not text")
        };
        let hex = |text: &str| unhex(text).ok_or("the signature is not hexadecimal");
        let (time, signatures, signed) = match scheme {
            Scheme::GitHub => {
                let text = header("x-hub-signature-256")?;
                let text = text.strip_prefix("sha256=").ok_or("the signature is not of SHA-256")?;
                (None, vec![hex(text)?], body.to_vec())
            }
            Scheme::Stripe => {
                let text = header("stripe-signature")?;
                let parts = || text.split(',').filter_map(|part| part.trim().split_once('='));
                let time = parts().find(|(name, _)| *name == "t").ok_or("no time is signed")?.1;
                let all = parts().filter(|(name, _)| *name == "v1").take(MOST_SIGNATURES);
                let all = all.map(|(_, text)| hex(text)).collect::<Result<_, _>>()?;
                (Some(time), all, [time.as_bytes(), b".", body].concat())
            }
            Scheme::Slack => {
                let time = header("x-slack-request-timestamp")?;
                let text = header("x-slack-signature")?;
                let text = text.strip_prefix("v0=").ok_or("the signature is not of version 0")?;
                (Some(time), vec![hex(text)?], [b"v0:", time.as_bytes(), b":", body].concat())
            }
            Scheme::Generic(own) => {
                let text = header(&own.header)?;
                let text = text.strip_prefix(own.prefix.as_str()).ok_or("the prefix is missing")?;
                let signature = if own.base64 {
                    STANDARD.decode(text).map_err(|_| "the signature is not base64")?
                } else {
                    hex(text)?
                };
                let time = own.timestamp.as_deref().map(header).transpose()?;
                let signed = match time {
                    Some(time) => [time.as_bytes(), b".", body].concat(),
                    None => body.to_vec(),
                };
                (time, vec![signature], signed)
            }
        };
        // In constant time, each with each.
        let right = signatures.into_iter().find(|signature| {
            self.keys.iter().any(|key| hmac::verify(key, &signed, signature).is_ok())
        });
        let right = right.ok_or("the signature is wrong")?;
        if let Some(time) = time {
            let time: i64 = time.parse().map_err(|_| "the time is no number")?;
            if time.abs_diff(now.as_second()) > self.window.unsigned_abs() {
                return Err("it is too old, or the clocks differ");
            }
        }
        Ok(right)
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    const NOW: i64 = 1_492_774_577;

    fn verify(
        verifier: &Verifier,
        scheme: &Scheme,
        headers: &[(&str, &str)],
        body: &str,
        now: i64,
    ) -> Result<Vec<u8>, &'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                HeaderValue::from_str(value).expect("a value"),
            );
        }
        let now = Timestamp::from_second(now).expect("a time");
        verifier.verify(scheme, &map, body.as_bytes(), now)
    }

    fn verifier(secret: &str) -> Verifier {
        Verifier::new("sha256", [secret].into_iter(), Duration::from_secs(300))
    }

    fn sign(secret: &str, text: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        crate::message::hex(hmac::sign(&key, text.as_bytes()).as_ref())
    }

    #[test]
    fn github_as_its_documentation_shows() {
        // The values with which GitHub lets receivers be tried.
        let right = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let known = verifier("It's a Secret to Everybody");
        let check = |headers: &[(&str, &str)], body| {
            verify(&known, &Scheme::GitHub, headers, body, NOW).map(drop)
        };
        let name = "x-hub-signature-256";
        assert_eq!(check(&[(name, right)], "Hello, World!"), Ok(()));
        assert!(check(&[(name, right)], "Hello, World?").is_err());
        assert!(check(&[], "Hello, World!").is_err());
        assert!(check(&[(name, "sha256=")], "Hello, World!").is_err());
        assert!(check(&[(name, &right.replace("sha256", "sha1"))], "Hello, World!").is_err());
        assert!(check(&[(name, &right[..right.len() - 2])], "Hello, World!").is_err());
        assert!(check(&[(name, right), (name, right)], "Hello, World!").is_err(), "twice");
    }

    #[test]
    fn signed_times_must_be_near() {
        let known = verifier("s");
        let (body, time) = ("{}", NOW.to_string());
        let stripe = format!(
            "t={time},v1={},v1={},v0=00",
            "00".repeat(32),
            sign("s", &format!("{time}.{body}"))
        );
        let slack = format!("v0={}", sign("s", &format!("v0:{time}:{body}")));
        let generic = Scheme::Generic(Generic {
            header: "x-sig".into(),
            prefix: "hex ".into(),
            base64: false,
            timestamp: Some("x-time".into()),
        });
        let own = format!("hex {}", sign("s", &format!("{time}.{body}")));
        for (scheme, headers) in [
            (Scheme::Stripe, vec![("stripe-signature", stripe.as_str())]),
            (
                Scheme::Slack,
                vec![("x-slack-signature", slack.as_str()), ("x-slack-request-timestamp", &time)],
            ),
            (generic, vec![("x-sig", own.as_str()), ("x-time", &time)]),
        ] {
            let check = |verifier: &Verifier, now| verify(verifier, &scheme, &headers, body, now);
            assert!(check(&known, NOW).is_ok(), "{scheme:?}");
            assert!(check(&known, NOW + 300).is_ok());
            assert!(check(&known, NOW + 301).is_err(), "a replay");
            assert!(check(&known, NOW - 301).is_err(), "from the future");
            assert!(check(&verifier("other"), NOW).is_err());
            assert!(verify(&known, &scheme, &headers, "{ }", NOW).is_err(), "another body");
        }
    }

    #[test]
    fn an_old_secret_works_beside_the_new_one() {
        let both = Verifier::new("sha256", ["new", "old"].into_iter(), Duration::from_secs(1));
        for (secret, fits) in [("new", true), ("old", true), ("older", false)] {
            let signature = format!("sha256={}", sign(secret, "body"));
            let headers = [("x-hub-signature-256", signature.as_str())];
            assert_eq!(verify(&both, &Scheme::GitHub, &headers, "body", NOW).is_ok(), fits);
        }
    }
}
