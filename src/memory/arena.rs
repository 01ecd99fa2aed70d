//! One region of memory for weights that are written once and then read as one stream.
//!
//! A kernel that streams packed weights on pages of 4 KiB reaches three quarters of the bandwidth that it reaches on pages of
//! 2 MiB, so a region begins on such a page and asks the kernel of the system for more of them. Whether it got them is told by
//! [`Arena::page_kib`], not assumed.

use memmap2::MmapMut;
use std::io;
use std::ptr::NonNull;

/// What large regions are aligned to: the huge page of x86-64 and of aarch64 with pages of 4 KiB.
pub const HUGE_PAGE: usize = 2 << 20;

/// Bytes on pages of their own, zero at first.
#[derive(Debug)]
pub struct Arena {
    map: MmapMut,
    start: usize,
    bytes: usize,
}

impl Arena {
    /// A region of so many bytes. No page of it is there before it is written to.
    pub fn zeroed(bytes: usize) -> io::Result<Arena> {
        let too_much = || io::Error::new(io::ErrorKind::OutOfMemory, "more than can be addressed");
        let asked = bytes.max(1).checked_add(HUGE_PAGE).ok_or_else(too_much)?;
        let map = MmapMut::map_anon(asked)?;
        let start = map.as_ptr().align_offset(HUGE_PAGE);
        // A hint: where there are no huge pages the region works as well, only slower, and `page_kib` tells.
        #[cfg(all(target_os = "linux", not(miri)))]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Arena { map, start, bytes })
    }

    /// Its bytes; they begin on a huge page.
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.start..][..self.bytes]
    }

    /// Its bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.start..][..self.bytes]
    }

    /// Where its bytes begin, for who gives out parts of them: as long as a part is used, its bytes are asked for in no other way.
    pub(super) fn start(&mut self) -> NonNull<u8> {
        NonNull::from(self.bytes_mut()).cast()
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// The size of most of its pages in KiB as the system reports it; `None` where it does not.
    pub fn page_kib(&self) -> Option<u64> {
        page_kib_at(self.bytes())
    }
}

/// The size of most pages of the mapping in which some bytes begin.
pub(super) fn page_kib_at(bytes: &[u8]) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps").ok()?;
    page_kib(&text, bytes.as_ptr() as u64)
}

/// Of the mapping that holds an address: 2048 where most of what is resident is on huge pages, else its plain page size.
fn page_kib(smaps: &str, address: u64) -> Option<u64> {
    let mut inside = false;
    let (mut page, mut resident, mut huge) = (None, 0, 0);
    for line in smaps.lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        if let Some((from, to)) = word.split_once('-') {
            if inside {
                break;
            }
            let at = |hex| u64::from_str_radix(hex, 16).ok();
            inside = at(from)? <= address && address < at(to)?;
        } else if inside {
            let kib = || line.split_whitespace().nth(1)?.parse::<u64>().ok();
            match word {
                "KernelPageSize:" => page = kib(),
                "Rss:" => resident = kib()?,
                "AnonHugePages:" => huge = kib()?,
                _ => {}
            }
        }
    }
    if inside && huge * 2 > resident {
        return Some(HUGE_PAGE as u64 / 1024);
    }
    page.filter(|_| inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_begins_on_a_huge_page_and_is_zero() {
        // An interpreter looks at each byte for itself.
        let bytes = if cfg!(miri) { 5000 } else { 3 << 20 };
        let mut arena = Arena::zeroed(bytes).unwrap();
        assert_eq!(arena.bytes().len(), bytes);
        assert_eq!(arena.bytes().as_ptr() as usize % HUGE_PAGE, 0);
        assert!(arena.bytes().iter().all(|byte| *byte == 0));
        arena.bytes_mut()[5] = 7;
        assert_eq!(arena.bytes()[5], 7);
    }

    #[test]
    fn a_region_that_cannot_be_is_an_error() {
        assert!(Arena::zeroed(usize::MAX).is_err());
    }

    #[test]
    fn page_sizes_are_those_of_the_mapping_that_holds_the_address() {
        let smaps = "1000-2000 rw-p 00000000 00:00 0\nRss: 4 kB\nAnonHugePages: 0 kB\nKernelPageSize: 4 kB\n\
                     200000-600000 rw-p 00000000 00:00 0\nKernelPageSize: 4 kB\nRss: 4096 kB\nAnonHugePages: 4096 kB\n\
                     700000-800000 rw-p 00000000 00:00 0\nKernelPageSize: 4 kB\nRss: 1024 kB\nAnonHugePages: 0 kB\n";
        assert_eq!(page_kib(smaps, 0x1800), Some(4));
        assert_eq!(page_kib(smaps, 0x200000), Some(2048));
        assert_eq!(page_kib(smaps, 0x700000), Some(4));
        assert_eq!(page_kib(smaps, 0x900000), None);
    }
}
