//! Manifests: text in, objects out. YAML or JSON, one document or several, objects or lists of them.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_yaml_ng::{Deserializer, Value};

/// What somebody makes of objects.
pub trait Object: Sized {
    /// Reads an object; `None` where what it is, by its `apiVersion` (empty: not said) and kind, is nothing to the reader.
    ///
    /// # Errors
    /// Where the object makes no sense.
    fn read(api_version: &str, kind: &str, object: serde_json::Value) -> Option<Result<Self, String>>;
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
    if let Some(documents) = json_documents(text) {
        return documents.into_iter().flat_map(|(document, value)| document.objects(value)).collect();
    }
    documents(text).iter().flat_map(Document::parse).collect()
}

/// The documents of a file that is JSON, one after the other. YAML has all of JSON, but not its escapes of surrogates.
fn json_documents(text: &str) -> Option<Vec<(Document<'_>, Value)>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut documents = Vec::new();
    loop {
        let start = values.byte_offset();
        let Some(value) = values.next() else { return Some(documents) };
        let value = value.ok()?;
        let line = 1 + text[..start].matches('\n').count();
        documents.push((Document { line, text: &text[start..values.byte_offset()] }, value));
    }
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

/// What an object is.
struct Type {
    api_version: String,
    kind: String,
}

impl Type {
    /// What an object says that it is, or else the list that it is in.
    fn of(object: &Value, of_items: Option<&Self>) -> Self {
        let text = |field| object.get(field).and_then(Value::as_str).map(str::to_owned);
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        match (kind, of_items) {
            (None, Some(Self { api_version: otherwise, kind })) => {
                Self { api_version: api_version.unwrap_or_else(|| otherwise.clone()), kind: kind.clone() }
            }
            (kind, _) => Self { api_version: api_version.unwrap_or_default(), kind: kind.unwrap_or_default() },
        }
    }

    /// What the items are, where it is a list.
    fn of_items(&self) -> Option<Self> {
        let kind = self.kind.strip_suffix("List")?.to_owned();
        Some(Self { api_version: self.api_version.clone(), kind })
    }
}

impl Document<'_> {
    /// The number of its first line that says something.
    fn first(&self) -> Option<usize> {
        let says = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        self.text.lines().position(says).map(|inner| self.line + inner)
    }

    fn parse<T: Object>(&self) -> Vec<Parsed<T>> {
        match Value::deserialize(Deserializer::from_str(self.text)) {
            Ok(value) => self.objects(value),
            Err(error) => vec![(self.line_of(&error), Err(error.to_string()))],
        }
    }

    fn objects<T: Object>(&self, value: Value) -> Vec<Parsed<T>> {
        let mut objects = Vec::new();
        self.read(value, None, &mut Vec::new(), &mut objects);
        objects
    }

    /// Reads an object, or a list of them, which may be lists too. `place` leads to it through the lists around it.
    fn read<T: Object>(
        &self,
        mut object: Value,
        of_items: Option<&Type>,
        place: &mut Vec<usize>,
        objects: &mut Vec<Parsed<T>>,
    ) {
        let first = self.first().unwrap_or(self.line);
        let its = Type::of(&object, of_items);
        if let Some(of_items) = its.of_items() {
            match object.get_mut("items").map(std::mem::take) {
                None | Some(Value::Null) => {}
                Some(Value::Sequence(items)) => {
                    for (index, item) in items.into_iter().enumerate() {
                        place.push(index);
                        self.read(item, Some(&of_items), place, objects);
                        place.pop();
                    }
                }
                Some(_) => objects.push((self.line_at(place), Err(format!("the items of a {} are no list", its.kind)))),
            }
        } else if its.kind.is_empty() {
            objects.push((self.line_at(place), Err("an object without kind".into())));
        } else {
            let read = match serde_json::to_value(object) {
                Ok(object) => T::read(&its.api_version, &its.kind, object),
                Err(error) => Some(Err(format!("a {}: {error}", its.kind))),
            };
            objects.extend(read.map(|read| (if read.is_ok() { first } else { self.line_at(place) }, read)));
        }
    }

    /// The line of an object: a value knows none, only the text does.
    fn line_at(&self, place: &[usize]) -> usize {
        let found = AtPlace(place).deserialize(Deserializer::from_str(self.text));
        match found {
            Err(error) if !place.is_empty() => self.line_of(&error),
            Ok(()) | Err(_) => self.first().unwrap_or(self.line),
        }
    }

    fn line_of(&self, error: &serde_yaml_ng::Error) -> usize {
        match error.location() {
            // The YAML reader sees the end of a text one line after its last.
            Some(location) => self.line + location.line().min(self.text.lines().count()).saturating_sub(1),
            None => self.first().unwrap_or(self.line),
        }
    }
}

