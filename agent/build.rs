//! Puts the kernel programs where the agent embeds them from.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=SLUICE_BPF_OBJECT");
    let object = env::var_os("SLUICE_BPF_OBJECT").map_or_else(built, PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("sluice.o");
    // Without the programs the agent can be compiled and tested; started, it says what it lacks.
    let bytes = fs::read(&object).unwrap_or_default();
    fs::write(&out, bytes).expect("OUT_DIR can be written to");
}

/// Where `cargo xtask build` leaves them.
fn built() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../target"),
        PathBuf::from,
    );
    target.join("bpf/sluice.o")
}
