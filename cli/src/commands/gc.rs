//! `dispatch manage gc`.

use dispatch_api::gc::{Garbage, Unused};

use super::Session;
use crate::args::Format;
use crate::config::Settings;
use crate::error::Result;
use crate::output::{self, Show};

/// Removes what nothing refers to any more, or shows it.
///
/// # Errors
/// Like all requests.
pub async fn run(session: &Session, dry_run: bool, older_than: Option<u32>) -> Result {
    let garbage = session.client.gc(dry_run, older_than).await?;
    if session.settings.format != Format::Table {
        return output::one(&garbage, &session.settings);
    }
    if !garbage.items.is_empty() {
        output::list(&garbage.items, &session.settings)?;
    }
    let what = if dry_run { "would be removed" } else { "removed" };
    let (count, bytes) = (garbage.items.len(), size(garbage.bytes));
    output::line(&format!("{count} {what}, {bytes}"))
}

/// Bytes as people read them.
fn size(bytes: i64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let power = (0..3).take_while(|power| bytes >= 1 << (10 * (power + 1))).count();
    let tenths = bytes.saturating_mul(10) >> (10 * power);
    match power {
        0 => format!("{bytes} B"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, units[power]),
    }
}

impl Show for Garbage {
    const MODEL: &'static str = r#"{"dryrun": false, "bytes": 0, "items": [null]}"#;
    const COLUMNS: &'static [&'static str] = Unused::COLUMNS;

    fn label(&self) -> String {
        self.items.iter().map(|item| item.name.as_str()).collect::<Vec<_>>().join("\n")
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        Vec::new()
    }
}

impl Show for Unused {
    const MODEL: &'static str = r#"{"kind": "", "name": "", "bytes": 0, "usedtime": 0}"#;
    const COLUMNS: &'static [&'static str] = &["Kind", "Name", "Size", "Last used"];

    fn label(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        let name = self.name.get(..12).unwrap_or(&self.name).to_owned();
        vec![self.kind.clone(), name, size(self.bytes), output::date(self.used_time)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (5 << 20, "5.0 MiB"),
            (1 << 40, "1024.0 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
