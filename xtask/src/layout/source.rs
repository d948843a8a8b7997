//! Rules for one file of code.

/// Extensions of code.
pub const CODE: &[&str] = &["rs", "py", "js", "cjs", "mjs", "sh", "java", "rb"];
/// Rooms whose code may start processes: tools and tests besides the sandbox itself.
const STARTERS: &[&str] = &[
    // Inside a sandbox already.
    "runner/src/adapter",
    "sandbox/",
    "xtask/",
    "bench/",
    "tests/",
    "cli/src/commands/edit.rs",
];
/// Lines of a file.
const MOST_LINES: usize = 600;
const MANY_LINES: usize = 400;
/// Where unsafe code may be.
const UNSAFE: &[&str] = &["sandbox/", "wasm/src/compiled.rs"];
/// Files that are one table, so that their length says nothing.
const TABLES: &[&str] = &["cli/tests/it/golden.rs"];
/// Words that stand for work that is left.
const UNFINISHED: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
/// Where SQL may be: for the server's own database, and for those of users.
const SQL_PLACES: &[&str] = &["server/src/store/", "drivers/src/postgres.rs"];
/// Beginnings of SQL statements.
const SQL: &[&str] = &["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ", "CREATE TABLE "];

/// What is wrong with one file.
pub fn check(name: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = text.lines().count();
    if lines > MANY_LINES && !TABLES.contains(&name) {
        if lines > MOST_LINES {
            wrong.push(format!("{name}: {lines} lines, more than {MOST_LINES}: split it"));
        } else {
            println!("note: {name} has {lines} lines: is it about one thing?");
        }
    }
    let rust = name.ends_with(".rs");
    for (number, line) in text.lines().enumerate() {
        let mut complain = |what: &str| wrong.push(format!("{name}:{}: {what}", number + 1));
        if words(line).any(|word| UNFINISHED.contains(&word)) {
            complain("finish it, or write it down where it is found again");
        }
        if !rust {
            continue;
        }
        let (code, quoted) = split(line);
        if words(&code).any(|word| word == "unsafe")
            && !UNSAFE.iter().any(|place| name.starts_with(place))
        {
            complain("unsafe code lives in sandbox/ and wasm/src/compiled.rs only");
        }
        let tools = name.starts_with("xtask/");
        if SQL.iter().any(|word| quoted.contains(word))
            && !SQL_PLACES.iter().any(|place| name.starts_with(place))
            && !tools
        {
            complain("SQL lives in server/src/store/ and drivers/src/postgres.rs only");
        }
        let test = name.contains("/tests/") || name.ends_with("tests.rs");
        if code.contains("process::")
            && words(&code).any(|word| word == "Command")
            && !test
            && !STARTERS.iter().any(|starter| name.starts_with(starter))
        {
            complain("only sandbox/ starts processes");
        }
    }
    wrong
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The code of a line without comments and texts, and its texts. Texts of several lines are taken for
/// code, which is good enough for rules that people do not try to break.
fn split(line: &str) -> (String, String) {
    let (mut code, mut quoted) = (String::new(), String::new());
    let mut inside = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if inside => {
                letters.next();
            }
            // A quotation mark as a character is no beginning of a text.
            '\'' if !inside && letters.peek() == Some(&'"') => {
                letters.next();
            }
            '"' => {
                inside = !inside;
                quoted.push(' ');
            }
            '/' if !inside && letters.peek() == Some(&'/') => break,
            _ if inside => quoted.push(letter),
            _ => code.push(letter),
        }
    }
    (code, quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_its_breach() {
        let left = format!("// {} later", UNFINISHED[0]);
        for (name, text, count) in [
            ("server/src/a.rs", "fn f() { unsafe { g() } }", 1),
            ("sandbox/src/a.rs", "fn f() { unsafe { g() } }", 0),
            ("server/src/a.rs", "// unsafe in words is fine", 0),
            ("server/src/a.rs", "let a = \"unsafe // in a text\"; unsafe { g() }", 1),
            ("server/src/a.rs", "let a = \"unsafe \\\" in a text\";", 0),
            ("server/src/a.rs", "#![forbid(unsafe_code)]", 0),
            ("server/src/a.rs", "let q = \"SELECT 1\";", 1),
            ("server/src/a.rs", "let q = '\"'; // SELECT 1", 0),
            ("server/src/store/a.rs", "let q = \"SELECT 1\";", 0),
            ("runner/src/a.rs", "std::process::Command::new(\"ls\")", 1),
            ("runner/src/a.rs", "use std::process::{Child, Command};", 1),
            ("runner/src/a.rs", "let command = clap::Command::new(\"ls\");", 0),
            ("runner/src/a.rs", "use std::process::ExitCode;", 0),
            ("runner/src/a/tests.rs", "use std::process::Command;", 0),
            ("tests/it/a.rs", "use std::process::Command;", 0),
            ("api/src/a.rs", &left, 1),
            ("languages/python3/a.py", &left, 1),
            ("languages/python3/a.py", "unsafe", 0),
        ] {
            assert_eq!(check(name, text).len(), count, "{name}: {text}");
        }
        assert_eq!(check("api/src/a.rs", &"\n".repeat(MOST_LINES + 1)).len(), 1);
        assert_eq!(check("api/src/a.rs", &"\n".repeat(MOST_LINES)).len(), 0);
        assert_eq!(check(TABLES[0], &"\n".repeat(MOST_LINES + 1)).len(), 0);
    }
}
