//! What the binaries are made of: as cargo knows it, and what comes with the compilers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::arch::Arch;
use super::build::PACKAGES;
use crate::run::{cargo, output, root};

/// Something that has a name, a version and a licence of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence, as SPDX writes it.
    pub licence: String,
    /// Where it is from, as package URLs write it; `None`: from here.
    pub purl: Option<String>,
    /// The SHA-256 of the archive that it came in, where whoever keeps it says so.
    pub sha256: Option<String>,
    /// Where texts of its licence are: a file, or a directory to look for them in.
    pub texts: Vec<PathBuf>,
    /// Ids of what it is made of.
    pub needs: BTreeSet<String>,
}

impl Component {
    /// A name among all components.
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// Components by their ids.
pub type Components = BTreeMap<String, Component>;

/// The licences of all of them: an expression that lists each once.
pub fn licences(components: &Components) -> String {
    let each = components.values().map(|component| component.licence.as_str()).map(|licence| {
        if licence.contains('(') || licence.contains(" AND ") {
            return format!("({licence})");
        }
        let mut choices: Vec<_> = licence.split(" OR ").collect();
        choices.sort_unstable();
        if choices.len() > 1 { format!("({})", choices.join(" OR ")) } else { licence.to_owned() }
    });
    each.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" AND ")
}

/// All that goes into the binaries for a machine, the kernel programs among it.
///
/// # Errors
/// Where cargo or the compilers do not say.
pub fn all(arch: Arch, rustc: &dyn Fn() -> Command) -> Result<Components> {
    let toolchain = [libc(arch)?, libgcc(arch)?, std(rustc)?];
    let mut components = workspace(&root(), &arch.target(), &PACKAGES)?;
    let linked = toolchain.each_ref().map(Component::id);
    for name in PACKAGES {
        let binaries = components.values_mut().filter(|component| component.name == name);
        binaries.for_each(|binary| binary.needs.extend(linked.clone()));
    }
    let kernel = workspace(&root().join("ebpf"), "bpfel-unknown-none", &["sluice-ebpf"])?;
    let embedded = kernel.values().find(|component| component.name == "sluice-ebpf").map(Component::id);
    if let Some(agent) = components.values_mut().find(|component| component.name == "sluice-agent") {
        agent.needs.extend(embedded);
    }
    components.extend(toolchain.map(|component| (component.id(), component)));
    // What both have, the workspace has said.
    for (id, component) in kernel {
        components.entry(id).or_insert(component);
    }
    Ok(components)
}

/// The C library that is linked into everything.
fn libc(arch: Arch) -> Result<Component> {
    let cc = arch.cc();
    let archive = output(Command::new(&cc).arg("-print-file-name=libc.a"));
    let archive = archive.with_context(|| format!("asking {cc} for its C library"))?;
    let bytes = fs::read(archive.trim()).with_context(|| {
        format!("no static C library for {} ({}); on Debian it is in libc6-dev", arch.name(), archive.trim())
    })?;
    let version = banner(&bytes).context("the static C library does not say its version: it is to be glibc")?;
    /// Where distributions have it.
    const TEXTS: [&str; 3] = [
        "/usr/share/common-licenses/LGPL-2.1",
        "/usr/share/licenses/glibc/COPYING.LIB",
        "/usr/share/licenses/glibc-common/COPYING.LIB",
    ];
    let text = TEXTS.iter().map(PathBuf::from).find(|path| path.exists());
    let text = text.with_context(|| format!("the licence of the C library is at none of {}", TEXTS.join(", ")))?;
    let purl = Some(format!("pkg:generic/glibc@{version}"));
    let licence = "LGPL-2.1-or-later".into();
    Ok(Component { name: "glibc".into(), version, licence, purl, texts: vec![text], ..Component::default() })
}

