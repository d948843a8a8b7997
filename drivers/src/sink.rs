//! What all sinks do: take events by HTTP, and answer when they are safe elsewhere.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio_util::sync::CancellationToken;

use crate::{Error, Settings, Sink, Unpublished, http};

/// Runs a sink until `stop` fires.
///
/// # Errors
/// The port cannot be listened on.
pub(crate) async fn run(
    sink: Box<dyn Sink>,
    settings: &Settings,
    stop: CancellationToken,
) -> Result<(), Error> {
    let sink: Arc<dyn Sink> = sink.into();
    let token: Option<Arc<str>> = settings.maybe("token").map(Into::into);
    http::serve(settings.port()?, stop, move |parts, body| {
        let (sink, token) = (Arc::clone(&sink), token.clone());
        async move {
            if token.is_some_and(|token| !http::has_token(&parts, &token)) {
                return (StatusCode::UNAUTHORIZED, "token not recognized".into());
            }
            let events = match http::events(&parts, &body) {
                Ok(events) => events,
                Err(reply) => return reply,
            };
            for event in &events {
                match sink.publish(event).await {
                    Ok(()) => tracing::debug!("published event {:?}", event.id),
                    Err(Unpublished::Later(why)) => {
                        tracing::warn!("event {:?} is not published yet: {why}", event.id);
                        return (StatusCode::SERVICE_UNAVAILABLE, why);
                    }
                    Err(Unpublished::Never(why)) => {
                        tracing::error!("event {:?} cannot be published: {why}", event.id);
                        return (StatusCode::UNPROCESSABLE_ENTITY, why);
                    }
                }
            }
            (StatusCode::ACCEPTED, String::new())
        }
    })
    .await
}
