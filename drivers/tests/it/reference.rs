//! The page of all types says what the types say.

use std::fmt::Write as _;
use std::path::Path;

use dispatch_drivers::{DriverType, Given, Key, Kind, Need, Role, common, types};

const PAGE: &str = "../docs/reference/event-drivers.md";
const BEGIN: &str = "<!-- from here on by `WRITE_PAGES=1 cargo nextest run -p dispatch-drivers --all-features \
                     reference` -->\n";

fn value(key: &Key) -> String {
    match key.kind {
        Kind::Text => "text".into(),
        Kind::Flag => "switch".into(),
        Kind::Number(least, most) => format!("{least} to {most}"),
        Kind::OneOf(words) => words.join(", "),
        Kind::Addresses(schemes) => {
            let all: Vec<_> =
                schemes.iter().map(|(name, port)| format!("`{name}://…:{port}`")).collect();
            all.join(", ")
        }
    }
}

fn table<'a>(keys: impl Iterator<Item = &'a Key>) -> String {
    let mut text = "| key | what | value | default |\n|---|---|---|---|\n".to_owned();
    for key in keys {
        let from = match key.given {
            Given::Argument => "",
            Given::Either => "; may be in a secret",
            Given::Secret => "; from a secret",
        };
        let need = match key.need {
            Need::Required => "required".to_owned(),
            Need::Optional => String::new(),
            Need::Default(value) => format!("`{value}`"),
        };
        let _ =
            writeln!(text, "| `{}` | {}{from} | {} | {need} |", key.name, key.about, value(key));
    }
    text
}

fn section(kind: &DriverType) -> String {
    let port = match (kind.role(), kind.exposed) {
        (Role::Sink, _) => " Takes events on `$PORT`.",
        (Role::Source, true) => " Exposed: answers HTTP on `$PORT`.",
        (Role::Source, false) => "",
    };
    format!("\n## {}\n\n{}.{port}\n\n{}", kind.name, kind.about, table(kind.keys()))
}

#[test]
fn the_page_of_types_is_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, found) = page.split_once(BEGIN).expect("the mark in the page");
    let mut wanted = String::new();
    for (name, role) in [("sources", Role::Source), ("sinks", Role::Sink)] {
        let _ = write!(wanted, "\n## All {name}\n\n{}", table(common(role).iter()));
    }
    types().iter().for_each(|kind| wanted += &section(kind));
    if std::env::var_os("WRITE_PAGES").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{wanted}")).unwrap();
        return;
    }
    // Without all features, some types are not built in, and the page has more.
    if cfg!(not(feature = "full")) {
        for kind in types() {
            assert!(found.contains(&section(kind)), "{}", kind.name);
        }
        return;
    }
    assert_eq!(found, wanted, "WRITE_PAGES=1 writes it");
}
