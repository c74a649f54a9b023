//! Manifests: text in, objects out. YAML or JSON, one document or several, objects or lists of them.
#![forbid(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_yaml_ng::{Deserializer, Value};

/// What somebody makes of objects.
pub trait Object: Sized {
    /// Reads an object of a kind; `None` where that kind is nothing to it.
    ///
    /// # Errors
    /// Where the object makes no sense.
    fn read<'de, D: serde::Deserializer<'de>>(kind: &str, from: D) -> Result<Option<Self>, D::Error>;
}

/// An object of a file, or what is wrong with one; with the number of its line.
pub type Parsed<T> = (usize, Result<T, String>);

/// Whether a file is a manifest, by its name.
pub fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

/// All objects of a file. Kinds that are nothing to the reader are passed over.
pub fn parse<T: Object>(text: &str) -> Vec<Parsed<T>> {
    documents(text).iter().flat_map(Document::parse).collect()
}

/// The documents of a file.
fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut line, mut at) = (0, 1, 0);
    for (number, found) in text.split_inclusive('\n').enumerate() {
        // What follows the marker belongs to the document that it begins (YAML 1.2 section 9.1.4).
        let after = found.strip_prefix("---");
        if after.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) {
            documents.push(Document { line, text: &text[start..at] });
            start = at + "---".len();
            line = number + 1;
        }
        at += found.len();
    }
    documents.push(Document { line, text: &text[start..] });
    documents.retain(|document| document.first().is_some());
    documents
}

/// A document, with the number of the line that it begins on.
struct Document<'a> {
    line: usize,
    text: &'a str,
}

#[derive(Deserialize)]
struct Typed {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    items: Vec<Value>,
}

impl Document<'_> {
    /// The number of its first line that says something.
    fn first(&self) -> Option<usize> {
        let says = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        self.text.lines().position(says).map(|inner| self.line + inner)
    }

    fn parse<T: Object>(&self) -> Vec<Parsed<T>> {
        let line = self.first().unwrap_or(self.line);
        let typed = match Typed::deserialize(Deserializer::from_str(self.text)) {
            Ok(typed) => typed,
            Err(error) => return vec![self.wrong(&error)],
        };
        match (typed.kind.as_str(), typed.kind.strip_suffix("List")) {
            ("", _) => vec![(line, Err("an object without kind".into()))],
            (_, Some(of_list)) => {
                let items = typed.items.into_iter().enumerate();
                items.filter_map(|(index, item)| self.item(index, of_list, item)).collect()
            }
            (kind, None) => match T::read(kind, Deserializer::from_str(self.text)) {
                Ok(object) => object.map(|object| (line, Ok(object))).into_iter().collect(),
                Err(error) => vec![self.wrong(&error)],
            },
        }
    }

    /// An item of a list; items of a typed list need not say what they are.
    fn item<T: Object>(&self, index: usize, of_list: &str, item: Value) -> Option<Parsed<T>> {
        let kind = item.get("kind").and_then(Value::as_str).unwrap_or(of_list).to_owned();
        match T::read(&kind, item) {
            Ok(object) => object.map(|object| (self.first().unwrap_or(self.line), Ok(object))),
            // A value knows no line: only the text does.
            Err(error) => {
                let again = AtIndex { index, kind: &kind, read: PhantomData::<T> }
                    .deserialize(Deserializer::from_str(self.text));
                Some(self.wrong(&again.err().unwrap_or(error)))
            }
        }
    }

    fn wrong<T>(&self, error: &serde_yaml_ng::Error) -> Parsed<T> {
        let line = match error.location() {
            // The YAML reader sees the end of a text one line after its last.
            Some(location) => self.line + location.line().min(self.text.lines().count()).saturating_sub(1),
            None => self.first().unwrap_or(self.line),
        };
        (line, Err(error.to_string()))
    }
}

/// Reads one item of a list's text, and nothing else of it: an error says where in the text it is.
struct AtIndex<'a, T> {
    index: usize,
    kind: &'a str,
    read: PhantomData<T>,
}

impl<'de, T: Object> DeserializeSeed<'de> for AtIndex<'_, T> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(ListVisitor(self))
    }
}

struct ListVisitor<'a, T>(AtIndex<'a, T>);

