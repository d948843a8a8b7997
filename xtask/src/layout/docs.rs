//! Rules for documentation: what it points to exists.

use std::path::Path;

/// Links of a page that lead nowhere. Links to other sites are not followed.
pub fn links(root: &Path, name: &str, text: &str) -> Vec<String> {
    let directory = root.join(name).parent().unwrap_or(root).to_owned();
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            let elsewhere = path.is_empty() || path.contains("://") || path.starts_with("mailto:");
            if !elsewhere && !directory.join(path).exists() {
                wrong.push(format!("{name}:{}: the link {link} leads nowhere", number + 1));
            }
        }
    }
    wrong
}

/// Names of error pages in the server's code that have no page.
pub fn error_pages(root: &Path, name: &str, text: &str) -> Vec<String> {
    if !name.starts_with("server/src/") {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some(page) = error_page(line) else { continue };
        if !root.join("docs/errors").join(format!("{page}.md")).exists() {
            let place = number + 1;
            wrong.push(format!("{name}:{place}: docs/errors/{page}.md is missing"));
        }
    }
    wrong
}

/// The page that a line names: `.page("name")`, or a status and a page in a tuple.
fn error_page(line: &str) -> Option<&str> {
    let rest = match line.split_once(".page(\"") {
        Some((_, rest)) => rest,
        None => line.split_once("(StatusCode::")?.1.split_once(", \"")?.1,
    };
    let (page, rest) = rest.split_once('"')?;
    let slug = !page.is_empty() && page.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    (slug && rest.starts_with(')')).then_some(page)
}

/// Settings of the server's table that the page about configuration does not list.
pub fn settings(root: &Path, name: &str, text: &str) -> Vec<String> {
    if name != "server/src/config.rs" {
        return Vec::new();
    }
    let page = "docs/reference/configuration.md";
    let listed = std::fs::read_to_string(root.join(page)).unwrap_or_default();
    let fields = text.lines().filter(|line| line.contains(", \"DISPATCH_"));
    let flags = fields.filter_map(|line| Some(line.split_once(':')?.0.trim().replace('_', "-")));
    flags
        .filter(|flag| !listed.contains(&format!("| `--{flag}` |")))
        .map(|flag| format!("{page}: --{flag} is missing"))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn links_are_followed_from_their_own_page() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("docs/guide")).unwrap();
        std::fs::write(root.path().join("docs/guide/a.md"), "").unwrap();
        let text = "[a](guide/a.md) [a](guide/a.md#part) [x](https://example.org/x.md) [y](#here)\n\
            [b](guide/b.md)";
        let wrong = links(root.path(), "docs/README.md", text);
        assert_eq!(wrong, ["docs/README.md:2: the link guide/b.md leads nowhere"]);
        assert_eq!(links(root.path(), "README.md", "[a](docs/guide/a.md)"), [""; 0]);
    }

    #[test]
    fn every_error_that_names_a_page_has_one() {
        for (line, wanted) in [
            (".page(\"revision-conflict\")", Some("revision-conflict")),
            ("=> (StatusCode::BAD_REQUEST, \"input-error\"),", Some("input-error")),
            ("Error::new(StatusCode::FORBIDDEN, \"a sentence, not a page\")", None),
            ("Error::new(StatusCode::NOT_FOUND, text)", None),
        ] {
            assert_eq!(error_page(line), wanted, "{line}");
        }
        let root = tempfile::tempdir().unwrap();
        let line = ".page(\"lost\")";
        assert_eq!(error_pages(root.path(), "server/src/a.rs", line).len(), 1);
        std::fs::create_dir_all(root.path().join("docs/errors")).unwrap();
        std::fs::write(root.path().join("docs/errors/lost.md"), "").unwrap();
        assert_eq!(error_pages(root.path(), "server/src/a.rs", line).len(), 0);
    }

    #[test]
    fn every_setting_is_listed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("docs/reference")).unwrap();
        let page = root.path().join("docs/reference/configuration.md");
        std::fs::write(page, "| `--max-body` | 1 | bytes |\n").unwrap();
        let code = "    max_body: usize = 1, \"DISPATCH_MAX_BODY\";\n    \
            max: u8 = 1, \"DISPATCH_MAX\";\n";
        let wrong = settings(root.path(), "server/src/config.rs", code);
        assert_eq!(wrong, ["docs/reference/configuration.md: --max is missing"]);
        assert_eq!(settings(root.path(), "server/src/other.rs", code), [""; 0]);
    }
}
