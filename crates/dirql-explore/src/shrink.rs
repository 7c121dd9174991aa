//! Leaves of a failing schedule what its failure needs: the fewest deviations, then the fewest arrivals.

use dirql_kernel::system::System;

use crate::exec;
use crate::schedule::Schedule;
use crate::search::{Execution, Failure, Judge};

/// Most executions spent on one schedule.
const TRIES: usize = 500;

/// Whether a schedule shows a failure.
pub fn shows(root: &System, judge: &impl Judge, schedule: &Schedule, failure: &Failure) -> bool {
    let mut system = root.clone();
    let Ok(ended) = exec::run(&mut system, schedule) else { return false };
    judge.judge(Execution { system: &mut system, ended: &ended, schedule }).contains(failure)
}

/// The smallest schedule found that shows the same failure.
pub fn shrink(root: &System, judge: &impl Judge, schedule: &Schedule, failure: &Failure) -> Schedule {
    let mut best = schedule.clone();
    let mut tries = 0;
    // Chunks first, so that a long random schedule falls fast; then single ones.
    let mut size = (best.len() / 2).max(1);
    loop {
        let mut at = 0;
        let mut shrunk = false;
        while at < best.len() && tries < TRIES {
            let mut list = best.0.clone();
            list.drain(at..(at + size).min(list.len()));
            let candidate = Schedule(list);
            tries += 1;
            if shows(root, judge, &candidate, failure) {
                best = candidate;
                shrunk = true;
            } else {
                at += size;
            }
        }
        if tries >= TRIES || (size == 1 && !shrunk) {
            return best;
        }
        if !shrunk {
            size = (size / 2).max(1);
        }
    }
}
