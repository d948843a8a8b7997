//! Which file of a source is the function.

use std::path::{Component, Path, PathBuf};

/// What modules and components are called: binaries and texts.
const SUFFIXES: [&str; 2] = [".wasm", ".wat"];

/// The name and path of the file that `handler` names, or of the only one there is.
///
/// # Errors
/// What is wrong with the name or the source, for the function's owner.
pub fn file(source: &str, handler: &str) -> Result<(String, PathBuf), String> {
    let name = match handler {
        "" => only(source)?,
        handler => handler.to_owned(),
    };
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(&name).components().all(plain) {
        return Err(format!("the handler {name} does not name a file of the source"));
    }
    let name = format!("./{}", name.trim_start_matches("./"));
    let path = Path::new(source).join(&name[2..]);
    match path.is_file() {
        true => Ok((name, path)),
        false => Err(format!("the handler {name} is not a file of the source")),
    }
}

fn only(source: &str) -> Result<String, String> {
    let entries = std::fs::read_dir(source).map_err(|error| error.to_string())?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| SUFFIXES.iter().any(|suffix| name.ends_with(suffix)))
        .collect();
    names.sort();
    match names.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err("the source has no file *.wasm or *.wat".to_owned()),
        several => Err(format!(
            "the source has more than one file *.wasm or *.wat ({}): name one with --handler",
            several.join(", ")
        )),
    }
}
