//! Container images made of this machine's own files.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::digest::{SHA256, digest};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

/// The layers of an image, uncompressed.
pub struct Layers(Vec<Vec<u8>>);

/// The files of a layer.
pub struct Files(tar::Builder<Vec<u8>>);

impl Files {
    pub fn new() -> Files {
        Files(tar::Builder::new(Vec::new()))
    }

    pub fn text(mut self, path: &str, text: &str) -> Files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(text.len() as u64);
        header.set_cksum();
        self.0.append_data(&mut header, path, text.as_bytes()).unwrap();
        self
    }

    /// A file of the machine under another name.
    pub fn copy(mut self, from: &Path, to: &str) -> Files {
        self.0.append_file(to, &mut fs::File::open(from).unwrap()).unwrap();
        self
    }

    /// Programs and libraries of the machine, with what they are linked with.
    pub fn programs(mut self, paths: &[PathBuf]) -> Files {
        let mut all: BTreeSet<PathBuf> = BTreeSet::new();
        for path in paths {
            all.insert(path.clone());
            let linked = Command::new("ldd").arg(path).output().unwrap();
            let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
            all.extend(linked.split_whitespace().filter(|w| w.starts_with('/')).map(PathBuf::from));
        }
        for path in all {
            let inside = path.strip_prefix("/").unwrap().to_str().unwrap().to_owned();
            self = self.copy(&path, &inside);
        }
        self
    }

    fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn sha256(bytes: &[u8]) -> String {
    let hash = digest(&SHA256, bytes);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes one file of all modules, compiled where they are: where Python looks for one, thousands of
/// files need not be made in each image.
const PACK: &str = "
import os, sys, sysconfig, zipfile
library = sysconfig.get_paths()['stdlib']
out = {'dist-packages', 'site-packages', 'ensurepip', 'idlelib', 'lib2to3', 'test', '__pycache__'}
with zipfile.ZipFile(sys.argv[1], 'w') as archive:
    for directory, names, files in os.walk(library):
        names[:] = [name for name in names if name not in out and not name.startswith('config-')]
        for name in files:
            if not name.endswith('.py'):
                continue
            path = os.path.join(directory, name)
            inside = os.path.relpath(path, library)
            compiled = f'{name[:-3]}.{sys.implementation.cache_tag}.pyc'
            compiled = os.path.join(directory, '__pycache__', compiled)
            if os.path.exists(compiled):
                archive.write(compiled, inside[:-3] + '.pyc')
            else:
                archive.write(path, inside)
print(os.path.realpath(sys.executable))
print(library)
print('python%d%d.zip' % sys.version_info[:2])
";

fn python(code: &str, argument: &Path) -> String {
    let output = Command::new("python3").args(["-c", code]).arg(argument).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').unwrap().0
}

impl Layers {
    /// Of these files.
    pub fn of(files: Vec<Files>) -> Layers {
        Layers(files.into_iter().map(Files::done).collect())
    }

    /// Python of this machine, and nothing else of it.
    pub fn python() -> Layers {
        let zip = tempfile::NamedTempFile::new().unwrap();
        let said = python(PACK, zip.path());
        let said: Vec<&str> = said.lines().collect();
        let [executable, library, version] = said[..] else { panic!("{said:?}") };
        let modules = Path::new(library).join("lib-dynload");
        let linked = fs::read_dir(modules).unwrap().flatten().map(|entry| entry.path());
        let programs: Vec<PathBuf> = linked.chain([PathBuf::from(executable)]).collect();
        let inside = |path: &str| path.trim_start_matches('/').to_owned();
        let names = Files::new()
            .copy(Path::new(executable), "usr/bin/python3")
            .copy(zip.path(), &inside(&format!("{}/{version}", parent(library))))
            .copy(&Path::new(library).join("os.py"), &inside(&format!("{library}/os.py")));
        Layers::of(vec![Files::new().programs(&programs), names])
    }

    /// With one more layer.
    pub fn with(mut self, files: Files) -> Layers {
        self.0.push(files.done());
        self
    }

    /// All files of the image by their digests, and the manifest.
    pub fn blobs(&self, config: &Value) -> (Vec<(String, Vec<u8>)>, Vec<u8>) {
        let mut blobs = Vec::new();
        let mut blob = |kind: &str, bytes: Vec<u8>| {
            let (hex, size) = (sha256(&bytes), bytes.len());
            blobs.push((hex.clone(), bytes));
            json!({"mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": format!("sha256:{hex}"), "size": size})
        };
        let layers: Vec<Value> = self
            .0
            .iter()
            .map(|tar| {
                // Compressing takes long, and says nothing more the second time.
                if tar.len() > 1 << 20 {
                    return blob("layer.v1.tar", tar.clone());
                }
                let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
                gzip.write_all(tar).unwrap();
                blob("layer.v1.tar+gzip", gzip.finish().unwrap())
            })
            .collect();
        let ids: Vec<String> = self.0.iter().map(|tar| format!("sha256:{}", sha256(tar))).collect();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({"architecture": architecture, "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": ids}});
        let config = blob("config.v1+json", config.to_string().into_bytes());
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers,
            "mediaType": "application/vnd.oci.image.manifest.v1+json"});
        (blobs, manifest.to_string().into_bytes())
    }

    /// Writes the image as an OCI layout.
    pub fn layout(&self, directory: &Path, config: &Value) {
        let place = directory.join("blobs/sha256");
        fs::create_dir_all(&place).unwrap();
        let (blobs, manifest) = self.blobs(config);
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{}", sha256(&manifest)), "size": manifest.len()}]});
        fs::write(place.join(sha256(&manifest)), manifest).unwrap();
        for (hex, bytes) in blobs {
            fs::write(place.join(hex), bytes).unwrap();
        }
        fs::write(directory.join("index.json"), index.to_string()).unwrap();
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }
}
