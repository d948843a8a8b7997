//! The engine, and the clock by which running code gives others their turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result};

/// How often code that runs is interrupted: then cancelled calls end, and others go on.
const TURN: Duration = Duration::from_millis(5);
/// Instances at a time.
const INSTANCES: u32 = 64;
/// The most memory of an instance: all that 32 bits can name.
const MEMORY: usize = 4 << 30;

/// An engine for instances that live for one call.
///
/// # Errors
/// This machine cannot run it, or has no room for the places of its instances.
pub fn new() -> Result<Engine> {
    let mut places = PoolingAllocationConfig::default();
    places
        .total_component_instances(INSTANCES)
        .total_core_instances(4 * INSTANCES)
        .total_memories(2 * INSTANCES)
        .total_tables(4 * INSTANCES)
        .total_stacks(INSTANCES)
        .max_memory_size(MEMORY)
        // Pages that are kept and cleared are quicker than new ones.
        .linear_memory_keep_resident(64 << 10)
        .table_keep_resident(16 << 10);
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(places));
    Engine::new(&config)
}

/// Advances the engine's clock while calls run.
pub struct Ticker {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    running: AtomicUsize,
    ended: AtomicBool,
}

/// A call that needs the clock, until this is dropped.
pub struct Ticking<'a>(&'a Ticker);

impl Ticker {
    /// A thread that sleeps while there is nothing to do.
    pub fn new(engine: &Engine) -> Ticker {
        let shared =
            Arc::new(Shared { running: AtomicUsize::new(0), ended: AtomicBool::new(false) });
        let (engine, of_thread) = (engine.clone(), Arc::clone(&shared));
        let thread = thread::spawn(move || {
            while !of_thread.ended.load(Ordering::Acquire) {
                match of_thread.running.load(Ordering::Acquire) {
                    0 => thread::park(),
                    _ => {
                        thread::sleep(TURN);
                        engine.increment_epoch();
                    }
                }
            }
        });
        Ticker { shared, thread }
    }

    /// Says that a call runs.
    pub fn tick(&self) -> Ticking<'_> {
        if self.shared.running.fetch_add(1, Ordering::AcqRel) == 0 {
            self.thread.thread().unpark();
        }
        Ticking(self)
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.shared.running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.thread.thread().unpark();
    }
}
