//! libFuzzer over one target, `SLUICE_FUZZ_TARGET`, that first writes its seeds into the directory `SLUICE_FUZZ_SEEDS`.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;
use std::{env, fs};

use libfuzzer_sys::fuzz_target;
use sluice_fuzz::Target;

static TARGET: OnceLock<Target> = OnceLock::new();

fn prepare() -> Target {
    let name = env::var("SLUICE_FUZZ_TARGET").unwrap_or_default();
    let target = Target::named(&name).unwrap_or_else(|| panic!("SLUICE_FUZZ_TARGET: {name:?} is no target"));
    if let Some(directory) = env::var_os("SLUICE_FUZZ_SEEDS").map(PathBuf::from) {
        for (number, seed) in target.seeds().into_iter().enumerate() {
            let path = directory.join(format!("seed-{number}"));
            fs::write(&path, seed).unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
        }
    }
    target
}

fuzz_target!(
    init: {
        TARGET.get_or_init(prepare);
    },
    |data: &[u8]| TARGET.get_or_init(prepare).check(data)
);
