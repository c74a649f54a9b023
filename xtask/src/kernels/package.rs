//! Kernels from Debian's packages, of any suite, without a change to the machine's own sources.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run::{output, run, say};

/// The package that depends on a suite's kernel: the one for virtual machines, which is half as large as the others.
const NEWEST: &str = "linux-image-cloud-amd64";
/// What the packages that make up a kernel are called; others that it depends on are for booting it from a disk.
const PARTS: [&str; 4] = ["linux-base-", "linux-binary-", "linux-image-", "linux-modules-"];
/// What Debian's archive is signed with, of the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An unpacked kernel.
pub struct Package {
    /// Its release, as `uname -r` has it.
    pub release: String,
    /// The kernel itself.
    pub image: PathBuf,
    /// The directory of its modules.
    pub modules: PathBuf,
}

/// Gets a suite's kernel, once: what is in `directory` already stays.
///
/// # Errors
/// Where it cannot be fetched, or is not made as expected.
pub fn get(suite: &str, directory: &Path) -> Result<Package> {
    if !directory.exists() {
        let fresh = directory.with_extension("new");
        fs::remove_dir_all(&fresh).ok();
        fetch(suite, &fresh).with_context(|| format!("fetching the kernel of Debian {suite}"))?;
        let package = find(&fresh)?;
        let base = package.modules.ancestors().nth(3).context("modules in /lib/modules")?;
        run(Command::new("depmod").arg("-b").arg(base).arg(&package.release))?;
        fs::rename(&fresh, directory).with_context(|| format!("renaming {}", fresh.display()))?;
    }
    find(directory)
}

/// Fetches and unpacks it.
fn fetch(suite: &str, directory: &Path) -> Result<()> {
    say(&format!("Fetching the kernel of Debian {suite}"));
    let apt = Apt::of(suite, &directory.join("apt"))?;
    let packages = apt.parts(NEWEST)?;
    run(apt.command("apt-get").args(["-qq", "download"]).args(&packages))?;
    for file in fs::read_dir(&apt.directory)?.flatten().map(|entry| entry.path()) {
        if file.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(directory))?;
        }
    }
    fs::remove_dir_all(&apt.directory).with_context(|| format!("removing {}", apt.directory.display()))
}

/// Finds the kernel among what was unpacked: suites differ in where they have what.
fn find(directory: &Path) -> Result<Package> {
    let roots = [directory.join("lib/modules"), directory.join("usr/lib/modules")];
    let modules = roots.iter().filter_map(|root| fs::read_dir(root).ok()?.flatten().next()).next();
    let modules = modules.with_context(|| format!("no modules in {}", directory.display()))?.path();
    let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let images = [directory.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")];
    let image = images.into_iter().find(|path| path.exists());
    let image = image.with_context(|| format!("no kernel in {}", directory.display()))?;
    Ok(Package { release, image, modules })
}

/// apt with one suite for its only source, and a directory for all that it keeps.
struct Apt {
    directory: PathBuf,
}

impl Apt {
    fn of(suite: &str, directory: &Path) -> Result<Self> {
        let mirror = mirror()?;
        for needed in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(directory.join(needed)).with_context(|| format!("making {}", directory.display()))?;
        }
        fs::write(directory.join("sources.list"), format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"))
            .context("writing a source for apt")?;
        let apt = Self { directory: directory.to_owned() };
        run(apt.command("apt-get").args(["-qq", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let mut option = |name: &str, value: &str| {
            command.arg("-o").arg(format!("{name}={value}"));
        };
        let at = |name: &str| self.directory.join(name).display().to_string();
        option("Dir::Etc::SourceList", &at("sources.list"));
        option("Dir::Etc::SourceParts", "/dev/null");
        option("Dir::State::Lists", &at("lists"));
        option("Dir::Cache", &at(""));
        option("Acquire::Languages", "none");
        // Another user could not write here.
        option("APT::Sandbox::User", "root");
        command.current_dir(&self.directory);
        command
    }

    /// A package and those that it depends on, as far as they are parts of a kernel.
    fn parts(&self, package: &str) -> Result<Vec<String>> {
        let mut found = vec![package.to_owned()];
        let mut unseen = VecDeque::from(found.clone());
        while let Some(package) = unseen.pop_front() {
            let depends = output(self.command("apt-cache").args(["depends", "--important", &package]))
                .with_context(|| format!("apt knows no package {package}"))?;
            let names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
            for name in names.filter(|name| PARTS.iter().any(|part| name.starts_with(part))) {
                if !found.iter().any(|other| other == name) {
                    found.push(name.to_owned());
                    unseen.push_back(name.to_owned());
                }
            }
        }
        Ok(found)
    }
}

/// Where this machine gets Debian's packages from.
fn mirror() -> Result<String> {
    let targets =
        ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Label: Debian"];
    let listing = output(Command::new("apt-get").args(targets)).context("kernels are Debian's: this needs apt")?;
    let mirror = listing.lines().next().map(str::to_owned);
    ensure!(Path::new(KEYRING).exists(), "{KEYRING} is missing; it is in the package debian-archive-keyring");
    mirror.context("apt has no lists of Debian's packages; run `apt-get update`")
}
