//! Whether a model fits the memory that there is, and with which settings it would.

use super::super::super::Failure;
use super::super::super::args::RunArgs;
use crate::bitnet::{CacheBits, HeadBits, Needed, Plan, RunError, Settings, Source};
use crate::device::Device;

/// The most memory to take; `None` where neither the user nor the system says.
pub(super) fn limit(args: &RunArgs, device: &Device) -> Option<u64> {
    let asked = args
        .text
        .max_memory
        .map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX));
    [asked, device.memory.usable_bytes()]
        .into_iter()
        .flatten()
        .min()
}

/// What a model needs, if it fits.
pub(super) fn check(
    plan: &Plan,
    source: Source<'_>,
    settings: &Settings,
    limit: Option<u64>,
) -> Result<Needed, Failure> {
    let needed = Needed::of(plan, source, settings)?;
    let Some(there) = limit.filter(|there| *there < needed.total()) else {
        return Ok(needed);
    };
    Err(RunError::Memory {
        needed,
        there,
        fits: smaller(plan, source, settings, there),
    }
    .into())
}

/// The mildest changes of settings with which it fits: one of its own, or all of the widths with as many tokens as then fit.
fn smaller(plan: &Plan, source: Source<'_>, settings: &Settings, there: u64) -> Vec<String> {
    let fits = |settings: &Settings| {
        Needed::of(plan, source, settings).is_ok_and(|needed| needed.total() <= there)
    };
    let cache = |bits: CacheBits| Settings {
        cache: bits,
        ..*settings
    };
    let mut found = Vec::new();
    let narrower = [CacheBits::F16, CacheBits::I8].into_iter();
    let mut narrower = narrower.filter(|bits| bits.bits() < settings.cache.bits());
    if let Some(bits) = narrower.find(|bits| fits(&cache(*bits))) {
        found.push(format!("--kv-bits {}", bits.bits()));
    }
    let head = Settings {
        head: HeadBits::Eight,
        ..*settings
    };
    if settings.head == HeadBits::Stored && fits(&head) {
        found.push("--head-bits 8".into());
    }
    if let Some(context) = most(settings, &fits) {
        found.push(format!("--context {context}"));
    }
    if found.is_empty() {
        let least = Settings {
            head: HeadBits::Eight,
            cache: CacheBits::I8,
            packing: crate::kernels::Packing::Trits,
            ..*settings
        };
        if let Some(context) = most(&least, &fits) {
            found.push(format!(
                "--head-bits 8 --kv-bits 8 --packing 1.6 --context {context}"
            ));
        }
    }
    found
}

/// The most tokens that fit, if some do.
fn most(settings: &Settings, fits: &dyn Fn(&Settings) -> bool) -> Option<usize> {
    let with = |context: usize| Settings {
        context,
        ..*settings
    };
    let (mut fitting, mut beyond) = (0, settings.context + 1);
    while beyond - fitting > 1 {
        let middle = fitting + (beyond - fitting) / 2;
        match fits(&with(middle)) {
            true => fitting = middle,
            false => beyond = middle,
        }
    }
    (fitting > 0).then_some(fitting)
}
