//! Code that is compiled once, when the function is built, and mapped by every worker.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dispatch_runner::adapter::find;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

/// Where compiled files are, in the source that workers get. What a user's source has of this name is
/// left out when it is built.
const PLACE: &str = ".compiled";

/// A module or component that is compiled.
pub enum Code {
    /// A core module.
    Module(Module),
    /// A component.
    Component(Component),
}

/// The file of a source that is the function: its name with `./`, and its path.
///
/// # Errors
/// There is none, or more than one and no handler.
pub fn find(source: &Path, handler: &str) -> Result<(String, PathBuf), String> {
    let is_code =
        |path: &Path| path.extension().is_some_and(|kind| kind == "wasm" || kind == "wat");
    let name = match handler {
        "" => find::only_one(source, "file *.wasm or *.wat", is_code)?,
        name => name.to_owned(),
    };
    find::named(source, &name)
}

/// Where the compiled form of the file `name` is.
fn place(source: &Path, name: &str) -> PathBuf {
    let flat = name.trim_start_matches("./").replace('/', "%");
    source.join(PLACE).join(format!("{flat}.cwasm"))
}

/// The code of the file `name`: the compiled form if this engine made it, else compiled now.
///
/// # Errors
/// It is no module or component.
pub fn load(engine: &Engine, source: &Path, name: &str) -> Result<Code, String> {
    let compiled = place(source, name);
    if compiled.is_file()
        && let Some(code) = map(engine, &compiled)
    {
        return Ok(code);
    }
    let bytes = read(&source.join(name))?;
    let text = |error: wasmtime::Error| format!("{error:#}");
    if is_component(&bytes) {
        return Component::new(engine, &bytes).map(Code::Component).map_err(text);
    }
    Module::new(engine, &bytes).map(Code::Module).map_err(text)
}

/// None where another version or another machine's engine made it.
#[expect(unsafe_code, reason = "compiled code is run as it is")]
fn map(engine: &Engine, compiled: &Path) -> Option<Code> {
    use wasmtime::Precompiled;
    match Engine::detect_precompiled_file(compiled).ok()?? {
        Precompiled::Module => {
            // SAFETY: the file was made by `build` in a directory that only the server writes, and is
            // never changed. Where a source was not built it could be its owner's: native code, then,
            // in the sandbox of its owner, where other languages let it run native code as well.
            let module = unsafe { Module::deserialize_file(engine, compiled) };
            module.ok().map(Code::Module)
        }
        Precompiled::Component => {
            // SAFETY: as above.
            let component = unsafe { Component::deserialize_file(engine, compiled) };
            component.ok().map(Code::Component)
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    Ok(wat::parse_bytes(&bytes).map_err(|error| error.to_string())?.into_owned())
}

/// Whether a binary is a component and no core module: the layer, the second half of its version, is 1.
fn is_component(bytes: &[u8]) -> bool {
    bytes.get(6) == Some(&1)
}

/// Copies a source and compiles its function.
///
/// # Errors
/// What is wrong with the function, or what the system said.
pub fn build(engine: &Engine, source: &Path, output: &Path, handler: &str) -> Result<(), String> {
    let (name, path) = find(source, handler)?;
    let bytes = read(&path).map_err(|reason| format!("{name}: {reason}"))?;
    let compiled = match is_component(&bytes) {
        true => engine.precompile_component(&bytes),
        false => engine.precompile_module(&bytes),
    };
    let compiled = compiled.map_err(|error| format!("{name}: {error:#}"))?;
    let target = place(output, &name);
    let system = |error: io::Error| format!("{}: {error}", output.display());
    copy(source, output, true).map_err(system)?;
    fs::create_dir_all(target.parent().unwrap_or(output)).map_err(system)?;
    fs::write(&target, compiled).map_err(system)
}

fn copy(from: &Path, to: &Path, top: bool) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if top && entry.file_name() == PLACE {
            continue;
        }
        if kind.is_dir() {
            fs::create_dir(&target)?;
            copy(&entry.path(), &target, false)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
