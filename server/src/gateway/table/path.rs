//! Paths of requests and of endpoints, segment by segment.

/// A segment of an endpoint's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// This text.
    Exact(String),
    /// Any one segment, by its name.
    Parameter(String),
    /// Whatever follows, also nothing.
    Rest,
}

/// A path that cannot be understood, or that could be understood in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path of the request is not well-formed: it must be UTF-8, percent-encoded once")]
pub struct BadPath;

/// The decoded segments of a path. Empty ones and `.` vanish and `..` goes up, so that nothing is
/// reached by a spelling that its route does not have.
pub(super) fn segments(path: &str) -> Result<Vec<String>, BadPath> {
    let mut segments: Vec<String> = Vec::new();
    for part in path.split('/') {
        let part = decode(part)?;
        match part.as_str() {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(part),
        }
    }
    Ok(segments)
}

/// Percent-decodes one segment, once. A slash stays encoded: what a parameter stands for is one
/// segment, also after a function has joined it to a path of its own.
fn decode(part: &str) -> Result<String, BadPath> {
    if !part.contains('%') {
        return Ok(part.to_owned());
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(BadPath) };
        match u8::try_from(high * 16 + low).map_err(|_| BadPath)? {
            0 => return Err(BadPath),
            b'/' => bytes.extend_from_slice(b"%2F"),
            decoded => bytes.push(decoded),
        }
    }
    String::from_utf8(bytes).map_err(|_| BadPath)
}

/// Reads the path of an endpoint.
pub(super) fn parse(uri: &str) -> Result<Vec<Segment>, String> {
    let Some(path) = uri.strip_prefix('/') else {
        return Err("a path starts with a slash".to_owned());
    };
    let mut pattern = Vec::new();
    let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        if part == "*" {
            if parts.peek().is_some() {
                return Err("a * stands at the end only".to_owned());
            }
            pattern.push(Segment::Rest);
        } else if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            if !dispatch_api::validate::is_name(name) {
                return Err(format!("{{{name}}} is no name of a parameter"));
            }
            if pattern.contains(&Segment::Parameter(name.to_owned())) {
                return Err(format!("the parameter {{{name}}} is there twice"));
            }
            pattern.push(Segment::Parameter(name.to_owned()));
        } else {
            let decoded = decode(part).map_err(|_| "it is not percent-encoded UTF-8".to_owned())?;
            if decoded == "." || decoded == ".." {
                return Err("it has a . or .. segment".to_owned());
            }
            pattern.push(Segment::Exact(decoded));
        }
    }
    Ok(pattern)
}

/// Checks a path of an endpoint before it is stored.
///
/// # Errors
/// What is wrong with it.
pub fn check_uri(uri: &str) -> Result<(), String> {
    if uri.len() > 1024 {
        return Err("it is longer than 1024 bytes".to_owned());
    }
    let plain = |c: char| c.is_ascii_graphic() && !"?#\\\"<>^`|".contains(c);
    if !uri.chars().all(plain) {
        return Err("it has spaces, a query, or characters that must be percent-encoded".to_owned());
    }
    parse(uri)?;
    let whole = |part: &str| part == "*" || (part.starts_with('{') && part.ends_with('}'));
    if uri.split('/').any(|part| part.contains(['*', '{', '}']) && !whole(part)) {
        return Err("a * or {parameter} is a whole segment".to_owned());
    }
    Ok(())
}
