//! Resources as YAML.
//!
//! A model is what a resource looks like when nothing is set, as JSON with keys in lower case:
//!
//! * `""`, `0`, `false`: a text, a number, a boolean;
//! * `[x]`: a list of values like `x`; absent means empty;
//! * `{"*": x}`: keys of the user's choice, each with a value like `x`;
//! * `{...}`: these members, and others that are not known here;
//! * `null`: anything, passed on as it is.
//!
//! Written YAML has every member of the model, in its order. Read YAML may write keys in any case,
//! and a scalar is read as what the model has in its place: `version: 1.10` is the text `1.10`.

use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use serde_saphyr::LitStr;

use crate::tree::Tree;

/// Reads a model.
pub fn model(text: &str) -> Tree {
    serde_json::from_str(text).unwrap_or(Tree::Leaf(Value::Null))
}

/// The member for keys of the user's choice.
fn any_key(model: &Tree) -> Option<&Tree> {
    match model {
        Tree::Map(members) => members.iter().find(|(key, _)| key == "*").map(|(_, value)| value),
        _ => None,
    }
}

/// Puts a value into the form of its model.
pub fn fill(value: Tree, model: &Tree) -> Tree {
    match (value, model) {
        (Tree::Leaf(Value::Null), Tree::List(_)) => Tree::List(Vec::new()),
        (Tree::Leaf(Value::Null), model) if any_key(model).is_some() => Tree::Map(Vec::new()),
        (Tree::Leaf(Value::Null), Tree::Map(_)) => fill(Tree::Map(Vec::new()), model),
        (Tree::Leaf(Value::Null), model) => model.clone(),
        (Tree::List(items), Tree::List(models)) => {
            let anything = Tree::Leaf(Value::Null);
            let model = models.first().unwrap_or(&anything);
            Tree::List(items.into_iter().map(|item| fill(item, model)).collect())
        }
        (Tree::Map(members), model) if any_key(model).is_some() => Tree::Map(members),
        (Tree::Map(members), Tree::Map(models)) => {
            let mut rest: Vec<_> =
                members.into_iter().map(|(key, value)| (key.to_lowercase(), value)).collect();
            let mut filled = Vec::new();
            for (key, model) in models {
                let found = rest.iter().position(|(other, _)| other == key);
                let value = found.map_or(Tree::Leaf(Value::Null), |at| rest.remove(at).1);
                filled.push((key.clone(), fill(value, model)));
            }
            filled.extend(rest);
            Tree::Map(filled)
        }
        (value, _) => value,
    }
}

/// Writes YAML.
pub fn write(tree: &Tree) -> String {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(&Yaml(tree), options).unwrap_or_default()
}

/// A tree whose texts of several lines are written as lines.
struct Yaml<'a>(&'a Tree);

impl Serialize for Yaml<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Tree::Leaf(Value::String(text)) if is_lines(text) => {
                LitStr(text.as_str()).serialize(serializer)
            }
            Tree::Leaf(value) => value.serialize(serializer),
            Tree::List(items) => serializer.collect_seq(items.iter().map(Yaml)),
            Tree::Map(members) => {
                serializer.collect_map(members.iter().map(|(key, value)| (key, Yaml(value))))
            }
        }
    }
}

/// Whether a text can be written line by line without losing anything.
fn is_lines(text: &str) -> bool {
    let plain = |line: &str| !line.ends_with(' ') && line.chars().all(|c| !c.is_control());
    text.contains('\n')
        && !text.starts_with([' ', '\n'])
        && text.lines().all(plain)
        && !text.ends_with("\n\n")
}

/// Reads a document, each scalar as what the model has in its place.
///
/// # Errors
/// What is not YAML, or a value of another kind than the model's, with the line.
pub fn read(document: &str, model: &Tree) -> Result<Value, String> {
    serde_saphyr::with_deserializer_from_str(document, |de| Like(model).deserialize(de))
        .map_err(|error| error.to_string())
}

/// Reads a value like this one.
#[derive(Clone, Copy)]
struct Like<'a>(&'a Tree);

impl<'de> DeserializeSeed<'de> for Like<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.0 {
            Tree::Leaf(Value::Null) => Value::deserialize(deserializer),
            _ => deserializer.deserialize_option(self),
        }
    }
}

