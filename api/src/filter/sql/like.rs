//! Patterns of `LIKE`.

#[derive(Clone, Debug)]
pub(super) struct Pattern(Vec<Part>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// `%`: any number of characters.
    Many,
    /// `_`: one character.
    One,
    Exactly(char),
}

impl Pattern {
    /// Reads a pattern; a backslash before `%` and `_` takes their meaning away.
    pub(super) fn new(text: &str) -> Pattern {
        let mut parts = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(next) = rest.next() {
            let part = match next {
                '\\' => match rest.next_if(|next| matches!(next, '%' | '_')) {
                    Some(escaped) => Part::Exactly(escaped),
                    None => Part::Exactly('\\'),
                },
                '%' => Part::Many,
                '_' => Part::One,
                other => Part::Exactly(other),
            };
            parts.push(part);
        }
        Pattern(parts)
    }

    /// Whether a text fits, and takes the characters it looks at from `left`: at 0 it gives up.
    pub(super) fn matches(&self, text: &str, left: &mut usize) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut at, mut part) = (0, 0);
        // Behind the last `%`: where to go on with one character more for it.
        let mut again = None;
        *left = left.saturating_sub(text.len());
        while *left > 0 {
            *left -= 1;
            let next = text.get(at);
            match (self.0.get(part), next) {
                (Some(Part::Many), _) => {
                    again = Some((at, part + 1));
                    part += 1;
                    continue;
                }
                (None, None) => return true,
                (Some(Part::One), Some(_)) => {
                    (at, part) = (at + 1, part + 1);
                    continue;
                }
                (Some(Part::Exactly(wanted)), Some(next)) if wanted == next => {
                    (at, part) = (at + 1, part + 1);
                    continue;
                }
                _ => {}
            }
            match again {
                Some((start, behind)) if start < text.len() => {
                    again = Some((start + 1, behind));
                    (at, part) = (start + 1, behind);
                }
                _ => return false,
            }
        }
        false
    }
}
