//! Requests about events.

use reqwest::Method;

use super::answer::answer;
use super::{Client, Result};
use crate::delivery::{DELIVERIES_HEADER, DUPLICATES_HEADER, EVENTS_HEADER};
use crate::{Delivery, DeliveryFilter, LoggedEvent, Receipt, Redriven, Replay, Replayed};

const PATH: &str = "/v1/event";

impl Client {
    /// Sends events: `body` is of the content type `kind`, one of those of CloudEvents or the old
    /// JSON.
    ///
    /// # Errors
    /// Like all requests. Once this succeeds the events are on the server's disk.
    pub async fn emit(&self, kind: &str, body: Vec<u8>) -> Result<Receipt> {
        let request = self.request(Method::POST, self.url(&[PATH], &[]));
        let response = self.send(request.header("Content-Type", kind).body(body)).await?;
        let count = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.and_then(|value| value.parse().ok()).unwrap_or_default()
        };
        Ok(Receipt {
            events: count(EVENTS_HEADER),
            deliveries: count(DELIVERIES_HEADER),
            duplicates: count(DUPLICATES_HEADER),
        })
    }

    /// Reads events of the log, the newest first; only of `event_type` where it is given.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn events(
        &self,
        event_type: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Vec<LoggedEvent>> {
        let query = [
            ("type", event_type.map(str::to_owned)),
            ("limit", limit.map(|limit| limit.to_string())),
        ];
        let query: Vec<_> =
            query.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        let url = self.url(&[PATH, "log"], &query);
        answer(self.send(self.request(Method::GET, url)).await?).await
    }

    /// Reads deliveries, the newest first.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<Delivery>> {
        let url = self.url(&[PATH, "deliveries"], &filter.query());
        answer(self.send(self.request(Method::GET, url)).await?).await
    }

    /// Reads one delivery.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn delivery(&self, id: &str) -> Result<Delivery> {
        let url = self.url(&[PATH, "deliveries", id], &[]);
        answer(self.send(self.request(Method::GET, url)).await?).await
    }

    /// Starts a dead delivery over.
    ///
    /// # Errors
    /// Like all requests; 400 when it is not dead.
    pub async fn redrive_delivery(&self, id: &str) -> Result<Delivery> {
        let url = self.url(&[PATH, "deliveries", id, "redrive"], &[]);
        answer(self.send(self.request(Method::POST, url)).await?).await
    }

    /// Starts all dead deliveries of a subscription over.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn redrive_deliveries(&self, subscription: &str) -> Result<Redriven> {
        let query = [("subscription", subscription.to_owned())];
        let url = self.url(&[PATH, "redrive"], &query);
        answer(self.send(self.request(Method::POST, url)).await?).await
    }

    /// Gives a subscription events of the log again.
    ///
    /// # Errors
    /// Like all requests.
    pub async fn replay(&self, replay: &Replay) -> Result<Replayed> {
        let url = self.url(&[PATH, "replay"], &[]);
        answer(self.send(self.request(Method::POST, url).json(replay)).await?).await
    }
}
