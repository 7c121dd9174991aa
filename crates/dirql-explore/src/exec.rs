//! One execution under a schedule.

use dirql_kernel::system::{Ended, System};
use dirql_machine::DeviceId;

use crate::schedule::{Act, Deviation, Schedule};

/// Carries out a departure. False when it can't be made here: the schedule is not one of this run.
pub fn apply(system: &mut System, act: Act) -> bool {
    let cpus = system.kernel.procs.len();
    match act {
        Act::Switch(cpu) => {
            let cpu = usize::from(cpu);
            if cpu >= cpus || cpu == system.current_cpu() {
                return false;
            }
            system.switch_to(cpu);
            true
        }
        Act::Split(cpu) => {
            let (cpu, here) = (usize::from(cpu), system.current_cpu());
            if cpu >= cpus || cpu == here {
                return false;
            }
            // An instruction that ends the run ends it without the split as well.
            if !system.split() {
                return false;
            }
            system.switch_to(cpu);
            true
        }
        Act::Arrive { device, source, cpu } => {
            let here = system.current_cpu();
            let cpu = usize::from(cpu);
            if cpu >= cpus {
                return false;
            }
            if let Some(script) = system.machine.script() {
                script.accept_on(Some(cpu as u32));
            }
            let arrived = system.machine.arrive(DeviceId(u32::from(device)), u32::from(source));
            if let Some(script) = system.machine.script() {
                script.accept_on(None);
            }
            if arrived && cpu != here {
                system.switch_to(cpu);
            }
            arrived
        }
        Act::Time { cpu } => {
            let (cpu, here) = (usize::from(cpu), system.current_cpu());
            if cpu >= cpus || !system.pass_time() {
                return false;
            }
            if cpu != here {
                system.switch_to(cpu);
            }
            true
        }
        Act::Quantum => {
            let here = system.current_cpu();
            let may = system.can_preempt(here);
            if may {
                system.end_quantum(here);
            }
            may
        }
        Act::Choose { number, pick } => system.machine.script().is_some_and(|s| {
            s.answer(number, pick);
            true
        }),
    }
}

/// Why a schedule did not lead to an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Which deviation could not be made.
    pub index: usize,
    /// The step the run was at.
    pub steps: u64,
}

/// Runs up to and with the last deviation. Gives how the run ended when it ended before.
///
/// # Errors
/// A deviation can't be made: the run is another than the one the schedule is of.
pub fn lead(system: &mut System, schedule: &Schedule) -> Result<Option<Ended>, Misfit> {
    // Choices are answered whenever they come.
    for (index, d) in schedule.0.iter().enumerate() {
        if matches!(d.act, Act::Choose { .. }) && !apply(system, d.act) {
            return Err(Misfit { index, steps: system.steps() });
        }
    }
    for (index, d) in schedule.0.iter().enumerate() {
        if matches!(d.act, Act::Choose { .. }) {
            continue;
        }
        if let Some(end) = to(system, *d) {
            return Ok(Some(end));
        }
        if system.steps() != d.at || !apply(system, d.act) {
            return Err(Misfit { index, steps: system.steps() });
        }
    }
    Ok(None)
}

fn to(system: &mut System, deviation: Deviation) -> Option<Ended> {
    if system.steps() < deviation.at { system.run_until(deviation.at) } else { None }
}

/// Runs a schedule to its end.
///
/// # Errors
/// See [`lead`].
pub fn run(system: &mut System, schedule: &Schedule) -> Result<Ended, Misfit> {
    match lead(system, schedule)? {
        Some(end) => Ok(end),
        None => Ok(system.run()),
    }
}
