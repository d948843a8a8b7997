//! Files of resources: YAML documents, or JSON.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use dispatch_api::client::{Api, Resource};
use dispatch_api::{
    BaseImage, Driver, DriverType, Endpoint, Function, Image, Schedule, Secret, Subscription, wire,
};
use serde_json::Value;
use url::Url;

use crate::args::FileArgs;
use crate::error::{Error, Result};
use crate::input;
use crate::model::{self, model};
use crate::nouns::Noun;
use crate::pack;
use crate::tree::Tree;

/// The kinds that files can hold.
const KINDS: &str = "API, BaseImage, Driver, DriverType, Endpoint, Function, Image, Schedule, Secret or \
                     Subscription";
const FETCH: Duration = Duration::from_secs(60);

/// A resource from a file.
pub enum Document {
    BaseImage(BaseImage),
    Image(Image),
    Function(Box<Function>),
    Secret(Secret),
    Endpoint(Endpoint),
    Api(Api),
    Schedule(Box<Schedule>),
    Subscription(Box<Subscription>),
    Driver(Box<Driver>),
    DriverType(DriverType),
}

/// A file that has been read, and where the files it names are.
pub struct Source {
    /// What it is called in messages.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Where it was fetched from, up to the last slash.
    base: Option<Url>,
    /// The directory of the files it names.
    dir: PathBuf,
}

impl Source {
    /// A text that is at hand, which names files in `dir`.
    pub fn text(name: &str, text: String, dir: &str) -> Source {
        Source { name: name.to_owned(), text, base: None, dir: dir.into() }
    }

    /// Reads a file, or fetches a URL.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn open(args: &FileArgs, file: &str) -> Result<Source> {
        let wrong = |cause: String| Error::local(format!("Error reading file {file}: {cause}"));
        if file.starts_with("http://") || file.starts_with("https://") {
            let url = Url::parse(file).map_err(|error| wrong(error.to_string()))?;
            let text = String::from_utf8(fetch(&url).await.map_err(wrong)?)
                .map_err(|_| wrong("not UTF-8".to_owned()))?;
            let base = url.join(".").ok();
            return Ok(Source { name: file.to_owned(), text, base, dir: (&args.work_dir).into() });
        }
        let path = Path::new(&args.work_dir).join(file);
        let text = input::text(&path).map_err(|cause| {
            Error::local(format!("Error reading file {}: {cause}", path.display()))
        })?;
        Ok(Source::text(file, text, &args.work_dir))
    }

    /// Reads all documents.
    ///
    /// # Errors
    /// The first that is malformed or of an unknown kind.
    pub fn documents(&self) -> Result<Vec<Document>> {
        let mut documents = Vec::new();
        for (at, text) in split(&self.text).into_iter().enumerate() {
            let place = format!("document {} of {}", at + 1, self.name);
            let plain = model::read(&text, &Tree::Leaf(Value::Null))
                .map_err(|error| Error::local(format!("Error decoding {place}: {error}")))?;
            match plain {
                Value::Null => {}
                Value::Object(members) => documents.push(document(&members, &text, &place)?),
                _ => {
                    let text =
                        format!("Error decoding {place}: it is not a mapping of keys to values");
                    return Err(Error::local(text));
                }
            }
        }
        Ok(documents)
    }

    /// The path of a file that a document names. What a document from elsewhere names must not
    /// lead out of the directory.
    pub fn path(&self, named: &str) -> Result<PathBuf> {
        let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if self.base.is_some() && !Path::new(named).components().all(inside) {
            let text = format!("{}: the path {named} leads out of the directory", self.name);
            return Err(Error::local(text));
        }
        Ok(self.dir.join(named))
    }

    /// Puts the manifest's file into an image.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn complete_image(&self, image: &mut Image) -> Result {
        let manifest = &mut image.runtime_dependencies.manifest;
        if let Some(named) = manifest.strip_prefix('@').map(str::trim) {
            let path = self.path(named)?;
            *manifest = input::text(&path).map_err(|cause| {
                Error::local(format!("Error when reading content of {}: {cause}", path.display()))
            })?;
        }
        Ok(())
    }

    /// Puts the source into a function.
    ///
    /// # Errors
    /// The source cannot be read, fetched or packed.
    pub async fn complete_function(&self, function: &mut Function) -> Result {
        if function.source_path.is_empty() {
            return Ok(());
        }
        let path = self.path(&function.source_path)?;
        if let (Some(base), false) = (&self.base, path.exists()) {
            let failed = |cause: String| {
                Error::local(format!(
                    "error fetching {} of function {}: {cause}",
                    function.source_path, function.name
                ))
            };
            let url =
                base.join(&function.source_path).map_err(|error| failed(error.to_string()))?;
            let bytes = fetch(&url).await.map_err(failed)?;
            let dir = path.parent().unwrap_or(Path::new(""));
            std::fs::create_dir_all(dir)
                .and_then(|()| std::fs::write(&path, bytes))
                .map_err(|error| failed(error.to_string()))?;
        }
        function.source = pack::source(&function.name, &function.handler, &path)?;
        function.source_path.clear();
        Ok(())
    }
}

/// Splits at lines that are `---`; such a line cannot be a part of a YAML text.
fn split(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.split_inclusive('\n') {
        let rest = line.trim_end().strip_prefix("---");
        match (rest, documents.last_mut()) {
            (Some(rest), _) if rest.is_empty() || rest.starts_with([' ', '\t']) => {
                documents.push(format!("{}\n", rest.trim_start()));
            }
            (_, Some(document)) => document.push_str(line),
            (_, None) => {}
        }
    }
    if documents.first().is_some_and(|first| first.trim().is_empty()) && documents.len() > 1 {
        documents.remove(0);
    }
    documents
}

