//! An OCI image layout (image-spec 1.0): blobs by their digests, and what leads to them.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::arch::Arch;
use super::commit::Commit;
use super::layer::{FILE, Files};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What an image says of itself.
pub struct About<'a> {
    /// The machine that it is for.
    pub arch: Arch,
    /// Its name with a tag, as runtimes will know it.
    pub name: &'a str,
    /// The version of what is in it.
    pub version: &'a str,
    /// The licences of what is in it, as SPDX writes them.
    pub licences: &'a str,
    /// Labels beside those that say all this.
    pub labels: &'a [(String, String)],
    /// What it was built of.
    pub commit: &'a Commit,
}

/// A layout's files, and the digest that the image is known by.
pub struct Layout {
    /// All files.
    pub files: Files,
    /// The manifest's digest.
    pub digest: String,
}

/// Makes the layout of an image with one layer: an archive, and the same compressed.
pub fn make(about: &About, archive: &[u8], compressed: Vec<u8>) -> Layout {
    let mut files = Files::default();
    let About { arch, name, version, licences, labels, commit } = about;
    let mut config = json!({
        "architecture": arch.name(),
        "os": "linux",
        "created": commit.time,
        "config": {
            "Entrypoint": ["/usr/bin/sluice-agent"],
            "Env": ["PATH=/usr/bin"],
            "Labels": {
                "org.opencontainers.image.created": commit.time,
                "org.opencontainers.image.description": "Sluice, a network plugin for Kubernetes: agent, CNI plugin and sluicectl",
                "org.opencontainers.image.licenses": licences,
                "org.opencontainers.image.revision": commit.revision,
                "org.opencontainers.image.title": "Sluice",
                "org.opencontainers.image.version": version,
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [digest(archive)] },
        "history": [{ "created": commit.time, "created_by": "cargo xtask image" }],
    });
    for (label, value) in *labels {
        config["config"]["Labels"][label] = json!(value);
    }
    let config = blob(&mut files, CONFIG, to_bytes(&config));
    let layer = blob(&mut files, LAYER, compressed);
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    let mut manifest = blob(&mut files, MANIFEST, to_bytes(&manifest));
    let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
    manifest["platform"] = json!({ "architecture": arch.name(), "os": "linux" });
    // The names by which containerd and podman take it in.
    manifest["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name });
    files.add("index.json", FILE, to_bytes(&json!({ "schemaVersion": 2, "manifests": [manifest] })));
    files.add("oci-layout", FILE, to_bytes(&json!({ "imageLayoutVersion": "1.0.0" })));
    Layout { files, digest }
}

/// Adds a blob; gives its descriptor.
fn blob(files: &mut Files, media_type: &str, bytes: Vec<u8>) -> Value {
    let (digest, size) = (digest(&bytes), bytes.len());
    files.add(Path::new("blobs").join(digest.replace(':', "/")), FILE, bytes);
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

fn to_bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::super::layer::compress;
    use super::*;

    fn image(revision: &str, labels: &[(String, String)]) -> Layout {
        let commit = Commit { revision: revision.into(), seconds: 1, time: "1970-01-01T00:00:01Z".into() };
        let (name, version, licences) = ("sluice.invalid/sluice:0.1.0", "0.1.0", "MIT");
        let about = About { arch: Arch::Arm64, name, version, licences, labels, commit: &commit };
        make(&about, b"archive", compress(b"archive").expect("compresses"))
    }

    /// All files, through an archive.
    fn unpacked(layout: &Layout) -> BTreeMap<String, Vec<u8>> {
        let packed = layout.files.pack(1).expect("packs");
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(&packed[..]).entries().expect("reads") {
            let mut entry = entry.expect("reads");
            let (path, mut bytes) = (entry.path().expect("has a path").display().to_string(), Vec::new());
            entry.read_to_end(&mut bytes).expect("reads");
            files.insert(path, bytes);
        }
        files
    }

    #[test]
    fn everything_is_found_from_the_index_by_digest_and_size() {
        let layout = image("abc", &[("channel".into(), "next".into())]);
        let files = unpacked(&layout);
        let follow = |descriptor: &Value| -> Vec<u8> {
            let digest_ = descriptor["digest"].as_str().expect("a digest");
            let bytes = files[&format!("blobs/{}", digest_.replace(':', "/"))].clone();
            assert_eq!((digest(&bytes).as_str(), json!(bytes.len())), (digest_, descriptor["size"].clone()));
            bytes
        };
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("is JSON");
        let index = json(&files["index.json"]);
        assert_eq!(index["manifests"][0]["digest"], layout.digest);
        assert_eq!(index["manifests"][0]["platform"]["architecture"], "arm64");
        let manifest = json(&follow(&index["manifests"][0]));
        let config = json(&follow(&manifest["config"]));
        assert_eq!(config["config"]["Labels"]["org.opencontainers.image.revision"], "abc");
        assert_eq!(config["config"]["Labels"]["channel"], "next");
        let mut layer = Vec::new();
        let compressed = follow(&manifest["layers"][0]);
        flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut layer).expect("reads");
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
        assert_eq!(json(&files["oci-layout"])["imageLayoutVersion"], "1.0.0");
    }

    #[test]
    fn the_same_commit_makes_the_same_image() {
        let packed = |revision| image(revision, &[]).files.pack(1).expect("packs");
        assert_eq!(packed("abc"), packed("abc"));
        let digest = image("abc", &[]).digest;
        assert_ne!(image("def", &[]).digest, digest);
        assert_ne!(image("abc", &[("channel".into(), "next".into())]).digest, digest);
    }
}
