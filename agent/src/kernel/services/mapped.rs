//! Arrays of the kernel's, mapped into the agent: a word that it writes, programs read whole, and without a system call.
#![allow(
    unsafe_code,
    reason = "memory that is shared with the kernel is mapped by address; this module is its only use here"
)]

use std::cell::OnceCell;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::kernel::error::{Doing, KernelError};

/// What is written at once.
pub trait Word: Copy {
    /// The same, where others read it meanwhile. It is as large, and any bits are one.
    type Shared;
    /// Reads it, and sees all that was written before it.
    fn load(shared: &Self::Shared) -> Self;
    /// Writes it after all that was written before.
    fn store(self, shared: &Self::Shared);
}

macro_rules! word {
    ($word:ty, $shared:ty) => {
        impl Word for $word {
            type Shared = $shared;

            fn load(shared: &$shared) -> Self {
                shared.load(Ordering::Acquire)
            }

            fn store(self, shared: &$shared) {
                shared.store(self, Ordering::Release);
            }
        }
    };
}
word!(u32, AtomicU32);
word!(u64, AtomicU64);

/// Bytes that are mapped at once: a change touches a few places, and what is mapped counts as the agent's memory.
const WINDOW: usize = 1 << 18;

/// An array whose elements are some words each. It is mapped in pieces, where it is looked into.
pub struct Mapped<W: Word> {
    map: MapData,
    name: &'static str,
    windows: Box<[OnceCell<Window<W>>]>,
    /// Bytes in all.
    bytes: usize,
    /// Elements.
    entries: usize,
    /// Words of an element that are its value's, and all words from one to the next.
    value: usize,
    stride: usize,
}

impl<W: Word> Mapped<W> {
    /// Opens an array that was made with `BPF_F_MMAPABLE`, and maps the start of it.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn of(map: MapData, name: &'static str) -> Result<Self, KernelError> {
        let action = || format!("mapping the table {name}");
        let info = map.info().doing(action)?;
        // The kernel rounds elements up to 8 bytes (`array_map_alloc`, kernel/bpf/arraymap.c).
        let stride = (info.value_size() as usize).next_multiple_of(8);
        // The last page may be mapped whole (`array_map_mmap`).
        let bytes = (stride * info.max_entries() as usize).next_multiple_of(rustix::param::page_size());
        let windows = (0..bytes.div_ceil(WINDOW)).map(|_| OnceCell::new()).collect();
        let word = size_of::<W>();
        let (value, stride) = (info.value_size() as usize / word, stride / word);
        let this = Self { map, name, windows, bytes, entries: info.max_entries() as usize, value, stride };
        let first = this.map_window(0).doing(action)?;
        if let Some(cell) = this.windows.first() {
            cell.get_or_init(|| first);
        }
        Ok(this)
    }

    /// Reads a word: of all words of all values, one after the other, the one at `at`.
    pub fn load(&self, at: usize) -> W {
        W::load(self.cell(at))
    }

    /// Writes a word.
    pub fn store(&self, at: usize, word: W) {
        word.store(self.cell(at));
    }

    /// How many words a value has.
    pub fn words_of_value(&self) -> usize {
        self.value
    }

    /// How many words all values have together.
    pub fn words(&self) -> usize {
        self.entries * self.value
    }

    /// Unmaps what is mapped.
    pub fn release(&mut self) {
        for window in &mut self.windows {
            window.take();
        }
    }

    /// # Panics
    /// Where the kernel has no memory to map it, as it is with any other memory of the agent.
    fn cell(&self, at: usize) -> &W::Shared {
        let at = at / self.value * self.stride + at % self.value;
        let words = WINDOW / size_of::<W>();
        let window = self.windows[at / words].get_or_init(|| {
            self.map_window(at / words).unwrap_or_else(|error| panic!("mapping the table {}: {error}", self.name))
        });
        window.cell(at % words)
    }

    fn map_window(&self, number: usize) -> rustix::io::Result<Window<W>> {
        let start = number * WINDOW;
        Window::map(self.map.fd().as_fd(), start, WINDOW.min(self.bytes - start))
    }
}

/// Some of an array, mapped.
struct Window<W: Word> {
    start: NonNull<W::Shared>,
    bytes: usize,
}

// SAFETY: it is memory that belongs to no thread, and all access to it is atomic.
unsafe impl<W: Word> Send for Window<W> {}

impl<W: Word> Window<W> {
    /// Both numbers are of whole pages.
    fn map(map: BorrowedFd<'_>, offset: usize, bytes: usize) -> rustix::io::Result<Self> {
        let (read_and_write, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping, wherever the kernel puts it, takes no memory from anyone.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, read_and_write, flags, map, offset as u64) }?;
        Ok(Self { start: NonNull::new(start.cast()).ok_or(rustix::io::Errno::FAULT)?, bytes })
    }

    fn cell(&self, at: usize) -> &W::Shared {
        assert!(at < self.bytes / size_of::<W>(), "word {at} lies beyond the table");
        // SAFETY: it lies within the mapping, which lasts as long as `self`; the start of a mapping is aligned to a page and
        // all words are as large as `W`. The memory is shared and atomic, so that references to it claim nothing.
        unsafe { self.start.add(at).as_ref() }
    }
}

impl<W: Word> Drop for Window<W> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference to it outlives `self`.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
        if let Err(error) = unmapped {
            tracing::warn!(%error, "cannot unmap a table");
        }
    }
}
