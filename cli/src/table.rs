//! Tables in the layout that scripts know: no borders, a line under the header.

/// A table that is being filled.
pub struct Table {
    layout: Layout,
    header: Vec<String>,
    rows: Vec<Vec<Vec<String>>>,
    widths: Vec<usize>,
}

/// How a table is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Cells are wrapped.
    #[default]
    Plain,
    /// Cells are wrapped, and a line stands under each row.
    Lined,
    /// Cells are broken at their own line ends only.
    Verbatim,
    /// The same, and a line stands under each row.
    LinedVerbatim,
}

/// The width beyond which a cell is wrapped, unless a word is longer.
const WRAP: usize = 30;
/// Cells with more words than this are not balanced, which takes quadratic time.
const MANY_WORDS: usize = 500;

impl Table {
    /// A table without rows.
    pub fn new(layout: Layout, columns: &[&str]) -> Table {
        let title = |column: &&str| column.replace(['_', '.'], " ").to_uppercase();
        let mut table = Table {
            layout,
            header: columns.iter().map(title).collect(),
            rows: Vec::new(),
            widths: vec![0; columns.len()],
        };
        for (at, title) in table.header.clone().iter().enumerate() {
            table.measure(at, title);
        }
        table
    }

    /// Adds a row.
    pub fn row(&mut self, cells: &[String]) {
        let cells: Vec<String> = cells.iter().map(|cell| printable(cell)).collect();
        let mut row = Vec::with_capacity(cells.len());
        for (at, cell) in cells.iter().enumerate() {
            self.measure(at, cell);
            let lines: Vec<String> = match self.layout {
                Layout::Verbatim | Layout::LinedVerbatim => {
                    cell.split('\n').map(str::to_owned).collect()
                }
                Layout::Plain | Layout::Lined => wrap(cell, self.widths[at]),
            };
            let widest = lines.iter().map(|line| width(line)).max().unwrap_or(0);
            self.widths[at] = self.widths[at].max(widest);
            row.push(lines);
        }
        self.rows.push(row);
    }

    /// Removes all rows; the widths stay.
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    /// A column is as wide as its widest cell, of which at most [`WRAP`] counts. Line ends have no
    /// width.
    fn measure(&mut self, at: usize, cell: &str) {
        self.widths[at] = self.widths[at].max(width(cell).min(WRAP));
    }

    /// The table as text; without the header when only more rows are wanted.
    pub fn text(&self, header: bool) -> String {
        let line = match self.layout {
            Layout::Plain | Layout::Verbatim => {
                "-".repeat(self.widths.iter().map(|width| width + 2).sum())
            }
            Layout::Lined | Layout::LinedVerbatim => {
                "-".repeat(1 + self.widths.iter().map(|width| width + 3).sum::<usize>())
            }
        } + "\n";
        let mut text = String::new();
        if header {
            let cells = self.header.iter().zip(&self.widths);
            let cells: Vec<String> =
                cells.map(|(title, width)| format!(" {title:^width$} ")).collect();
            text += &format!(" {} \n{line}", cells.join("|"));
        }
        for row in &self.rows {
            for at in 0..row.iter().map(Vec::len).max().unwrap_or(0) {
                let cell = |(lines, width): (&Vec<String>, &usize)| {
                    let cell = lines.get(at).map_or("", String::as_str);
                    let blanks = " ".repeat(width.saturating_sub(self::width(cell)));
                    if is_number(cell) {
                        format!(" {blanks}{cell} ")
                    } else {
                        format!(" {cell}{blanks} ")
                    }
                };
                let cells: Vec<String> = row.iter().zip(&self.widths).map(cell).collect();
                text += &format!(" {} \n", cells.join("|"));
            }
            if matches!(self.layout, Layout::Lined | Layout::LinedVerbatim) {
                text += &line;
            }
        }
        text
    }
}

/// The columns a text takes on a terminal, taking every character for one column.
fn width(text: &str) -> usize {
    text.chars().filter(|c| *c != '\n').count()
}

/// A text without control characters, which could do anything to a terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c })
        .collect()
}

/// `-12`, `1,234`, `1.5`, `75%`.
fn is_number(cell: &str) -> bool {
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    let digits = digits.strip_suffix('%').unwrap_or(digits);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let groups: Vec<&str> = whole.split(',').collect();
    let grouped = groups.len() == 1
        || groups[0].len() <= 3 && groups[1..].iter().all(|group| group.len() == 3);
    all(fraction) && grouped && groups.iter().all(|group| all(group))
}

