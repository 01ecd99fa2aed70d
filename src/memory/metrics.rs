//! How much memory there is: live, at its peak, taken from the system; by tag.

/// What a pool knows of itself. Exact when no other thread allocates or frees meanwhile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Bytes of live blocks, as they were asked for.
    pub live_bytes: u64,
    /// The most bytes that were live at once, since the pool was made or the peak reset.
    pub peak_bytes: u64,
    /// Bytes taken from the system; of mapped files, what is mapped.
    pub reserved_bytes: u64,
    /// How many blocks were ever given out.
    pub allocations: u64,
    /// How many came back.
    pub frees: u64,
    /// The share of free memory that is not part of the largest free piece, 0 to 1.
    pub fragmentation: f64,
    /// The same by tag, in the order of names.
    pub tags: Vec<TagMetrics>,
}

/// What a pool knows of one tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagMetrics {
    /// Its name.
    pub name: &'static str,
    /// Bytes of its live blocks, as they were asked for.
    pub live_bytes: u64,
    /// The most of them that were live at once, since the pool was made or the peak reset.
    pub peak_bytes: u64,
}

/// The running account behind [`Metrics`].
#[derive(Debug, Default)]
pub(super) struct Ledger(std::sync::Mutex<Metrics>);

impl Ledger {
    pub(super) fn enter(&self, bytes: u64, tag: &'static str) {
        let mut all = self.lock();
        all.allocations += 1;
        all.live_bytes += bytes;
        all.reserved_bytes += bytes;
        all.peak_bytes = all.peak_bytes.max(all.live_bytes);
        let at = match all.tags.binary_search_by_key(&tag, |each| each.name) {
            Ok(at) => at,
            Err(at) => {
                let new = TagMetrics {
                    name: tag,
                    live_bytes: 0,
                    peak_bytes: 0,
                };
                all.tags.insert(at, new);
                at
            }
        };
        let of_tag = &mut all.tags[at];
        of_tag.live_bytes += bytes;
        of_tag.peak_bytes = of_tag.peak_bytes.max(of_tag.live_bytes);
    }

    pub(super) fn leave(&self, bytes: u64, tag: &'static str) {
        let mut all = self.lock();
        all.frees += 1;
        all.live_bytes -= bytes;
        all.reserved_bytes -= bytes;
        for of_tag in all.tags.iter_mut().filter(|each| each.name == tag) {
            of_tag.live_bytes -= bytes;
        }
    }

    pub(super) fn reset_peak(&self) {
        let mut all = self.lock();
        all.peak_bytes = all.live_bytes;
        for of_tag in &mut all.tags {
            of_tag.peak_bytes = of_tag.live_bytes;
        }
    }

    pub(super) fn metrics(&self) -> Metrics {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Metrics> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
