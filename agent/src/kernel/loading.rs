//! The programs of an object, from the verifier to the array that they call one another through.

use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{MapData, ProgramArray};
use aya::programs::{Program, ProgramError};
use sluice_abi::{Stage, maps};

use super::error::{Doing, KernelError};

/// How often the verifier is asked before its refusal counts.
const ATTEMPTS: u64 = 40;

/// Loads all programs of an object and fills the array of slow paths, which must live as long as they do: it is emptied
/// when its last descriptor or pin goes, however many programs use it.
///
/// # Errors
/// Where the kernel refuses one.
pub fn load(ebpf: &mut Ebpf) -> Result<ProgramArray<MapData>, KernelError> {
    for (name, program) in ebpf.programs_mut() {
        verify(|| match program {
            Program::SchedClassifier(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::Xdp(program) => program.load(),
            _ => Err(ProgramError::UnexpectedProgramType),
        })
        .doing(|| format!("loading the kernel program {name} (the verifier's words follow)"))?;
    }
    let array = ebpf.take_map(maps::SLOW_PATHS).ok_or("the object has none");
    let array = array.doing(|| "filling the array of slow paths".into())?;
    let mut array = ProgramArray::try_from(array).doing(|| "filling the array of slow paths".into())?;
    for (index, name) in (0..).zip(Stage::PROGRAMS) {
        let action = || format!("taking {name} into the array of slow paths");
        let program = ebpf.program(name).ok_or("the object has no such program").doing(action)?;
        array.set(index, program.fd().doing(action)?, 0).doing(action)?;
    }
    Ok(array)
}

/// Loads a program. The verifier gives up with EAGAIN where a signal or other work for this thread comes in meanwhile
/// (`bpf_check`, kernel/bpf/verifier.c, all kernels up to 6.18): it is asked again, as libbpf does, after ever longer
/// pauses, less than a second together: ten times at once have been seen not to suffice, on a busy machine.
fn verify(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    let mut attempt = 1;
    loop {
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.kind() == ErrorKind::WouldBlock && attempt < ATTEMPTS =>
            {
                thread::sleep(Duration::from_millis(attempt));
                attempt += 1;
            }
            result => return result,
        }
    }
}
