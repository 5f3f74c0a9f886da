//! Locks whose holders only assign: counters, states, queues.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lock, also when a holder panicked. Only for data that every update leaves consistent, which is then no reason to
/// panic as well: the panic itself ends the process where it must.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
