//! Runs benches by name; `cargo xtask bench` calls it.

use anyhow::Result;
use sluice_tests::bench;

fn main() -> Result<()> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    bench::run(&names)
}
