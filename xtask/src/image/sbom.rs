//! The bill of materials, as CycloneDX 1.5 has it.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::commit::Commit;
use super::components::{Component, Components};

/// Writes it: what the image is made of, and what of what.
///
/// # Errors
/// Not in memory.
pub fn write(name: &str, version: &str, commit: &Commit, roots: &[&str], components: &Components) -> Result<Vec<u8>> {
    let image = format!("{name}@{version}");
    let contents = components.values().filter(|component| roots.contains(&component.name.as_str()));
    let mut dependencies = vec![json!({ "ref": image, "dependsOn": contents.map(Component::id).collect::<Vec<_>>() })];
    dependencies.extend(components.values().map(|it| json!({ "ref": it.id(), "dependsOn": it.needs })));
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": commit.time,
            "component": {
                "bom-ref": image,
                "type": "container",
                "name": name,
                "version": version,
                "properties": [{ "name": "org.opencontainers.image.revision", "value": commit.revision }],
            },
        },
        "components": components.values().map(|it| component(it, roots)).collect::<Vec<_>>(),
        "dependencies": dependencies,
    });
    let mut bytes = serde_json::to_vec_pretty(&bill).context("writing the bill of materials")?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn component(component: &Component, roots: &[&str]) -> Value {
    let kind = if roots.contains(&component.name.as_str()) { "application" } else { "library" };
    let mut value = json!({
        "bom-ref": component.id(),
        "type": kind,
        "name": component.name,
        "version": component.version,
        "licenses": [{ "expression": component.licence }],
    });
    if let Some(purl) = &component.purl {
        value["purl"] = json!(purl);
    }
    if let Some(sha256) = &component.sha256 {
        value["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
    }
    value
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_component_is_there_and_all_that_is_referred_to() {
        let part = |name: &str, purl: Option<&str>, needs: &[&str]| Component {
            name: name.into(),
            version: "1.0.0".into(),
            licence: "MIT".into(),
            purl: purl.map(str::to_owned),
            sha256: purl.map(|_| "ab12".into()),
            needs: needs.iter().map(|id| (*id).to_owned()).collect(),
            ..Component::default()
        };
        let parts = [part("agent", None, &["lib@1.0.0"]), part("lib", Some("pkg:cargo/lib@1.0.0"), &[])];
        let components = parts.map(|part| (part.id(), part)).into();
        let commit = Commit { revision: "abc".into(), seconds: 0, time: "1970-01-01T00:00:00Z".into() };
        let bytes = write("sluice", "0.1.0", &commit, &["agent"], &components).expect("writes");
        let bill: Value = serde_json::from_slice(&bytes).expect("is JSON");
        assert_eq!(bill["metadata"]["timestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(bill["components"][0]["type"], "application");
        assert_eq!(bill["components"][1]["purl"], "pkg:cargo/lib@1.0.0");
        let hashes = [&bill["components"][0]["hashes"], &bill["components"][1]["hashes"]];
        assert_eq!(hashes, [&Value::Null, &json!([{ "alg": "SHA-256", "content": "ab12" }])]);
        assert_eq!(bill["dependencies"][0], json!({ "ref": "sluice@0.1.0", "dependsOn": ["agent@1.0.0"] }));
        let ids = |value: &Value, key: &str| -> BTreeSet<String> {
            let of = |it: &Value| it[key].as_str().expect("text").to_owned();
            value.as_array().expect("a list").iter().map(of).collect()
        };
        let mut known = ids(&bill["components"], "bom-ref");
        known.insert("sluice@0.1.0".into());
        assert_eq!(ids(&bill["dependencies"], "ref"), known);
    }
}
