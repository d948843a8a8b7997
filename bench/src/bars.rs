//! The bars: what the figures of one run are held against.

use serde::Serialize;

use crate::cores::Cores;
use crate::measure::uneven::{self, LONG, SERVERS, SHORT};
use crate::measure::{
    AGAIN, BURST, DISPATCH, FIRST, FORKED, HYPER, Kind, Memory, Part, READY, SERVER, STEM, Start,
    Warm,
};
use crate::report::Report;
use crate::stats::{Rate, Times, median};
use crate::toys;

/// A bar and how far the figure is from it.
#[derive(Clone, Debug, Serialize)]
pub struct Bar {
    /// What is measured.
    pub measure: String,
    /// The figure, in `unit`; none where it, or what it is compared with, was not measured.
    pub figure: Option<f64>,
    /// The bar.
    pub bar: f64,
    /// Whether less is better.
    pub at_most: bool,
    /// The unit of both; `x` is a ratio.
    pub unit: &'static str,
    /// Who else used the machine, at worst.
    pub foreign_percent: f64,
}

impl Bar {
    /// Whether it is met.
    pub fn met(&self) -> Option<bool> {
        self.figure.map(|figure| if self.at_most { figure <= self.bar } else { figure >= self.bar })
    }

    /// A row of the table.
    pub fn line(&self) -> String {
        let Bar { measure, figure, bar, unit, .. } = self;
        let figure = figure.map_or_else(|| "?".to_owned(), |figure| format!("{figure:.2} {unit}"));
        let verdict = match self.met() {
            Some(true) => "met",
            Some(false) => "**not met**",
            None => "not measured",
        };
        let limit = if self.at_most { "at most" } else { "at least" };
        let foreign = self.foreign_percent;
        format!("| {measure} | {limit} {bar} {unit} | {figure} | {verdict} | {foreign:.0} |\n")
    }
}

/// One number of a rate.
type Number = fn(&Rate) -> f64;
/// Two numbers against each other.
type Against = fn(f64, f64) -> f64;

/// Finds rows and compares them round by round: what disturbed a round disturbed both.
struct Rows<'a>(&'a [Warm]);

impl Rows<'_> {
    fn find(&self, language: &str, server: &str, cores: Cores, clients: usize) -> Option<&Warm> {
        let (language, server) = (language.to_owned(), server.to_owned());
        let kind = Kind { language, server, cores, clients };
        self.0.iter().find(|row| row.kind == kind)
    }

    fn compare(a: Option<&Warm>, b: Option<&Warm>, of: Number, how: Against) -> (Option<f64>, f64) {
        let (Some(a), Some(b)) = (a, b) else { return (None, 0.0) };
        let both = a.rounds.iter().zip(&b.rounds);
        let figure = median(both.map(|(a, b)| how(of(a), of(b))).collect());
        let foreign = [a, b].into_iter().filter_map(|row| Rate::median(&row.rounds));
        (figure, foreign.map(|rate| rate.foreign_percent).fold(0.0, f64::max))
    }
}

/// How many times as many requests a second Dispatch is to answer: language, server, factor.
const THROUGHPUT: [(&str, &str, f64); 4] = [
    ("python3", FRAMEWORK, 6.0),
    ("python3", "http.server", 1.2),
    ("nodejs", FRAMEWORK, 5.0),
    ("nodejs", "workerd", 1.3),
];

/// The bars of the parts that were measured.
pub fn all(report: &Report, parts: &[Part]) -> Vec<Bar> {
    let made = |part| parts.contains(&part);
    let mut bars = Vec::new();
    if made(Part::Cold) {
        bars.extend(cold(&report.starts));
    }
    if made(Part::Burst) {
        for what in [BURST, AGAIN] {
            bars.extend(start(&report.starts, what, 1000.0, "p95", |times| times.p95_ms));
        }
    }
    if made(Part::Deploy) {
        bars.extend(start(&report.starts, READY, 100.0, "p50", |times| times.p50_ms));
    }
    if made(Part::Warm) {
        bars.extend(warm(&report.warm));
    }
    if made(Part::Uneven) {
        bars.extend(uneven(&report.warm));
    }
    if made(Part::Memory) {
        bars.extend(memory(&report.memory));
    }
    bars
}