/// The version in what the C library says of itself.
fn banner(library: &[u8]) -> Option<String> {
    const BEFORE: &[u8] = b"stable release version ";
    let at = library.windows(BEFORE.len()).position(|window| window == BEFORE)? + BEFORE.len();
    let version = library[at..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.');
    let version: String = version.map(|byte| char::from(*byte)).collect();
    Some(version.trim_end_matches('.').to_owned()).filter(|version| !version.is_empty())
}

/// What the C compiler adds: it unwinds stacks.
fn libgcc(arch: Arch) -> Result<Component> {
    let cc = arch.cc();
    let said = output(Command::new(&cc).arg("-dumpfullversion"));
    let version = said.with_context(|| format!("asking {cc} for its version; it is to be GCC"))?.trim().to_owned();
    // As Debian has them; the second has the exception.
    let base = format!("/usr/share/doc/gcc-{}-base/copyright", version.split('.').next().unwrap_or_default());
    let texts = ["/usr/share/common-licenses/GPL-3", &base].map(PathBuf::from).into();
    let purl = Some(format!("pkg:generic/libgcc@{version}"));
    let licence = "GPL-3.0-or-later WITH GCC-exception-3.1".into();
    Ok(Component { name: "libgcc".into(), version, licence, purl, texts, ..Component::default() })
}

/// Rust's own library, of the compiler that `rustc` starts.
fn std(rustc: &dyn Fn() -> Command) -> Result<Component> {
    let said = output(rustc().arg("--version")).context("asking rustc for its version")?;
    let version = said.split_whitespace().nth(1).context("reading rustc's version")?.to_owned();
    let sysroot = output(rustc().args(["--print", "sysroot"])).context("asking rustc for its directory")?;
    let documents = Path::new(sysroot.trim()).join("share/doc/rust");
    // The last one is of what it is made of in turn.
    const TEXTS: [&str; 3] = ["licenses/Apache-2.0.txt", "licenses/MIT.txt", "COPYRIGHT-library.html"];
    Ok(Component {
        name: "rust-std".into(),
        purl: Some(format!("pkg:generic/rust-std@{version}")),
        version,
        licence: "MIT OR Apache-2.0".into(),
        texts: TEXTS.map(|name| documents.join(name)).into(),
        ..Component::default()
    })
}

/// What goes into packages of a workspace, with the sums by which cargo knows what it has fetched.
fn workspace(directory: &Path, target: &str, roots: &[&str]) -> Result<Components> {
    let mut components = read(&metadata(directory, target)?, roots)?;
    let lock = directory.join("Cargo.lock");
    let mut sums = sums(&fs::read_to_string(&lock).with_context(|| format!("reading {}", lock.display()))?);
    components.iter_mut().for_each(|(id, component)| component.sha256 = sums.remove(id));
    Ok(components)
}

/// The sums in a `Cargo.lock`, by the ids of packages.
fn sums(lock: &str) -> HashMap<String, String> {
    let packages = lock.split("[[package]]").filter_map(|package| {
        let field = |name: &str| {
            package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"'))
        };
        Some((format!("{}@{}", field("name")?, field("version")?), field("checksum")?.to_owned()))
    });
    packages.collect()
}

/// What cargo says of a workspace.
fn metadata(directory: &Path, target: &str) -> Result<String> {
    let mut cargo = cargo();
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target]);
    let said = output(cargo.current_dir(directory));
    said.with_context(|| format!("asking cargo what is in {}", directory.display()))
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    license_file: Option<PathBuf>,
    source: Option<String>,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

impl Package {
    /// Whether it runs in the compiler only.
    fn is_macro(&self) -> bool {
        self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "proc-macro"))
    }

    fn component(&self) -> Result<Component> {
        let directory = self.manifest_path.parent().context("a manifest in a directory")?;
        let mut texts = vec![directory.to_owned()];
        texts.extend(self.license_file.as_ref().map(|file| directory.join(file)));
        let is_ours = self.source.is_none();
        if is_ours {
            texts.push(root());
        }
        Ok(Component {
            name: self.name.clone(),
            version: self.version.clone(),
            // Once written so.
            licence: self.license.as_deref().unwrap_or("NOASSERTION").replace('/', " OR "),
            purl: (!is_ours).then(|| format!("pkg:cargo/{}@{}", self.name, self.version)),
            texts,
            ..Component::default()
        })
    }
}

