//! How many tests passed, failed and were skipped.

/// How a run of the tests ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Did what they promise.
    pub passed: u64,
    /// Did not, or were not run to the end.
    pub failed: u64,
    /// Were left out, or found that this machine lacks what they need.
    pub skipped: u64,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Summary) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl Summary {
    /// Reads nextest's line: `Summary [ 1.2s] 9 tests run: 8 passed (1 slow), 1 failed, 2 skipped`.
    pub fn of_nextest(line: &str) -> Option<Summary> {
        let counts = line.trim_start().strip_prefix("Summary [")?.split_once("run:")?.1;
        let mut summary = Summary::default();
        // In brackets stands what is counted already.
        let counts = counts.split('(').map(|part| part.split_once(')').map_or(part, |(_, b)| b));
        for part in counts.collect::<String>().split(',') {
            let mut words = part.split_whitespace();
            let (Some(number), Some(word)) = (words.next(), words.next()) else { continue };
            let number = number.parse().ok()?;
            match word {
                "passed" => summary.passed = number,
                "skipped" => summary.skipped = number,
                // Failed, timed out, or ended without being run to the end.
                _ => summary.failed += number,
            }
        }
        Some(summary)
    }

    /// Tests have no way to say that they were skipped but to print it; they count as passed until
    /// then. Takes nextest's report, which holds what they printed, and returns their reasons.
    pub fn skip(&mut self, report: &str) -> Vec<String> {
        let mut reasons = Vec::new();
        for case in report.split("<testcase ").skip(1) {
            let name = case.split('"').nth(1).unwrap_or_default();
            // What was printed stands between tags; the rest of a line does not begin with the word.
            let mut pieces = case.split(['\n', '>']).map(str::trim_start);
            let piece = pieces.find(|piece| {
                piece.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("skipped"))
            });
            if let Some(piece) = piece {
                let reason = piece[7..].split('<').next().unwrap_or_default();
                reasons.push(format!("{name}: {}", reason.trim_start_matches([':', ' '])));
            }
        }
        let skipped = reasons.len() as u64;
        self.passed = self.passed.saturating_sub(skipped);
        self.skipped += skipped;
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_nextest_is_read() {
        let line = "     Summary [   3.456s] 12 tests run: 10 passed (1 slow, 2 leaky), 1 failed, 1 timed out, 2 skipped";
        let mut summary = Summary::of_nextest(line).expect("it is a summary");
        assert_eq!(summary, Summary { passed: 10, failed: 2, skipped: 2 });
        summary += Summary { passed: 1, failed: 0, skipped: 0 };
        assert_eq!(summary.to_string(), "11 passed, 2 failed, 2 skipped");
        assert_eq!(Summary::of_nextest("        PASS [   0.053s] x"), None);
        let cut = "Summary [ 1.0s] 3/9 tests run: 2 passed, 1 failed, 6 skipped";
        let cut = Summary::of_nextest(cut);
        assert_eq!(cut, Some(Summary { passed: 2, failed: 1, skipped: 6 }));
    }

    #[test]
    fn a_test_that_says_why_it_is_skipped_has_not_passed() {
        let report = "<testsuite name=\"a\">\
            <testcase name=\"one\" classname=\"a\"><system-out>running 1 test\nskipped: needs root\n\
            test one ... ok</system-out></testcase>\n\
            <testcase name=\"two\"><system-err>SKIPPED two: no limits</system-err></testcase>\n\
            <testcase name=\"three\"><system-out>nothing is skipped here</system-out></testcase>";
        let mut summary = Summary { passed: 3, failed: 0, skipped: 1 };
        let reasons = summary.skip(report);
        assert_eq!(reasons, ["one: needs root", "two: two: no limits"]);
        assert_eq!(summary, Summary { passed: 1, failed: 0, skipped: 3 });
    }
}
