//! Which program of a source is the function.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use super::exec::Options;

/// Bytes of a first line that names an interpreter; the kernel reads no more either.
const FIRST_LINE: u64 = 255;

/// A program and how it is started.
pub(super) struct Found {
    /// Its path from the source's root, with `./`.
    pub name: String,
    /// The command.
    pub command: Vec<String>,
}

/// The program `name` of the source, or, where that is empty, the only one there is.
///
/// # Errors
/// What is wrong with the name or the source, for the function's owner.
pub(super) fn program(source: &Path, name: &str, options: &Options) -> Result<Found, String> {
    let name = match name {
        "" => only(source, options)?,
        name => name.to_owned(),
    };
    let (name, path) = named(source, &name)?;
    let data = fs::metadata(&path).map_err(|error| format!("the handler {name}: {error}"))?;
    let file = path.display().to_string();
    let own = || -> Result<Vec<String>, String> {
        if data.permissions().mode() & 0o111 != 0 {
            return Ok(vec![file.clone()]);
        }
        let mut command = first_line(&path).ok_or_else(|| {
            format!("{name} is not executable (chmod +x) and has no first line that begins with #!")
        })?;
        command.push(file.clone());
        Ok(command)
    };
    let command = match &options.interpreter {
        Some(interpreter) => Ok(vec![interpreter.clone(), file.clone()]),
        None => own(),
    }?;
    Ok(Found { name, command })
}

/// The interpreter that the first line names, and its argument.
fn first_line(path: &Path) -> Option<Vec<String>> {
    let mut text = Vec::new();
    fs::File::open(path).ok()?.take(FIRST_LINE).read_to_end(&mut text).ok()?;
    let line = text.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim();
    let mut words = line.splitn(2, char::is_whitespace).map(|word| word.trim().to_owned());
    let interpreter = words.next().filter(|word| !word.is_empty())?;
    Some([interpreter].into_iter().chain(words).collect())
}

/// The file `name` of the source: its name with `./`, and its path.
///
/// # Errors
/// It is none, or outside.
pub fn named(source: &Path, name: &str) -> Result<(String, PathBuf), String> {
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(name).components().all(plain) {
        return Err(format!("the handler {name} does not name a file of the source"));
    }
    let name = name.trim_start_matches("./");
    let path = source.join(name);
    match path.is_file() {
        true => Ok((format!("./{name}"), path)),
        false => Err(format!("the handler ./{name} is not a file of the source")),
    }
}

/// The only file at the top of the source that `fits`; `kind` says for users what does.
///
/// # Errors
/// There is none, or more than one.
pub fn only_one(source: &Path, kind: &str, fits: impl Fn(&Path) -> bool) -> Result<String, String> {
    let entries = fs::read_dir(source).map_err(|error| error.to_string())?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_file() && fits(&entry.path()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    match names.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(format!("the source has no {kind}: name the file with --handler")),
        several => Err(format!(
            "the source has more than one {kind} ({}): name the file with --handler",
            several.join(", ")
        )),
    }
}

fn only(source: &Path, options: &Options) -> Result<String, String> {
    let suffix = options.suffix.as_str();
    let kind = match suffix {
        "" => "executable file".to_owned(),
        suffix => format!("file *{suffix}"),
    };
    only_one(source, &kind, |path| {
        let runs = options.interpreter.is_some()
            || fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o111 != 0)
            || first_line(path).is_some();
        runs && path.to_str().is_some_and(|path| path.ends_with(suffix))
    })
}
