//! Bars on a terminal while the Hub is asked or weights are scanned or packed; elsewhere only what somebody who waits must know.

use crate::source::{Progress, Silent};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Watches a source for the user; with `quiet` nothing is shown.
#[cfg(feature = "hub")]
pub(super) fn watcher(quiet: bool) -> Arc<dyn Progress> {
    if quiet {
        return Arc::new(Silent);
    }
    Arc::new(bars::Bars::new())
}

/// Nothing here takes time without the Hub.
#[cfg(not(feature = "hub"))]
pub(super) fn watcher(_quiet: bool) -> Arc<dyn Progress> {
    Arc::new(Silent)
}

/// How long work goes on before a bar says so.
const PATIENCE: Duration = Duration::from_millis(500);

/// A bar of bytes that are worked on; shown on a terminal when it takes longer than one waits for.
pub(super) struct WorkBar {
    bar: ProgressBar,
    begun: Instant,
    is_asked: Cell<bool>,
}

impl WorkBar {
    pub(super) fn new(what: &'static str, bytes: u64, quiet: bool) -> Option<WorkBar> {
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden());
        bar.set_message(what);
        let template = "{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
        let style = ProgressStyle::with_template(template).expect("the template is well formed");
        (!quiet).then(|| WorkBar {
            bar: bar.with_style(style),
            begun: Instant::now(),
            is_asked: Cell::new(false),
        })
    }

    /// So many bytes more are done.
    pub(super) fn done(&self, bytes: u64) {
        // Where there is no terminal it stays hidden, and need not be asked again for each of a hundred thousand tensors.
        if !self.is_asked.get() && self.begun.elapsed() > PATIENCE {
            self.is_asked.set(true);
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.inc(bytes);
    }
}

impl Drop for WorkBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A bar of steps, each named while it is done; drawn on a terminal only.
pub(super) struct StepBar(ProgressBar);

impl StepBar {
    pub(super) fn new(steps: u64, quiet: bool) -> StepBar {
        let target = match quiet {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        let template = "{bar:30} {pos}/{len} {msg}";
        let style = ProgressStyle::with_template(template).expect("the template is well formed");
        StepBar(ProgressBar::with_draw_target(Some(steps), target).with_style(style))
    }

    /// The next step begins.
    pub(super) fn step(&self, name: &str) {
        self.0.set_message(name.to_string());
        self.0.inc(1);
    }
}

impl Drop for StepBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(feature = "hub")]
pub(super) mod bars {
    //! The bars, drawn by indicatif on standard error; it draws nothing where that is no terminal.

    use crate::source::{Event, Progress};
    use crate::units;
    use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::Duration;

    /// Waits that are worth a line.
    const NOTEWORTHY: Duration = Duration::from_secs(1);

    /// One bar for headers, one for each file that arrives.
    #[derive(Debug, Default)]
    pub(crate) struct Bars {
        all: MultiProgress,
        heads: Mutex<Option<ProgressBar>>,
        files: Mutex<BTreeMap<String, ProgressBar>>,
        stop: Arc<AtomicBool>,
        quiet: bool,
    }

    impl Bars {
        pub(crate) fn new() -> Bars {
            Bars::default()
        }

        /// Nothing to see, but it can be stopped.
        pub(crate) fn hidden() -> Bars {
            let mut bars = Bars::new();
            bars.quiet = true;
            bars
        }

        /// What is set when the user wants to stop.
        pub(crate) fn stop(&self) -> Arc<AtomicBool> {
            self.stop.clone()
        }

        /// A line that stays. Between bars it must go through them, elsewhere standard error is free.
        fn line(&self, text: &str) {
            if self.all.is_hidden() {
                eprintln!("{text}");
            } else {
                // A terminal that is gone cannot be told.
                let _ = self.all.println(text);
            }
        }

        fn heads(&self, done: usize, of: usize) {
            let mut slot = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
            let bar = slot.get_or_insert_with(|| {
                let style = style("headers {bar:30} {pos}/{len}");
                self.all.add(ProgressBar::new(of as u64).with_style(style))
            });
            bar.set_position(done as u64);
            if done == of {
                bar.finish_and_clear();
                *slot = None;
            }
        }

        fn begin(&self, file: &str, bytes: u64, had: u64) {
            let style =
                style("{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}");
            let bar = self.all.add(ProgressBar::new(bytes).with_style(style));
            bar.set_message(units::visible(file));
            bar.set_position(had);
            bar.reset_eta();
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(before) = files.insert(file.into(), bar) {
                before.finish_and_clear();
            }
        }

        fn with(&self, file: &str, act: impl FnOnce(&ProgressBar)) {
            let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(bar) = files.get(file) {
                act(bar);
            }
        }
    }

    impl Progress for Bars {
        fn on(&self, event: &Event<'_>) {
            match event {
                _ if self.quiet => {}
                Event::Heads { done, of } => self.heads(*done, *of),
                Event::Begin { file, bytes, had } => self.begin(file, *bytes, *had),
                Event::Received { file, bytes } => self.with(file, |bar| bar.inc(*bytes)),
                Event::End { file } => self.with(file, ProgressBar::finish_and_clear),
                Event::Locked { file } => {
                    let file = units::visible(file);
                    self.line(&format!("waiting: another process is fetching {file}"));
                }
                Event::Again { reason, wait } if *wait >= NOTEWORTHY => {
                    let (reason, seconds) = (units::visible(reason), wait.as_secs());
                    self.line(&format!("waiting {seconds} s, then again: {reason}"));
                }
                Event::Again { .. } => {}
            }
        }

        fn stopped(&self) -> bool {
            self.stop.load(Ordering::Relaxed)
        }
    }

    impl Drop for Bars {
        fn drop(&mut self) {
            // After an error bars are left over.
            let _ = self.all.clear();
        }
    }

    fn style(template: &str) -> ProgressStyle {
        ProgressStyle::with_template(template).expect("the templates above are well formed")
    }
}
