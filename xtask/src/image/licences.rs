//! The texts of all licences, each once, with whose they are.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::components::{Component, Components};
use crate::run::root;

/// How names of files begin that are about licences.
const NAMES: [&str; 6] = ["license", "licence", "copying", "copyright", "notice", "unlicense"];

const HEAD: &str = "\
What the programs of this image are made of, by which licences, and their texts.

They are linked statically with the GNU C Library, whose licence lets you link them anew with another version of it: their
sources are Sluice's, of the revision that the image is labelled with, and `cargo xtask image` builds them.
";

/// Writes them all.
///
/// # Errors
/// Where a text cannot be read.
pub fn write(components: &Components) -> Result<Vec<u8>> {
    let mut texts = Vec::new();
    for component in components.values() {
        for file in files(component)? {
            let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            texts.push((component.id(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    Ok(join(components, &texts).into_bytes())
}

/// Where a component's texts are. Of a directory, those files that are named so.
fn files(component: &Component) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for place in component.texts.iter().filter(|place| place.exists()) {
        if !place.is_dir() {
            files.push(place.clone());
            continue;
        }
        for entry in fs::read_dir(place).with_context(|| format!("listing {}", place.display()))? {
            let path = entry?.path();
            if is_licence(&path) && path.is_file() {
                files.push(path);
            }
        }
    }
    // Some come without: this one's text is the same for everybody, and here.
    if files.is_empty() && component.licence.split(" OR ").any(|choice| choice == "Apache-2.0") {
        files.push(root().join("LICENSE-APACHE"));
    }
    // A directory's order is its own.
    files.sort();
    files.dedup();
    Ok(files)
}

fn is_licence(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    NAMES.iter().any(|beginning| name.starts_with(beginning)) && !name.ends_with(".rs")
}

/// One text of them all. Texts that differ in white space only are one.
fn join(components: &Components, texts: &[(String, String)]) -> String {
    let mut owners: BTreeMap<Vec<&str>, (&str, Vec<&str>)> = BTreeMap::new();
    for (owner, text) in texts {
        let (_, owners) = owners.entry(text.split_whitespace().collect()).or_insert((text, Vec::new()));
        if owners.last() != Some(&owner.as_str()) {
            owners.push(owner);
        }
    }
    let mut joined = String::from(HEAD);
    joined.push('\n');
    for component in components.values() {
        let is_bare = !texts.iter().any(|(owner, _)| *owner == component.id());
        let without = if is_bare { " (comes without a text)" } else { "" };
        let _ = writeln!(joined, "{}: {}{without}", component.id(), component.licence);
    }
    let mut sections: Vec<_> = owners.into_values().collect();
    sections.sort_by(|(_, one), (_, other)| one.cmp(other));
    for (text, owners) in sections {
        let _ = write!(joined, "\n{:-<80}\n{}\n\n{}\n", "", owners.join(", "), text.trim());
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(name: &str) -> Component {
        Component { name: name.into(), version: "1".into(), licence: "MIT".into(), ..Component::default() }
    }

    #[test]
    fn a_text_that_several_have_is_there_once() {
        let components = ["a", "b", "c"].map(component).map(|it| (it.id(), it)).into();
        let text = |owner: &str, text: &str| (owner.to_owned(), text.to_owned());
        let texts =
            [text("a@1", "Permission\nis granted"), text("b@1", "Permission is granted\r\n"), text("b@1", "As is")];
        let joined = join(&components, &texts);
        assert_eq!(joined.matches("is granted").count(), 1);
        assert!(joined.contains("a@1, b@1\n\nPermission\nis granted\n"), "{joined}");
        assert!(joined.contains("b@1\n\nAs is\n"), "{joined}");
        assert!(joined.contains("\nc@1: MIT (comes without a text)\n"), "{joined}");
    }

    #[test]
    fn who_comes_without_a_text_has_the_one_that_is_here() {
        let of = |licence: &str| files(&Component { licence: licence.into(), ..Component::default() }).expect("lists");
        for licence in ["Apache-2.0", "MIT OR Apache-2.0"] {
            assert_eq!(of(licence), [root().join("LICENSE-APACHE")]);
        }
        assert!(of("MIT").is_empty() && of("Apache-2.0 AND ISC").is_empty());
        assert!(root().join("LICENSE-APACHE").exists());
    }

    #[test]
    fn texts_are_found_by_their_names() {
        let named = ["LICENSE", "license-mit", "COPYING.LIB", "NOTICE.md", "UNLICENSE", "LICENCE"];
        assert!(named.iter().all(|name| is_licence(Path::new(name))));
        assert!(!["README", "src", "license.rs"].iter().any(|name| is_licence(Path::new(name))));
    }
}