/// Goes to an object in lists in a text, and no further: the error says where it is.
struct AtPlace<'a>(&'a [usize]);

impl<'de> DeserializeSeed<'de> for AtPlace<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AtPlace<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        if self.0.is_empty() {
            return Err(M::Error::custom("here"));
        }
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                map.next_value_seed(Items(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The items of a list.
struct Items<'a>(&'a [usize]);

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("objects")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<(), S::Error> {
        let Some((index, rest)) = self.0.split_first() else { return Ok(()) };
        for _ in 0..*index {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(AtPlace(rest))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Node's name, where its pod CIDRs are texts that end in `/24`.
    struct Named(String);

    impl Object for Named {
        fn read(api_version: &str, kind: &str, object: serde_json::Value) -> Option<Result<Self, String>> {
            if kind != "Node" || !["", "v1"].contains(&api_version) {
                return None;
            }
            let Some(name) = object["metadata"]["name"].as_str() else { return Some(Err("no name".into())) };
            let cidrs = match &object["spec"]["podCIDRs"] {
                serde_json::Value::Null => &Vec::new(),
                cidrs => match cidrs.as_array() {
                    Some(cidrs) => cidrs,
                    None => return Some(Err("no list".into())),
                },
            };
            let is_right = cidrs.iter().all(|cidr| cidr.as_str().is_some_and(|cidr| cidr.ends_with("/24")));
            Some(if is_right { Ok(Self(name.into())) } else { Err("not supported".into()) })
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

    #[test]
    fn lists_may_hold_lists_and_say_what_their_items_are() {
        let text = "\
kind: List
apiVersion: v1
items:
- kind: NodeList
  apiVersion: v1
  items:
  - metadata: {name: a}
  - metadata: {}
- kind: NodeList
  apiVersion: example.com/v1
  items:
  - metadata: {}
- kind: List
  items:
  - {kind: Node, metadata: {name: b}}
  - metadata: {name: c}
";
        let (objects, wrong) = read(text);
        assert_eq!(objects.into_iter().map(|(_, name)| name).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(wrong, [8, 16]);
    }

    #[test]
    fn json_is_read_as_json() {
        let smile = r#""\ud83d\ude00""#;
        let text = format!(
            "{{\n\"kind\":\"Node\",\"metadata\":{{\"name\":{smile}}}}}\n\n{{\"kind\":\"Node\"}}{{\"kind\":\"Node\",\"metadata\":{{\"name\":\"b\"}}}}"
        );
        let (objects, wrong) = read(&text);
        assert_eq!(objects, [(1, "\u{1f600}".into()), (4, "b".into())]);
        assert_eq!(wrong, [4]);
        assert_eq!(read("{kind: Node, metadata: {name: a}}\n---\n{kind: Node, metadata: {name: b}}").0.len(), 2);
    }

    #[test]
    fn what_is_said_twice_is_wrong() {
        assert_eq!(read("kind: Node\nmetadata: {name: a}\nmetadata: {name: b}\n"), (Vec::new(), vec![1]));
    }
}