impl<'de> Visitor<'de> for Like<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Tree::Leaf(_) => "a value",
            Tree::List(_) => "a list",
            Tree::Map(_) => "a mapping",
        })
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.0 {
            Tree::Leaf(Value::String(_)) => String::deserialize(deserializer).map(Value::String),
            Tree::Leaf(Value::Bool(_)) => bool::deserialize(deserializer).map(Value::Bool),
            Tree::Leaf(Value::Number(_)) => i64::deserialize(deserializer).map(Value::from),
            Tree::Leaf(_) => Value::deserialize(deserializer),
            Tree::List(_) => deserializer.deserialize_seq(self),
            Tree::Map(_) => deserializer.deserialize_map(self),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let anything = Tree::Leaf(Value::Null);
        let model = match self.0 {
            Tree::List(models) => models.first().unwrap_or(&anything),
            _ => &anything,
        };
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Like(model))? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let anything = Tree::Leaf(Value::Null);
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let (key, model) = match (any_key(self.0), self.0) {
                (Some(model), _) => (key, model),
                (None, Tree::Map(members)) => {
                    let known = members.iter().find(|(name, _)| name.eq_ignore_ascii_case(&key));
                    known.map_or((key, &anything), |(name, model)| (name.clone(), model))
                }
                _ => (key, &anything),
            };
            object.insert(key, map.next_value_seed(Like(model))?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    const MODEL: &str = r#"{"name":"","size":0,"live":false,"list":[""],"free":{"*":""},
        "inner":{"version":""},"any":null}"#;

    #[test]
    fn scalars_are_read_as_the_model_says() {
        let text = "NAME: 5\nsize: 7\nlive: yes\nlist: [1.10, true, ~]\nfree: {A: 0x10, b: no}\n\
                    inner:\n  Version: 1.0\nany: {X: 1.5, y: [yes, null]}\nother: 3\n";
        let wanted = json!({
            "name": "5", "size": 7, "live": true, "list": ["1.10", "true", null],
            "free": {"A": "0x10", "b": "no"}, "inner": {"version": "1.0"},
            "any": {"X": 1.5, "y": [true, null]}, "other": 3,
        });
        assert_eq!(read(text, &model(MODEL)).unwrap(), wanted);
        assert_eq!(read("{\"name\": \"x\"}", &model(MODEL)).unwrap(), json!({"name": "x"}));
    }

    #[test]
    fn a_wrong_kind_names_its_line() {
        let error = read("name: a\nsize: [1]\n", &model(MODEL)).unwrap_err();
        assert!(error.contains('2'), "{error}");
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
                    c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
                    e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n\
                    g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
        assert!(read(bomb, &model("null")).is_err());
    }

    #[test]
    fn every_member_is_written_and_unknown_ones_come_last() {
        let value = json!({"Extra": 1, "name": "nm", "list": null, "free": {"Key": "v"}});
        let filled = fill(Tree::of(&value), &model(MODEL));
        let wanted = "name: nm\nsize: 0\nlive: false\nlist: []\nfree:\n  Key: v\ninner:\n  \
                      version: \"\"\nany: null\nextra: 1\n";
        assert_eq!(write(&filled), wanted);
    }

    #[test]
    fn texts_survive_writing_and_reading() {
        for text in [
            "",
            " ",
            "a\nb",
            "a\nb\n",
            "a\n\nb\n\n",
            "\na",
            " a\nb",
            "a \nb",
            "yes",
            "1.10",
            "~",
            "- x",
            "a: b",
            "# c",
            "é\u{1}\u{7f}",
            "a\tb\n\tc",
            "---",
            "---\nx\n---\n",
            "{}",
            "[",
            "'\"\\",
            "null",
            "2026-01-01",
            "127.0.0.1:5000/x:1",
            "a\r\nb",
            "\u{feff}x",
            "%YAML",
            "x #y",
            "0x1F",
            "|",
        ] {
            let tree = Tree::Map(vec![("name".to_owned(), Tree::text(text))]);
            let written = write(&tree);
            let value = read(&written, &model("null")).unwrap();
            assert_eq!(value, json!({ "name": text }), "{written}");
        }
    }
}