/// What most bars compare with, in both languages.
const FRAMEWORK: &str = "functions-framework";

/// First answers: language, milliseconds, and how many times as fast as functions-framework.
const FIRST_ANSWERS: [(&str, f64, f64); 2] = [("python3", 5.0, 25.0), ("nodejs", 10.0, 15.0)];

fn find<'a>(
    rows: &'a [Start],
    what: &str,
    language: &str,
    server: &str,
    cores: Cores,
) -> Option<&'a Start> {
    rows.iter().find(|row| {
        (row.what, row.language, &*row.server, row.cores) == (what, language, server, cores)
    })
}

/// The bars of first answers.
fn cold(rows: &[Start]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (language, most, part) in FIRST_ANSWERS {
        for cores in Cores::ALL {
            let measure = format!("{language}, {FIRST}, {}", cores.label());
            let ours = find(rows, FIRST, language, DISPATCH, cores);
            let theirs = find(rows, FIRST, language, FRAMEWORK, cores);
            let foreign_percent = ours.map_or(0.0, |row| row.times.foreign_percent);
            let p50 = ours.map(|row| row.times.p50_ms);
            let ratio = theirs.zip(p50).map(|(theirs, ours)| theirs.times.p50_ms / ours);
            bars.push(Bar {
                measure: format!("{measure}: p50"),
                figure: p50,
                bar: most,
                at_most: true,
                unit: "ms",
                foreign_percent,
            });
            bars.push(Bar {
                measure: format!("{measure}: times as fast as {FRAMEWORK}, p50"),
                figure: ratio,
                bar: part,
                at_most: false,
                unit: "x",
                foreign_percent,
            });
        }
    }
    bars
}

/// The bars of one kind of start, of both languages.
fn start(rows: &[Start], what: &str, bar: f64, name: &str, of: fn(&Times) -> f64) -> [Bar; 2] {
    ["python3", "nodejs"].map(|language| {
        let row = find(rows, what, language, DISPATCH, Cores::Two);
        let count = row.map_or(0, |row| row.times.count);
        Bar {
            measure: format!("{language}, {what}: {name} of {count}"),
            figure: row.map(|row| of(&row.times)),
            bar,
            at_most: true,
            unit: "ms",
            foreign_percent: row.map_or(0.0, |row| row.times.foreign_percent),
        }
    })
}

/// The bars of memory.
fn memory(rows: &[Memory]) -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut add = |measure: &str, figure, bar, unit| {
        let measure = measure.to_owned();
        bars.push(Bar { measure, figure, bar, at_most: true, unit, foreign_percent: 0.0 });
    };
    let server: Vec<&Memory> = rows.iter().filter(|row| row.what == SERVER).collect();
    let (none, many) = (server.first(), server.get(1));
    let figure = none.map(|row| row.resident as f64 / f64::from(1 << 20));
    add("server with nothing deployed: RSS", figure, 40.0, "MiB");
    let figure = none.zip(many).map(|(none, many)| {
        (many.resident.saturating_sub(none.resident)) as f64 / 1024.0 / many.functions.max(1) as f64
    });
    let functions = many.map_or(0, |row| row.functions);
    add(&format!("each of {functions} functions: RSS of the server"), figure, 4.0, "KiB");
    let find = |kind| rows.iter().find(|row| row.what == format!("python3, {kind}"));
    let mib = |row: &Memory| row.proportional as f64 / f64::from(1 << 20);
    add(&format!("python3, {FORKED}: PSS"), find(FORKED).map(mib), 1.5, "MiB");
    add(&format!("python3, {STEM}: PSS"), find(STEM).map(mib), 8.0, "MiB");
    bars
}