impl<'de, T: Object> Visitor<'de> for ListVisitor<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                map.next_value_seed(Items(&self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Items<'a, T>(&'a AtIndex<'a, T>);

impl<'de, T: Object> DeserializeSeed<'de> for Items<'_, T> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de, T: Object> Visitor<'de> for Items<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("objects")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<(), S::Error> {
        for _ in 0..self.0.index {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(Item(self.0.kind, PhantomData::<T>))?;
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

struct Item<'a, T>(&'a str, PhantomData<T>);

impl<'de, T: Object> DeserializeSeed<'de> for Item<'_, T> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de, T: Object> Visitor<'de> for Item<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<(), M::Error> {
        T::read(self.0, MapAccessDeserializer::new(map)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Node's name, where its pod CIDRs are texts that end in `/24`.
    struct Named(String);

    impl Object for Named {
        fn read<'de, D: serde::Deserializer<'de>>(kind: &str, from: D) -> Result<Option<Self>, D::Error> {
            #[derive(Deserialize)]
            struct Metadata {
                name: String,
            }
            #[derive(Default, Deserialize)]
            #[serde(default, rename_all = "camelCase")]
            struct Spec {
                #[serde(rename = "podCIDRs")]
                pod_cidrs: Vec<String>,
            }
            #[derive(Deserialize)]
            struct Node {
                metadata: Metadata,
                #[serde(default)]
                spec: Spec,
            }
            if kind != "Node" {
                return Ok(None);
            }
            let Node { metadata, spec } = Node::deserialize(from)?;
            match spec.pod_cidrs.iter().find(|cidr| !cidr.ends_with("/24")) {
                Some(other) => Err(serde::de::Error::custom(format!("{other} is not supported"))),
                None => Ok(Some(Self(metadata.name))),
            }
        }
    }

    const NODE: &str = "kind: Node\nmetadata: {name: NAME}\nspec: {podCIDRs: [10.1.0.0/24]}\n";

    fn node(name: &str) -> String {
        NODE.replace("NAME", name)
    }

    /// The lines and names of objects, and the lines of what is wrong.
    fn read(text: &str) -> (Vec<(usize, String)>, Vec<usize>) {
        let (mut objects, mut wrong) = (Vec::new(), Vec::new());
        for (line, result) in parse(text) {
            match result {
                Ok(Named(name)) => objects.push((line, name)),
                Err(_) => wrong.push(line),
            }
        }
        (objects, wrong)
    }

    #[test]
    fn documents_are_told_apart_as_yaml_has_it() {
        let text = format!(
            "# first\n{}--- # second\n{}---\t\n---\n{}--- {{kind: Node, metadata: {{name: d}}}}\n",
            node("a"),
            node("b"),
            node("c")
        );
        let (objects, wrong) = read(&text);
        assert_eq!(objects, [(2, "a".into()), (6, "b".into()), (11, "c".into()), (14, "d".into())]);
        assert_eq!(wrong, [0; 0]);
        assert_eq!(read("kind: Node\nmetadata:\n  name: a---b\n").0, [(1, "a---b".into())]);
    }

    #[test]
    fn a_wrong_item_does_not_take_its_list_along_and_is_named_with_its_line() {
        let text = "\
---
kind: List
items:
- kind: Node
  metadata: {name: a}
- kind: Node
  metadata: {name: b}
  spec:
    podCIDRs: 7
- kind: Node
  metadata: {name: c}
  spec: {podCIDRs: [10.1.0.0/240]}
- kind: Service
- kind: Node
  metadata: {name: d}
";
        let (objects, wrong) = read(text);
        assert_eq!(objects.into_iter().map(|(_, name)| name).collect::<Vec<_>>(), ["a", "d"]);
        assert_eq!(wrong.len(), 2);
        assert!((6..=9).contains(&wrong[0]) && (10..=12).contains(&wrong[1]), "{wrong:?}");
        let json = r#"{"kind":"NodeList","items":[
            {"metadata":{"name":"a"}},
            {"metadata":[]},
            {"metadata":{"name":"b"}}]}"#;
        let (objects, wrong) = read(json);
        assert_eq!((objects.len(), wrong), (2, vec![3]));
    }

    #[test]
    fn what_ends_too_early_is_wrong_on_a_line_that_is_there() {
        assert_eq!(read("kind: Node\nmetadata:\n  name: \"a\n").1, [3]);
        assert_eq!(read("---\nkind: Node\nmetadata").1, [3]);
    }

    #[test]
    fn some_files_are_manifests() {
        assert!(is_manifest(Path::new("/m/a.yml")) && is_manifest(Path::new("b.json")));
        assert!(!is_manifest(Path::new("/m/.a.yaml")) && !is_manifest(Path::new("notes.txt")));
    }
}
