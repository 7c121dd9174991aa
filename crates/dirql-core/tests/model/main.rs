//! An exhaustive search of small worlds: every sequence of connect, disconnect, assert, deassert, delivery, routine
//! step, end of interrupt, IRQL change, synchronisation and DPC over two processors and three interrupts, up to a
//! length. States are told apart by a 128-bit hash.
//!
//! `DIRQL_MODEL_DEPTH` sets the length of the sequences (see CONTRIBUTING); a run with `--nocapture` prints what was searched.
//! Left out: steps that nothing can come between (a level change and the step after it) are taken as one.

mod machine;

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use dirql_core::{Mode, version};
use machine::{Function, Interrupt, Move, Mutation, Scenario, Violation, Wire, World};

/// Length of the sequences when the environment does not say.
const DEPTH: usize = 11;
/// Length within which every broken embedder is caught.
const CAUGHT: usize = 12;

/// FNV-1a in 128 bits: the same everywhere, always.
struct Fnv(u128);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0 as u64
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013B);
        }
    }
}

fn hash(world: &World) -> u128 {
    let mut hasher = Fnv(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
    world.hash(&mut hasher);
    hasher.0
}

struct Searched {
    states: usize,
    moves: usize,
    rests: usize,
    /// No state was left to go on from.
    complete: bool,
    violation: Option<(Violation, Vec<Move>)>,
}

fn search(scenario: &Scenario, mutation: Mutation, depth: usize) -> Searched {
    let first = World::new(scenario, mutation);
    let mut seen = BTreeSet::from([hash(&first)]);
    // How each state was reached: the one before it, and the move.
    let mut reached: Vec<(usize, Option<Move>)> = vec![(0, None)];
    let mut frontier = vec![(0, first)];
    let mut result = Searched { states: 1, moves: 0, rests: 0, complete: false, violation: None };
    let path = |reached: &[(usize, Option<Move>)], mut at: usize| {
        let mut moves = Vec::new();
        while let (before, Some(step)) = reached[at] {
            moves.push(step);
            at = before;
        }
        moves.reverse();
        moves
    };
    for _ in scenario.shorter..depth {
        let mut next = Vec::new();
        for (at, world) in frontier {
            let moves = world.moves(scenario);
            if moves.iter().all(|step| step.is_outside()) {
                result.rests += 1;
                if let Err(violation) = world.at_rest(scenario) {
                    result.violation = Some((violation, path(&reached, at)));
                    return result;
                }
            }
            for step in moves {
                result.moves += 1;
                let mut after = world.clone();
                if let Err(violation) = after.apply(scenario, step) {
                    let mut moves = path(&reached, at);
                    moves.push(step);
                    result.violation = Some((violation, moves));
                    return result;
                }
                if seen.insert(hash(&after)) {
                    result.states += 1;
                    reached.push((at, Some(step)));
                    next.push((reached.len() - 1, after));
                }
            }
        }
        frontier = next;
        if frontier.is_empty() {
            result.complete = true;
            break;
        }
    }
    result
}

fn line(function: usize, gsi: u32, mode: Mode, vector: u8) -> Interrupt {
    Interrupt { function, wire: Wire::Line { gsi, mode }, vector }
}

fn message(function: usize, index: u32, vector: u8) -> Interrupt {
    Interrupt { function, wire: Wire::Message { index }, vector }
}

const FULL: Function = Function { version: version::FULLY_SPECIFIED, passive: false };
const LINES: Function = Function { version: version::LINE_BASED, passive: false };
const TABLE: Function = Function { version: version::MESSAGE_BASED, passive: false };
const PASSIVE: Function = Function { version: version::FULLY_SPECIFIED, passive: true };

fn scenarios() -> Vec<Scenario> {
    let base = Scenario {
        name: "two on a level line, one message above them",
        interrupts: [line(0, 16, Mode::Level, 0x61), line(1, 16, Mode::Level, 0x61), message(2, 0, 0x91)],
        functions: vec![FULL, LINES, TABLE],
        asserts: 3,
        deasserts: 1,
        connects: 1,
        inactives: 0,
        syncs: 0,
        raises: 1,
        shorter: 0,
    };
    vec![
        base.clone(),
        Scenario {
            name: "two on a latched line",
            interrupts: [
                line(0, 16, Mode::Latched, 0x61),
                line(1, 16, Mode::Latched, 0x61),
                line(2, 17, Mode::Level, 0x41),
            ],
            functions: vec![FULL, FULL, FULL],
            asserts: 4,
            // An edge is seen only if the line was low, and a device that goes quiet by itself leaves no claim
            // behind to walk again for: nothing could find its neighbour's edge then.
            deasserts: 0,
            inactives: 1,
            raises: 0,
            ..base.clone()
        },
        Scenario {
            name: "a passive routine behind another on a level line",
            interrupts: [line(0, 16, Mode::Level, 0x61), line(1, 16, Mode::Level, 0x61), message(2, 0, 0x91)],
            functions: vec![FULL, PASSIVE, TABLE],
            raises: 0,
            ..base.clone()
        },
        Scenario {
            name: "two messages of a function, and synchronising with it",
            interrupts: [message(0, 0, 0x61), message(0, 1, 0x91), line(1, 16, Mode::Level, 0x71)],
            functions: vec![TABLE, FULL],
            syncs: 2,
            connects: 2,
            ..base.clone()
        },
        Scenario {
            name: "connecting again, and synchronising",
            functions: vec![FULL, FULL, FULL],
            interrupts: [
                line(0, 16, Mode::Level, 0x61),
                line(1, 16, Mode::Level, 0x61),
                line(2, 17, Mode::Level, 0x81),
            ],
            connects: 2,
            inactives: 1,
            syncs: 1,
            raises: 0,
            shorter: 3,
            ..base
        },
    ]
}

fn depth() -> usize {
    std::env::var("DIRQL_MODEL_DEPTH").ok().and_then(|text| text.parse().ok()).unwrap_or(DEPTH)
}

#[test]
#[expect(clippy::print_stdout, reason = "what was searched is this test's answer")]
fn no_short_sequence_breaks_an_invariant() {
    let depth = depth();
    let (mut states, mut moves, mut rests) = (0, 0, 0);
    for scenario in scenarios() {
        let found = search(&scenario, Mutation::None, depth);
        println!(
            "{}: {} states, {} moves, {} at rest, {}",
            scenario.name,
            found.states,
            found.moves,
            found.rests,
            if found.complete {
                "complete".to_owned()
            } else {
                format!("to length {}", depth - scenario.shorter)
            }
        );
        if let Some((violation, path)) = found.violation {
            panic!("{}: {violation} after {path:?}", scenario.name);
        }
        states += found.states;
        moves += found.moves;
        rests += found.rests;
    }
    println!("{states} states, {moves} moves, {rests} at rest");
    assert!(rests > 0 && states > 10_000, "the search searched");
}

/// A broken embedder, and what must catch it in some world.
#[test]
fn every_broken_embedder_is_caught() {
    let expected: &[(Mutation, &[Violation])] = &[
        (Mutation::AcceptAnyLevel, &["routine below its level", "self-deadlock"]),
        (Mutation::RaiseIgnored, &["routine below its level"]),
        (Mutation::ForgetLevel, &["interrupt lost"]),
        (Mutation::UnmaskDropped, &["interrupt lost", "source closed while closed"]),
        (Mutation::MaskDropped, &["source open without an active routine"]),
        (Mutation::LockIgnored, &["lock exclusion"]),
        (Mutation::SyncWithoutRaise, &["self-deadlock"]),
        (Mutation::NoWait, &["routine runs after disconnect"]),
        (Mutation::StaleCall, &["routine called after disconnect"]),
        (Mutation::DpcLost, &["DPC once per insert"]),
        (Mutation::DpcTwice, &["DPC once per insert"]),
        (Mutation::ClaimLost, &["chain: called after a claim", "chain: latched ended on a claim"]),
    ];
    for &(mutation, violations) in expected {
        let mut caught = BTreeSet::new();
        for scenario in scenarios() {
            if let Some((violation, _)) = search(&scenario, mutation, CAUGHT).violation {
                caught.insert(violation);
                if violations.contains(&violation) {
                    break;
                }
            }
        }
        assert!(
            caught.iter().any(|violation| violations.contains(violation)),
            "{mutation:?} is caught as {caught:?}, not as {violations:?}"
        );
    }
}