/// The bars of warm calls.
fn warm(rows: &[Warm]) -> Vec<Bar> {
    let rows = Rows(rows);
    let mut bars = Vec::new();
    let mut add = |measure: String, (figure, foreign_percent), bar, at_most, unit| {
        bars.push(Bar { measure, figure, bar, at_most, unit, foreign_percent });
    };
    let (per_second, p50): (Number, Number) = (|rate| rate.per_second, |rate| rate.p50_us);
    let (ratio, difference): (Against, Against) = (|a, b| a / b, |a, b| a - b);
    for (language, server, factor) in THROUGHPUT {
        for cores in Cores::ALL {
            let ours = rows.find(language, DISPATCH, cores, 16);
            let theirs = rows.find(language, server, cores, 16);
            let figure = Rows::compare(ours, theirs, per_second, ratio);
            let measure =
                format!("{language}, warm, 16 clients, {}: req/s against {server}", cores.label());
            add(measure, figure, factor, false, "x");
        }
    }
    let [one, two] = Cores::ALL.map(|cores| rows.find("python3", DISPATCH, cores, 16));
    let figure = Rows::compare(two, one, per_second, ratio);
    add("python3, warm, 16 clients: two cores against one".to_owned(), figure, 1.8, false, "x");
    for cores in Cores::ALL {
        let label = cores.label();
        let ours = rows.find("python3", DISPATCH, cores, 1);
        let theirs = rows.find("python3", FRAMEWORK, cores, 1);
        let figure = Rows::compare(ours, theirs, p50, ratio);
        let measure = format!("python3, warm, 1 client, {label}: p50 against {FRAMEWORK}");
        add(measure, figure, 0.5, true, "x");
        let ours = rows.find(toys::LANGUAGE, DISPATCH, cores, 1);
        let theirs = rows.find(toys::LANGUAGE, HYPER, cores, 1);
        let figure = Rows::compare(ours, theirs, p50, difference);
        let measure =
            format!("gateway with a worker that answers at once, {label}: p50 above plain hyper");
        add(measure, figure, 60.0, true, "µs");
    }
    bars
}

/// The bars of uneven load: a thread for each core must not make anything worse.
fn uneven(rows: &[Warm]) -> Vec<Bar> {
    let rows = Rows(rows);
    let mut bars = Vec::new();
    for long in LONG {
        for (short, clients) in [(true, SHORT), (false, long)] {
            let calls = uneven::name(long, short);
            let [each, one] = SERVERS.map(|(name, _)| rows.find(&calls, name, Cores::Two, clients));
            let (figure, foreign_percent) =
                Rows::compare(each, one, |rate| rate.per_second, |a, b| a / b);
            let measure = format!("{calls}: req/s of {} against {}", uneven::EACH, uneven::ONE);
            bars.push(Bar {
                measure,
                figure,
                bar: 1.0,
                at_most: false,
                unit: "x",
                foreign_percent,
            });
        }
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(language: &str, server: &str, cores: Cores, clients: usize, rounds: &[f64]) -> Warm {
        let (language, server) = (language.to_owned(), server.to_owned());
        let rate = |number: &f64| Rate {
            requests: 1,
            per_second: *number,
            p50_us: *number,
            p90_us: 0.0,
            p99_us: 0.0,
            server_us: 0.0,
            reopened: 0,
            foreign_percent: *number / 10.0,
        };
        let rounds = rounds.iter().map(rate).collect();
        Warm { kind: Kind { language, server, cores, clients }, rounds }
    }

    fn find<'a>(bars: &'a [Bar], name: &str) -> &'a Bar {
        bars.iter().find(|bar| bar.measure.contains(name)).unwrap()
    }

    #[test]
    fn bars_hold_rounds_against_each_other_and_say_what_is_missing() {
        let rows = [
            row("python3", DISPATCH, Cores::One, 16, &[60.0, 10.0, 70.0]),
            row("python3", FRAMEWORK, Cores::One, 16, &[10.0, 1.0, 70.0]),
            row(toys::LANGUAGE, DISPATCH, Cores::Two, 1, &[100.0]),
            row(toys::LANGUAGE, HYPER, Cores::Two, 1, &[39.0]),
        ];
        let bars = warm(&rows);
        let met = find(&bars, "one core: req/s against functions-framework");
        assert_eq!((met.figure, met.met()), (Some(6.0), Some(true)));
        assert!((met.foreign_percent - 6.0).abs() < 1e-9, "{met:?}");
        let missed = find(&bars, "answers at once, two cores");
        assert_eq!((missed.figure, missed.met()), (Some(61.0), Some(false)));
        assert!(missed.line().contains("| at most 60 µs | 61.00 µs | **not met** |"));
        let missing = find(&bars, "against workerd");
        assert_eq!((missing.figure, missing.met()), (None, None));
        assert!(missing.line().contains("| ? | not measured |"));
    }
}
