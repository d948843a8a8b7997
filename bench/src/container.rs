//! A container image with nothing but this program and the libraries it needs, as an OCI layout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

/// The port that its server listens on.
const PORT: u16 = 8080;

/// Writes it into a directory: started, it serves the work that is measured with hyper alone.
///
/// # Errors
/// The libraries are not found, or files cannot be written.
pub fn layout(directory: &Path) -> anyhow::Result<()> {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let blob = |kind: &str, bytes: &[u8]| -> anyhow::Result<Value> {
        let hex = hex(bytes);
        fs::write(blobs.join(&hex), bytes)?;
        Ok(json!({"mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{hex}"), "size": bytes.len()}))
    };
    let tree = tree()?;
    let layer = blob("layer.v1.tar", &tree)?;
    let port = PORT.to_string();
    let config = json!({"os": "linux", "architecture": architecture(),
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&tree))]},
        "config": {"Entrypoint": ["/server", "toy", "serve", port],
            "ExposedPorts": {format!("{port}/tcp"): {}}}});
    let config = blob("config.v1+json", config.to_string().as_bytes())?;
    let kind = "manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer],
        "mediaType": format!("application/vnd.oci.image.{kind}")});
    let manifest = blob(kind, manifest.to_string().as_bytes())?;
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(directory.join("index.json"), index.to_string())?;
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files, as an archive.
fn tree() -> anyhow::Result<Vec<u8>> {
    let program = std::env::current_exe()?;
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_path_with_name(&program, "server")?;
    for library in libraries(&program)? {
        let inside = library.strip_prefix("/")?.to_owned();
        archive.append_path_with_name(fs::canonicalize(&library)?, inside)?;
    }
    Ok(archive.into_inner()?)
}

/// The libraries of a program, the loader among them, where it looks for them.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let said = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    ensure!(said.status.success(), "ldd failed: {}", String::from_utf8_lossy(&said.stderr));
    let text = String::from_utf8(said.stdout)?;
    let paths = text.lines().filter_map(|line| {
        line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from)
    });
    Ok(paths.collect())
}