fn document(members: &serde_json::Map<String, Value>, text: &str, place: &str) -> Result<Document> {
    let kind = members.iter().find(|(key, _)| key.eq_ignore_ascii_case("kind"));
    let kind = kind.and_then(|(_, kind)| kind.as_str()).unwrap_or_default();
    Ok(match kind {
        "BaseImage" => Document::BaseImage(decode(text, place)?),
        "Image" => Document::Image(decode(text, place)?),
        "Function" => Document::Function(Box::new(decode(text, place)?)),
        "Secret" => Document::Secret(decode(text, place)?),
        "Endpoint" => Document::Endpoint(decode(text, place)?),
        "Schedule" => Document::Schedule(Box::new(decode(text, place)?)),
        "API" => Document::Api(decode(text, place)?),
        "Driver" => Document::Driver(Box::new(decode(text, place)?)),
        "DriverType" => Document::DriverType(decode(text, place)?),
        "Subscription" => Document::Subscription(Box::new(decode(text, place)?)),
        "" => return Err(Error::local(format!("{place} has no kind: it must be {KINDS}"))),
        other => {
            let text = format!("{place} has the unknown kind {other}: it must be {KINDS}");
            return Err(Error::local(text));
        }
    })
}

fn decode<T: Noun>(text: &str, place: &str) -> Result<T> {
    let wrong = |cause: String| {
        let kind = <T as Resource>::KIND;
        Error::local(format!("Error decoding {kind} {place}: {cause}"))
    };
    let value = model::read(text, &model(T::MODEL)).map_err(wrong)?;
    wire::from_value(value).map_err(|invalid| wrong(invalid.message))
}

/// Fetches a file.
async fn fetch(url: &Url) -> std::result::Result<Vec<u8>, String> {
    let failed = |error: reqwest::Error| format!("{url}: {error}");
    let client = reqwest::Client::builder().timeout(FETCH).build().map_err(failed)?;
    let mut response = client.get(url.clone()).send().await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(format!("{url}: HTTP {}", response.status()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > input::MAX_INPUT {
            return Err(format!("{url}: more than {} bytes", input::MAX_INPUT));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn documents_are_split_at_lines_only() {
        let text =
            "--- # first\na: |\n  ---\n  x --- y\n---\nb: '---x'\n---x: 1\n--- {c: 1}\n---\n";
        let parts = split(text);
        let wanted =
            ["# first\na: |\n  ---\n  x --- y\n", "\nb: '---x'\n---x: 1\n", "{c: 1}\n", "\n"];
        assert_eq!(parts, wanted);
        assert_eq!(split("a: 1\r\n---\r\nb: 2"), ["a: 1\r\n", "\nb: 2"]);
        assert_eq!(split(""), [""]);
    }

    #[test]
    fn odd_yaml_is_read() {
        let text = "kind: Secret\nNAME: s\nsecrets: {a: 1, b: true, c: 1.10}\n---\n\n---\n\
                    {\"kind\": \"Image\", \"name\": \"i\", \"baseimage\": \"b\",\n\
                    \"systemDependencies\": {\"packages\": [{\"name\": \"p\", \"version\": 1.0}]}}\n\
                    --- # comment\nkind: API\nname: a\nfunction: f\nenabled: yes\nuris: [/x]\n";
        let documents = Source::text("f", text.to_owned(), "").documents().unwrap();
        let [Document::Secret(secret), Document::Image(image), Document::Api(api)] = &documents[..]
        else {
            panic!("{} documents", documents.len());
        };
        assert_eq!(secret.secrets.values().collect::<Vec<_>>(), ["1", "true", "1.10"]);
        assert_eq!(image.base_image_name, "b");
        assert_eq!(image.system_dependencies.packages[0].version, "1.0");
        assert!(api.0.enabled);
    }

    #[test]
    fn mistakes_name_the_document() {
        let error = |text: &str| {
            let source = Source::text("f.yaml", text.to_owned(), "");
            source.documents().err().unwrap().to_string()
        };
        let text = error("kind: Image\nname: i\nbaseImageName: b\n---\nkind: Policy\nname: d\n");
        assert!(text.starts_with("document 2 of f.yaml has the unknown kind Policy"), "{text}");
        assert!(error("name: x\n").contains("has no kind"));
        let text = error("kind: Function\nname: [x]\n");
        assert!(text.starts_with("Error decoding Function document 1 of f.yaml"), "{text}");
        assert!(error("kind: Function\nname: a b\nimage: i\n").contains("name should start with"));
        assert!(error("- 1\n").contains("not a mapping"));
        assert!(error("a: [\n").contains("document 1"));
    }

    #[test]
    fn files_from_elsewhere_do_not_lead_out() {
        let mut source = Source::text("u", String::new(), "dir");
        assert_eq!(source.path("../x").unwrap(), Path::new("dir/../x"));
        source.base = Url::parse("http://h/a/").ok();
        assert_eq!(source.path("./b/c.py").unwrap(), Path::new("dir/./b/c.py"));
        for out in ["../x", "/etc/passwd", "a/../../x"] {
            assert!(source.path(out).is_err(), "{out}");
        }
    }
}