/// What goes into packages, and they themselves: not what builds or tests them, nor what runs in the compiler.
fn read(metadata: &str, roots: &[&str]) -> Result<Components> {
    let metadata: Metadata = serde_json::from_str(metadata).context("reading what cargo says of packages")?;
    let packages: HashMap<_, _> = metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let nodes: HashMap<_, _> = metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let find = |id: &str| packages.get(id).copied().with_context(|| format!("cargo says nothing of {id}"));

    let is_root = |package: &&Package| package.source.is_none() && roots.contains(&package.name.as_str());
    let mut unseen: Vec<&Package> = metadata.packages.iter().filter(is_root).collect();
    let mut components = Components::new();
    while let Some(package) = unseen.pop() {
        let mut component = package.component()?;
        if components.contains_key(&component.id()) {
            continue;
        }
        for dependency in nodes.get(package.id.as_str()).map_or(&[][..], |node| &node.deps) {
            let needed = find(&dependency.pkg)?;
            if dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()) && !needed.is_macro() {
                component.needs.insert(format!("{}@{}", needed.name, needed.version));
                unseen.push(needed);
            }
        }
        components.insert(component.id(), component);
    }
    Ok(components)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn package(name: &str, source: Option<&str>, kind: &str) -> Value {
        json!({
            "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0", "license_file": null,
            "source": source, "manifest_path": format!("/cargo/{name}/Cargo.toml"), "targets": [{ "kind": [kind] }],
        })
    }

    fn needs(name: &str, needed: &[(&str, Option<&str>)]) -> Value {
        let deps: Vec<_> =
            needed.iter().map(|(name, kind)| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] })).collect();
        json!({ "id": name, "deps": deps })
    }

    #[test]
    fn what_builds_tests_or_expands_is_not_among_it() {
        const REGISTRY: Option<&str> = Some("registry+x");
        let packages = [
            package("agent", None, "bin"),
            package("other", None, "bin"),
            package("lib", REGISTRY, "lib"),
            package("deep", REGISTRY, "lib"),
            package("cc", REGISTRY, "lib"),
            package("mock", REGISTRY, "lib"),
            package("derive", REGISTRY, "proc-macro"),
            package("syn", REGISTRY, "lib"),
        ];
        let nodes = [
            needs("agent", &[("lib", None), ("cc", Some("build")), ("mock", Some("dev")), ("derive", None)]),
            needs("other", &[("mock", None)]),
            needs("lib", &[("deep", None)]),
            needs("derive", &[("syn", None)]),
        ];
        let metadata = json!({ "packages": packages, "resolve": { "nodes": nodes } }).to_string();
        let components = read(&metadata, &["agent"]).expect("reads");
        assert_eq!(components.keys().collect::<Vec<_>>(), ["agent@1.0.0", "deep@1.0.0", "lib@1.0.0"]);
        assert_eq!(components["agent@1.0.0"].needs, BTreeSet::from(["lib@1.0.0".into()]));
        assert_eq!(components["agent@1.0.0"].purl, None);
        assert_eq!(components["lib@1.0.0"].purl.as_deref(), Some("pkg:cargo/lib@1.0.0"));
        assert_eq!(components["lib@1.0.0"].licence, "MIT OR Apache-2.0");
    }

    #[test]
    fn what_was_fetched_has_a_sum() {
        let lock = "version = 4\n\n[[package]]\nname = \"agent\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"lib\"\n\
                    version = \"2.0.0\"\nsource = \"registry+x\"\nchecksum = \"ab12\"\ndependencies = [\n \"deep\",\n]\n";
        assert_eq!(sums(lock), HashMap::from([("lib@2.0.0".into(), "ab12".into())]));
    }

    #[test]
    fn each_licence_is_listed_once() {
        let of = |name: &str, licence: &str| {
            let component = Component { name: name.into(), licence: licence.into(), ..Component::default() };
            (component.id(), component)
        };
        let components = Components::from([
            of("a", "MIT OR Apache-2.0"),
            of("b", "Apache-2.0 OR MIT"),
            of("c", "MIT"),
            of("d", "Apache-2.0 AND ISC"),
        ]);
        assert_eq!(licences(&components), "(Apache-2.0 AND ISC) AND (Apache-2.0 OR MIT) AND MIT");
    }

    #[test]
    fn the_c_library_says_its_version() {
        let library = b"\0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\nCopyright";
        assert_eq!(banner(library).as_deref(), Some("2.36"));
        assert_eq!(banner(b"musl"), None);
    }
}
