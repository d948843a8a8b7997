//! `dispatch version`.

use dispatch_api::{ServerVersion, Version};

use super::Session;
use crate::args::Format;
use crate::error::Result;
use crate::{model, output, tree::Tree};

/// Shows both versions. When the server does not answer, a form other than text shows nothing.
///
/// # Errors
/// The server cannot be asked.
pub async fn run(session: &Session) -> Result {
    let client = Version::current();
    let format = session.settings.format;
    if matches!(format, Format::Table | Format::Name) {
        output::line(&format!("Client: {}", client.version))?;
        let server = session.client.version().await?;
        return output::line(&format!("Server: {}", server.version));
    }
    let both = ServerVersion { client, server: session.client.version().await? };
    match format {
        Format::Yaml => output::print(&model::write(&Tree::of(&both))),
        _ => output::print(&output::json(&both, "  ")),
    }
}