/// Breaks a text at blanks into lines of at most `limit`, as even as possible: the sum of the
/// squares of what is missing at the ends of all lines but the last is the least. Two blanks in a
/// row have an empty word between them and stay.
fn wrap(text: &str, limit: usize) -> Vec<String> {
    let words: Vec<&str> = text.split([' ', '\n']).collect();
    let limit = words.iter().map(|word| width(word)).max().unwrap_or(0).max(limit);
    let n = words.len();
    if n > MANY_WORDS {
        return greedy(&words, limit);
    }
    // From the last word backwards: the least cost of what begins there, and where it breaks.
    let (mut cost, mut next) = (vec![usize::MAX; n + 1], vec![n; n + 1]);
    cost[n] = 0;
    for start in (0..n).rev() {
        let mut length = 0;
        for end in start + 1..=n {
            length += width(words[end - 1]) + usize::from(end > start + 1);
            if length > limit {
                break;
            }
            let missing = if end == n { 0 } else { limit - length };
            let total = cost[end].saturating_add(missing * missing);
            if total < cost[start] || end == n {
                (cost[start], next[start]) = (total, end);
            }
        }
    }
    let mut lines = Vec::new();
    let mut start = 0;
    while start < n {
        lines.push(words[start..next[start]].join(" "));
        start = next[start];
    }
    lines
}

fn greedy(words: &[&str], limit: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words {
        let line = lines.last().map_or(0, |line| width(line));
        match lines.last_mut() {
            Some(last) if line == 0 => last.push_str(word),
            Some(last) if line + 1 + width(word) <= limit => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push((*word).to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(layout: Layout, columns: &[&str], rows: &[&[&str]]) -> String {
        let mut table = Table::new(layout, columns);
        for row in rows {
            table.row(&row.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>());
        }
        table.text(true)
    }

    #[test]
    fn plain() {
        let text = table(
            Layout::Plain,
            &["Name", "Status", "Created Date"],
            &[&["hello-py", "READY", "Mon Jan  2 15:04:05 UTC 2006"]],
        );
        let wanted = "    NAME   | STATUS |         CREATED DATE          \n\
                      ------------------------------------------------\n  \
                      hello-py | READY  | Mon Jan  2 15:04:05 UTC 2006  \n";
        assert_eq!(text, wanted);
    }

    #[test]
    fn lined_with_lines_in_cells() {
        let text = table(
            Layout::Lined,
            &["Protocol", "Path"],
            &[&["http\nhttps", "http://127.0.0.1:8081/dispatch/hello\nhttps://127.0.0.1:8444/x"]],
        );
        let wanted = "  PROTOCOL  |                 PATH                  \n\
                      ----------------------------------------------------\n  \
                      http      | http://127.0.0.1:8081/dispatch/hello  \n  \
                      https     | https://127.0.0.1:8444/x              \n\
                      ----------------------------------------------------\n";
        assert_eq!(text, wanted);
    }

    #[test]
    fn long_texts_are_wrapped_evenly_and_numbers_stand_right() {
        let text = "one two three four five six seven eight nine ten";
        let text = table(Layout::Plain, &["A", "N"], &[&[text, "7"], &["x", "1,234"]]);
        let wanted = "                A                |   N    \n\
                      ---------------------------------------\n  \
                      one two three four five six    |     7  \n  \
                      seven eight nine ten           |        \n  \
                      x                              | 1,234  \n";
        assert_eq!(text, wanted);
    }

    #[test]
    fn numbers() {
        for number in ["0", "-1", "1234", "1,234,567", "1.5", "75%"] {
            assert!(is_number(number), "{number}");
        }
        for other in ["", "-", "1.", "a1", "12,34", "1234,567", "%", "1.2.3"] {
            assert!(!is_number(other), "{other}");
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert!(!table(Layout::Plain, &["A"], &[&["\u{1b}[2Jx"]]).contains('\u{1b}'));
    }

    #[test]
    fn many_words_take_little_time() {
        let text = "word ".repeat(100_000);
        let lines = wrap(&text, 30);
        assert!(lines.iter().all(|line| line.len() <= 30));
        assert_eq!(lines.len(), 100_000 / 6 + 1);
    }
}
