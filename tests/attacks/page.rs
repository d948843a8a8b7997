//! `docs/reference/attacks.md` says what the table says.

use std::collections::BTreeSet;

use crate::support::root;
use crate::table;

const PAGE: &str = "docs/reference/attacks.md";

#[test]
fn the_page_lists_every_attack_and_no_other() {
    let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
    let listed: BTreeSet<&str> = page.lines().filter(|line| is_row(line)).collect();
    let mut rows: Vec<_> = table::all().collect();
    rows.sort_by_key(|attack| attack.number);
    let wanted: Vec<String> = rows.iter().map(|attack| attack.line()).collect();
    let same = listed == wanted.iter().map(String::as_str).collect();
    assert!(same, "the table in {PAGE} must be:\n{}", wanted.join("\n"));
}

/// Rows of attacks begin with a number and have five cells.
fn is_row(line: &str) -> bool {
    let cells: Vec<_> = line.split(" | ").collect();
    let number = cells[0].strip_prefix("| ").unwrap_or_default();
    cells.len() == 5 && number.parse::<u8>().is_ok()
}

#[test]
fn every_name_is_there_once() {
    let mut names = BTreeSet::new();
    for attack in table::all() {
        assert!(names.insert(attack.name), "{} is there twice", attack.name);
    }
}
