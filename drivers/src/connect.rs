//! What drivers of brokers share: addresses with credentials, TLS, and going on after a loss.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::Client;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::backoff::Backoff;
use crate::kind::{Key, Kind};
use crate::{Emitter, Error, Settings, Source};

/// How long taking leave may take.
const LEAVE: Duration = Duration::from_secs(5);

pub(crate) const USERNAME: Key = Key::text("username", "Who to be there").or_secret();
pub(crate) const PASSWORD: Key = Key::text("password", "The password").secret();
pub(crate) const CA: Key =
    Key::text("ca", "Certificates to trust besides those of the web, as PEM").or_secret();
pub(crate) const FORMAT: Key = Key::text("format", "The whole event as JSON, or its data")
    .one_of(&["event", "data"])
    .default("event");

/// The addresses of a key as URLs with a scheme, a port, and the credentials of the keys `username`
/// and `password`.
///
/// # Errors
/// One of them is no URL.
pub(crate) fn urls(settings: &Settings, key: &str) -> Result<Vec<Url>, Error> {
    let known = settings.kind().all_keys().find(|known| known.name == key).map(|known| known.kind);
    let schemes = match known {
        Some(Kind::Addresses(schemes)) => schemes,
        _ => &[],
    };
    let wrong = || settings.wrong(key, "should be a URL");
    let one = |text: &str| {
        let (first, _) = *schemes.first()?;
        let whole =
            if text.contains("://") { text.to_owned() } else { format!("{first}://{text}") };
        let mut url = Url::parse(&whole).ok()?;
        let usual = schemes.iter().find(|(scheme, _)| *scheme == url.scheme())?.1;
        if url.port().is_none() {
            url.set_port(Some(usual)).ok()?;
        }
        if has(settings, "username")
            && let Some(name) = settings.maybe("username")
        {
            url.set_username(name).ok()?;
        }
        if has(settings, "password")
            && let Some(password) = settings.maybe("password")
        {
            url.set_password(Some(password)).ok()?;
        }
        Some(url)
    };
    settings.get(key).split(',').map(|text| one(text.trim()).ok_or_else(wrong)).collect()
}

/// The address of a key that takes one.
///
/// # Errors
/// It is no URL, or there are several.
pub(crate) fn url(settings: &Settings, key: &str) -> Result<Url, Error> {
    match <[Url; 1]>::try_from(urls(settings, key)?) {
        Ok([url]) => Ok(url),
        Err(_) => Err(settings.wrong(key, "should be one address")),
    }
}

fn has(settings: &Settings, key: &str) -> bool {
    settings.kind().all_keys().any(|known| known.name == key)
}

/// TLS with the authorities of the web, and those of the key `ca`. They are part of the program, since a
/// sandbox has no files of the system's.
///
/// # Errors
/// What `ca` holds are no certificates.
pub(crate) fn tls(settings: &Settings) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(pem) = settings.maybe("ca") {
        let certificates: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let certificates =
            certificates.map_err(|error| settings.wrong("ca", &error.to_string()))?;
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return Err(settings.wrong("ca", "holds no certificate"));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Failed(format!("no TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// A client of HTTP, which follows no redirects: where those lead, nobody named.
///
/// # Errors
/// As [`tls`].
pub(crate) fn client(settings: &Settings, timeout: Duration) -> Result<Client, Error> {
    Client::builder()
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none())
        .tls_backend_preconfigured(tls(settings)?)
        .build()
        .map_err(|error| Error::Failed(format!("no HTTP client: {error}")))
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Lost {
    /// It may work again; why it broke.
    Connection(String),
    /// The driver ends.
    Driver(Error),
}

impl From<Error> for Lost {
    fn from(error: Error) -> Lost {
        Lost::Driver(error)
    }
}

/// A connection's failure.
pub(crate) fn lost(error: impl std::error::Error) -> Lost {
    Lost::Connection(crate::chain(&error))
}

/// A source that is connected to something, until the connection is lost.
pub(crate) trait Session: Send + 'static {
    /// What it is connected to, for the log.
    const WHAT: &str;

    /// Connects and emits. Resets `backoff` when it sees that the connection works.
    fn session(
        &mut self,
        emitter: &Emitter,
        backoff: &mut Backoff,
    ) -> impl Future<Output = Result<(), Lost>> + Send;

    /// Takes leave, when the driver is to stop.
    fn leave(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// Connects again and again, until the driver ends, or it was in vain for too long.
impl<S: Session> Source for S {
    fn run(
        mut self: Box<Self>,
        emitter: Emitter,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            let mut backoff = Backoff::new();
            loop {
                let ended = tokio::select! {
                    ended = self.session(&emitter, &mut backoff) => ended,
                    () = stop.cancelled() => break,
                };
                match ended {
                    Ok(()) | Err(Lost::Driver(Error::Stopped)) => break,
                    Err(Lost::Driver(error)) => return Err(error),
                    Err(Lost::Connection(why)) => {
                        backoff.wait(&stop, S::WHAT, &why, Duration::ZERO).await?;
                    }
                }
            }
            let _ = tokio::time::timeout(LEAVE, self.leave()).await;
            Ok(())
        })
    }
}

/// What a sink answers for it.
impl From<Lost> for crate::Unpublished {
    fn from(lost: Lost) -> crate::Unpublished {
        crate::Unpublished::Later(match lost {
            Lost::Connection(why) => why,
            Lost::Driver(error) => error.to_string(),
        })
    }
}
