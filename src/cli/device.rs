//! `bitcost device`: what this machine has, and what it reaches.

use super::args::{DbFormat, DeviceArgs};
use super::{Exit, Outcome, to_json, write_out};
use crate::device::Device;
use crate::kernels::measure::cold_bytes;
use crate::machine::{self, Known};
use crate::report::device::{Machine, json, table};
use crate::source::Settings;

pub(super) fn run(args: &DeviceArgs) -> Outcome {
    let device = Device::here();
    let folder = Settings::from_env().own_cache;
    let mut notes = Vec::new();
    let known = match machine::known(&device, folder.as_deref(), args.remeasure) {
        Ok(known) => {
            notes.extend(remarks(&known, &device));
            Some(known)
        }
        Err(e) => {
            notes.push(("not_measured", format!("there is no memory to read: {e}")));
            None
        }
    };
    let machine = Machine {
        device,
        known,
        notes,
    };
    let text = match args.format {
        DbFormat::Json => to_json(&json(&machine))?,
        DbFormat::Table => table(&machine),
    };
    write_out(&text, args.output.as_deref())?;
    Ok(Exit::Ok)
}

/// What the reader has to know of the numbers.
fn remarks(known: &Known, device: &Device) -> Vec<(&'static str, String)> {
    let mut notes = Vec::new();
    if known.measured.read_bytes < cold_bytes(device.last_cache_bytes()) {
        notes.push((
            "not_cold",
            "there is not enough memory to read what no cache holds; some of it came from the last cache".into(),
        ));
    }
    if known.measured.is_busy() {
        notes.push((
            "busy",
            "several threads reached less than one alone: the machine was busy, and can do more than was measured; \
             --remeasure when it is quiet".into(),
        ));
    }
    if let Some(why) = &known.unkept {
        notes.push(("not_kept", format!("{why}; the next call measures again")));
    }
    notes
}
