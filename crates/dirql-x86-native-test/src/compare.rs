//! What must be equal.

use crate::case::{Case, State};
use iced_x86::{Instruction, Mnemonic as M, OpKind};
use std::fmt::Write;

/// The arithmetic flags and DF.
const FLAGS: u64 = 0xcd5;

fn flag(name: &str) -> u64 {
    match name {
        "CF" => 1,
        "PF" => 4,
        "AF" => 0x10,
        "ZF" => 0x40,
        "SF" => 0x80,
        "OF" => 0x800,
        _ => 0,
    }
}

/// The flags the manual leaves undefined after this instruction, from the data file.
pub fn undefined(i: &Instruction, before: &State) -> u64 {
    let name = format!("{:?}", i.mnemonic()).to_lowercase();
    let bits =
        (if i.op0_kind() == OpKind::Register { i.op0_register().size() } else { i.memory_size().size() } * 8)
            as u64;
    let last = i.op_count().saturating_sub(1);
    let count = match i.op_kind(last) {
        OpKind::Register => before.gpr[1],
        _ => i.try_immediate(last).unwrap_or(0),
    } & if bits == 64 { 63 } else { 31 };
    let mut out = 0;
    for line in include_str!("undefined.txt").lines() {
        let Some((who, rest)) = line.split_once(": ") else { continue };
        if who != name || line.starts_with('#') {
            continue;
        }
        let applies = match rest.rsplit(' ').next() {
            Some("shift") => count != 0,
            Some("many") => count > 1,
            Some("over") => count >= bits && count != 0,
            _ => true,
        };
        if applies {
            out |= rest.split(' ').map(flag).sum::<u64>();
        }
    }
    out
}

/// Clears what need not be equal, so that states can be compared or hashed as they are.
pub fn canonical(i: &Instruction, before: &State, s: &State) -> State {
    let mut s = *s;
    s.rflags &= FLAGS & !if s.exit >= 0x100 { 0 } else { undefined(i, before) };
    // The results of shifts of a 16-bit operand by more are undefined too (SHLD, SHRD), as is BSWAP of 16 bits.
    let count = match i.op2_kind() {
        OpKind::Immediate8 => u64::from(i.immediate8()),
        _ => before.gpr[1],
    } & 31;
    let size =
        if i.op0_kind() == OpKind::Register { i.op0_register().size() } else { i.memory_size().size() };
    match i.mnemonic() {
        // Which of several NaNs is carried on depends on the order of the sums, which processors choose.
        M::Dpps | M::Vdpps | M::Dppd | M::Vdppd => {
            let bits = if matches!(i.mnemonic(), M::Dpps | M::Vdpps) { 32 } else { 64 };
            s.mxcsr = 0;
            let infinity = if bits == 32 { 0xff << 23 } else { 0x7ff << 52 };
            for half in &mut s.ymm[i.op0_register().number() & 15] {
                for at in (0..128).step_by(bits) {
                    let lane = *half >> at & (u128::MAX >> (128 - bits));
                    if lane & (u128::MAX >> (129 - bits)) > infinity {
                        *half |= (u128::MAX >> (128 - bits)) << at;
                    }
                }
            }
        }
        // Which byte of the page a masked store names varies.
        M::Maskmovdqu | M::Vmaskmovdqu | M::Vmaskmovps | M::Vmaskmovpd | M::Vpmaskmovd | M::Vpmaskmovq => {
            s.cr2 &= !0xfff;
        }
        _ => {}
    }
    if matches!(i.mnemonic(), M::Shld | M::Shrd) && size == 2 && count > 16 {
        match i.op0_kind() {
            OpKind::Register => s.gpr[i.op0_register().full_register().number()] = 0,
            _ => s.memory.fill(0),
        }
    }
    s
}

/// The differences in words; `None` if there are none.
pub fn difference(case: &Case, i: &Instruction, host: &State, engine: &State) -> Option<String> {
    let (h, e) = (canonical(i, &case.before, host), canonical(i, &case.before, engine));
    let masked = matches!(i.mnemonic(), M::Maskmovdqu | M::Vmaskmovdqu);
    // Whether bytes that aren't stored can fault is the processor's choice.
    if h == e || masked && (h.exit >= 0x100 || e.exit >= 0x100) {
        return None;
    }
    let mut out = format!("{i}  [{:02x?}]\n", &case.bytes[..case.len as usize]);
    let mut line = |what: String, before: String, h: String, e: String| {
        let _ = writeln!(out, "    {what}: before {before} host {h} engine {e}");
    };
    for n in 0..16 {
        if h.gpr[n] != e.gpr[n] {
            let x = |v: u64| format!("{v:#x}");
            line(format!("r{n}"), x(case.before.gpr[n]), x(h.gpr[n]), x(e.gpr[n]));
        }
        for half in 0..2 {
            if h.ymm[n][half] != e.ymm[n][half] {
                let x = |v: u128| format!("{v:#034x}");
                let name = if half == 0 { "xmm" } else { "ymm high " };
                line(format!("{name}{n}"), x(case.before.ymm[n][half]), x(h.ymm[n][half]), x(e.ymm[n][half]));
            }
        }
    }
    let words = [
        ("rflags", case.before.rflags, h.rflags, e.rflags),
        ("mxcsr", case.before.mxcsr, h.mxcsr, e.mxcsr),
        ("exit", 0, h.exit, e.exit),
        ("error", 0, h.error, e.error),
        ("cr2", 0, h.cr2, e.cr2),
    ];
    for (what, before, h, e) in words {
        if h != e {
            line(what.into(), format!("{before:#x}"), format!("{h:#x}"), format!("{e:#x}"));
        }
    }
    if let Some(n) = (0..h.memory.len()).find(|&n| h.memory[n] != e.memory[n]) {
        let x = |s: &State| format!("{:02x?}", &s.memory[n..(n + 8).min(s.memory.len())]);
        line(format!("memory at {:#x}", case.window + n as u64), x(&case.before), x(&h), x(&e));
    }
    let inputs: Vec<String> = i
        .op_kinds()
        .enumerate()
        .filter(|(_, k)| *k == OpKind::Register)
        .map(|(n, _)| i.op_register(n as u32))
        .map(|r| match r.is_gpr() {
            true => format!("{r:?}={:#x}", case.before.gpr[r.full_register().number()]),
            false => format!("{r:?}={:#x?}", case.before.ymm[r.number() & 15]),
        })
        .collect();
    let _ = writeln!(out, "    with {}, mxcsr {:#x}", inputs.join(", "), case.before.mxcsr);
    Some(out)
}
