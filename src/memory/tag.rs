//! What memory is for, in a word.

/// What an allocation is for: `const WEIGHTS: Tag = Tag::of("weights");`. Pools count by tag; tags of one name are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub(super) name: &'static str,
    pub(super) hash: u64,
}

impl Tag {
    /// The tag of a name.
    pub const fn of(name: &'static str) -> Tag {
        // FNV-1a, because it can run when a constant is made and tables of a few names need no more.
        let bytes = name.as_bytes();
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut i = 0;
        while i < bytes.len() {
            hash = (hash ^ bytes[i] as u64).wrapping_mul(0x100_0000_01b3);
            i += 1;
        }
        Tag { name, hash }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.name
    }
}
