//! Threads that wait for work without sleeping: waking one that sleeps costs more than a small product takes.
//!
//! On two cores an empty job takes 0.2 microseconds here, 0.5 by rayon's `broadcast` and 3 by its `install`; the smallest layer
//! of a model that is measured takes 10.
//!
//! A worker looks for work for [`AWAKE`] after the last and only then sleeps, so that a program that does something else in
//! between does not pay for it. All threads of a job get the same function with their number; the caller is number 0.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a worker looks for work before it sleeps.
const AWAKE: Duration = Duration::from_millis(2);

/// A job, as its workers see it: they only use it while `run` waits for them.
#[derive(Clone, Copy)]
struct Job(*const (dyn Fn(usize) + Sync));

// SAFETY: what it points to is `Sync`, and `Pool::run` keeps it alive until every worker is done.
unsafe impl Send for Job {}

/// What caller and workers both see.
struct State {
    /// Counts jobs; a worker that sees a new count takes the job.
    jobs: AtomicUsize,
    /// Workers that have not ended the present job.
    busy: AtomicUsize,
    /// Whether a worker panicked in it.
    failed: AtomicBool,
    /// Whether to end.
    stop: AtomicBool,
    job: Mutex<Option<Job>>,
    asleep: Condvar,
    sleepers: AtomicUsize,
}

/// Some threads, the caller's among them.
pub struct Pool {
    shared: Option<Arc<State>>,
    workers: Vec<JoinHandle<()>>,
    running: Mutex<()>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool of {}", self.threads())
    }
}

impl Pool {
    /// Only the caller's thread.
    pub fn alone() -> Pool {
        Pool {
            shared: None,
            workers: Vec::new(),
            running: Mutex::new(()),
        }
    }

    /// So many threads; fewer where the system gives no more.
    pub fn new(threads: usize) -> Pool {
        if threads <= 1 {
            return Pool::alone();
        }
        let shared = Arc::new(State {
            jobs: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            job: Mutex::new(None),
            asleep: Condvar::new(),
            sleepers: AtomicUsize::new(0),
        });
        let worker = |number: usize| {
            let shared = shared.clone();
            let named = std::thread::Builder::new().name(format!("bitcost-{number}"));
            named.spawn(move || work(&shared, number)).ok()
        };
        Pool {
            workers: (1..threads).map_while(worker).collect(),
            shared: Some(shared),
            running: Mutex::new(()),
        }
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs a function once on every thread, with the thread's number, and waits for all. The function must not run another on
    /// the same pool: its threads are taken.
    pub fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        let Some(shared) = &self.shared else {
            job(0);
            return;
        };
        let _one_at_a_time = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: only the lifetime changes. The pointer is used between here and the end of `Wait::drop` below, which
        // returns when the last worker is done with it, even if the caller's part panics.
        let job_of_workers: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(job) };
        shared.busy.store(self.workers.len(), Ordering::Relaxed);
        shared.failed.store(false, Ordering::Relaxed);
        *lock(&shared.job) = Some(Job(job_of_workers));
        shared.jobs.fetch_add(1, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            // A worker that is about to sleep holds the lock until it does, so none misses the call.
            drop(lock(&shared.job));
            shared.asleep.notify_all();
        }
        let wait = Wait(shared);
        job(0);
        drop(wait);
        if shared.failed.swap(false, Ordering::Relaxed) {
            panic!("a thread of the pool panicked");
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let Some(shared) = &self.shared else { return };
        shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&shared.job));
        shared.asleep.notify_all();
        for worker in self.workers.drain(..) {
            // It catches what its jobs panic with, so it has nothing to say here.
            let _ = worker.join();
        }
    }
}

/// Waits for the workers when the caller has done its part, or has panicked in it.
struct Wait<'s>(&'s State);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut turns = 0u32;
        while self.0.busy.load(Ordering::Acquire) > 0 {
            pause(&mut turns);
        }
        *lock(&self.0.job) = None;
    }
}

fn lock(job: &Mutex<Option<Job>>) -> std::sync::MutexGuard<'_, Option<Job>> {
    job.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits a little. Now and then it lets another thread have the core: that may be the one that is waited for.
fn pause(turns: &mut u32) {
    *turns = turns.wrapping_add(1);
    if turns.is_multiple_of(1024) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

fn work(shared: &State, number: usize) {
    let mut seen = 0;
    while let Some(job) = next(shared, &mut seen) {
        let run = || {
            // SAFETY: `run` waits for `busy` to fall to 0 before the function it points to can end.
            let job = unsafe { &*job.0 };
            job(number);
        };
        if let Err(payload) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            shared.failed.store(true, Ordering::Relaxed);
            // What a panic carries may panic when it is dropped, and then the caller would wait for ever.
            std::mem::forget(payload);
        }
        shared.busy.fetch_sub(1, Ordering::Release);
    }
}

/// The next job, or the end.
fn next(shared: &State, seen: &mut usize) -> Option<Job> {
    let start = Instant::now();
    let mut turns = 0u32;
    loop {
        if shared.stop.load(Ordering::Relaxed) {
            return None;
        }
        let jobs = shared.jobs.load(Ordering::Acquire);
        if jobs != *seen {
            *seen = jobs;
            return Some(lock(&shared.job).expect("a job is there until all workers are done"));
        }
        pause(&mut turns);
        if turns.is_multiple_of(1024) && start.elapsed() > AWAKE {
            let mut job = lock(&shared.job);
            shared.sleepers.fetch_add(1, Ordering::SeqCst);
            while shared.jobs.load(Ordering::SeqCst) == *seen && !shared.stop.load(Ordering::SeqCst)
            {
                job = shared
                    .asleep
                    .wait(job)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            shared.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_runs_every_job_once() {
        let pool = Pool::new(4);
        for _ in 0..if cfg!(miri) { 10 } else { 2000 } {
            let runs = [const { AtomicUsize::new(0) }; 4];
            pool.run(&|number| {
                runs[number].fetch_add(1, Ordering::Relaxed);
            });
            assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn workers_that_sleep_are_woken() {
        let pool = Pool::new(3);
        for _ in 0..3 {
            std::thread::sleep(AWAKE * 5);
            let runs = AtomicUsize::new(0);
            pool.run(&|_| {
                runs.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(runs.load(Ordering::Relaxed), 3);
        }
    }

    #[test]
    fn a_panic_in_a_worker_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        let panics = std::panic::AssertUnwindSafe(|| pool.run(&|number| assert_eq!(number, 0)));
        assert!(std::panic::catch_unwind(panics).is_err());
        pool.run(&|_| {});
        // The caller's own panic must not be taken for one of the next job's.
        let panics = std::panic::AssertUnwindSafe(|| pool.run(&|_| panic!("all of them")));
        assert!(std::panic::catch_unwind(panics).is_err());
        pool.run(&|_| {});
    }
}
