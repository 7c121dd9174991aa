//! Virtual unwinding: from the registers in one guest frame to those in its caller.
//!
//! After Microsoft's page "x64 exception handling" (unwind codes, establisher frames, epilogs, chained information).
//! The tables come from the parsed image, so a driver that overwrites its own `.xdata` does not confuse the walk.
//! Every step reads a bounded amount; a walk ends where the stack cannot be read or does not go up.

use dirql_image::{Image, RuntimeFunction, UnwindInfo, UnwindOp};
use dirql_mem::{Memory, Va};
use dirql_x86::Regs;

use crate::loader::{GATE_BASE, KERNEL_CODE, Modules, RETURN_GATE};

/// Most frames a walk passes: a kernel stack holds far fewer, and a damaged one may not go on for ever.
pub(crate) const MAX_FRAMES: usize = 4096;

const RSP: usize = 4;

/// A frame as a language handler sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Where the frame executes.
    pub(crate) pc: u64,
    /// Base of its module; 0 for none.
    pub(crate) base: u64,
    /// Address of its exception-table entry; 0 for a leaf.
    pub(crate) entry: u64,
    /// The frame's address for its handlers.
    pub(crate) establisher: u64,
    /// Handler, its data, and whether it is for exceptions and for unwinding; none in a prolog or epilog.
    pub(crate) handler: Option<Handler>,
}

/// A language handler at its guest address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handler {
    pub(crate) routine: u64,
    pub(crate) data: u64,
    pub(crate) exception: bool,
    pub(crate) termination: bool,
}

/// Unwinds one guest frame in place. `None` when the stack cannot be read or the tables are damaged.
pub(crate) fn step(mem: &Memory, modules: &Modules, regs: &mut Regs) -> Option<Seen> {
    let pc = regs.rip;
    let before = regs.gpr[RSP];
    let mut seen = Seen { pc, establisher: before, ..Seen::default() };
    if let Some((module, rva)) = modules.locate(pc) {
        seen.base = module.base;
        let rva = u32::try_from(rva).ok()?;
        match module.image.lookup(rva) {
            Some(f) => {
                seen.entry = module.image.lookup_entry(rva).map_or(0, |e| module.base + u64::from(e));
                function(mem, &module.image, module.base, f, rva, regs, &mut seen)?;
            }
            None => pop_return(mem, regs)?,
        }
    } else if (KERNEL_CODE..GATE_BASE + (1 << 28)).contains(&pc) && pc != RETURN_GATE {
        // A kernel routine: it keeps nothing on the guest stack.
        pop_return(mem, regs)?;
    } else {
        return None;
    }
    // A caller's frame lies above; the leaf case moves by 8 at least.
    (regs.gpr[RSP] > before).then_some(seen)
}

/// Takes the return address off the stack.
pub(crate) fn pop_return(mem: &Memory, regs: &mut Regs) -> Option<()> {
    regs.rip = mem.read_u64(Va(regs.gpr[RSP])).ok()?;
    regs.gpr[RSP] = regs.gpr[RSP].wrapping_add(8);
    Some(())
}

/// Unwinds a function that has unwind information. `rva` is where it executes.
pub(crate) fn function(
    mem: &Memory,
    image: &Image,
    base: u64,
    f: RuntimeFunction,
    rva: u32,
    regs: &mut Regs,
    seen: &mut Seen,
) -> Option<()> {
    let chain = image.unwind_chain(f).ok()?;
    let first = chain.first()?;
    let into = rva.wrapping_sub(f.begin);
    let in_prolog = into < u32::from(first.prolog_size);
    if let Some((register, offset)) = first.frame
        // In the prolog the frame register counts only once it is set.
        && (!in_prolog || first.codes.iter().any(|c| c.op == UnwindOp::SetFrame && u32::from(c.offset) <= into))
    {
        seen.establisher = regs.gpr[usize::from(register)].wrapping_sub(u64::from(offset));
    }
    if !in_prolog && epilog(mem, image, f, rva, first, regs)? {
        return Some(());
    }
    let mut machine_frame = false;
    for (i, info) in chain.iter().enumerate() {
        for code in &info.codes {
            // In the prolog, only what has been done is undone; what it chains to was done before.
            if i == 0 && in_prolog && u32::from(code.offset) > into {
                continue;
            }
            undo(mem, info, code.op, regs, &mut machine_frame)?;
        }
    }
    if !in_prolog && let Some(h) = chain.iter().find_map(|i| i.handler) {
        seen.handler = Some(Handler {
            routine: base.wrapping_add(u64::from(h.rva)),
            data: base.wrapping_add(u64::from(h.data_rva)),
            exception: h.exception,
            termination: h.termination,
        });
    }
    if !machine_frame {
        pop_return(mem, regs)?;
    }
    Some(())
}

fn undo(
    mem: &Memory,
    info: &UnwindInfo,
    op: UnwindOp,
    regs: &mut Regs,
    machine_frame: &mut bool,
) -> Option<()> {
    let rsp = regs.gpr[RSP];
    // Saved registers lie at fixed offsets from RSP as it is after the fixed allocation: that is the frame
    // register less its offset where there is one.
    let frame =
        info.frame.map_or(rsp, |(r, offset)| regs.gpr[usize::from(r & 15)].wrapping_sub(u64::from(offset)));
    match op {
        UnwindOp::Push(r) => {
            regs.gpr[usize::from(r & 15)] = mem.read_u64(Va(rsp)).ok()?;
            // Only RSP itself would contradict the addition; compilers never push it.
            regs.gpr[RSP] = rsp.wrapping_add(8);
        }
        UnwindOp::Alloc(n) => regs.gpr[RSP] = rsp.wrapping_add(u64::from(n)),
        UnwindOp::SetFrame => regs.gpr[RSP] = frame,
        UnwindOp::Save(r, at) => {
            regs.gpr[usize::from(r & 15)] = mem.read_u64(Va(frame.wrapping_add(u64::from(at)))).ok()?;
        }
        UnwindOp::SaveXmm(r, at) => {
            let mut bytes = [0; 16];
            mem.read(Va(frame.wrapping_add(u64::from(at))), &mut bytes).ok()?;
            regs.xmm[usize::from(r & 15)] = u128::from_le_bytes(bytes);
        }
        UnwindOp::MachineFrame { error_code } => {
            let at = rsp.wrapping_add(if error_code { 8 } else { 0 });
            regs.rip = mem.read_u64(Va(at)).ok()?;
            regs.gpr[RSP] = mem.read_u64(Va(at.wrapping_add(24))).ok()?;
            *machine_frame = true;
        }
        UnwindOp::Epilog(_) => {}
    }
    Some(())
}

/// In an epilog the rest of it is carried out instead of the prolog undone: `add rsp, n` or `lea rsp, [fp + n]`, pops,
/// and `ret` or a jump out of the function, and nothing else. True when it was one; then `regs` are the caller's.
fn epilog(
    mem: &Memory,
    image: &Image,
    f: RuntimeFunction,
    rva: u32,
    info: &UnwindInfo,
    regs: &mut Regs,
) -> Option<bool> {
    let mut at = rva;
    let mut now = regs.clone();
    let code = |at: u32, n: u32| if at.checked_add(n)? <= f.end { image.bytes(at, n) } else { None };
    let disp = |b: &[u8]| b.try_into().map_or(0, i32::from_le_bytes) as i64 as u64;
    // The adjustment comes first, at most once.
    if let Some([0x48, 0x83, 0xC4, n]) = code(at, 4) {
        now.gpr[RSP] = now.gpr[RSP].wrapping_add(*n as i8 as u64);
        at += 4;
    } else if let Some([0x48, 0x81, 0xC4, n @ ..]) = code(at, 7) {
        now.gpr[RSP] = now.gpr[RSP].wrapping_add(disp(n));
        at += 7;
    } else if let Some((fp, _)) = info.frame
        && let Some([rex @ (0x48 | 0x49), 0x8D, modrm]) = code(at, 3)
        && modrm & 0x38 == 0x20
        && modrm & 7 == fp & 7
        && fp & 7 != 4
        && (rex & 1 == 1) == (fp >= 8)
    {
        let base = now.gpr[usize::from(fp)];
        match modrm >> 6 {
            1 => {
                let [n] = code(at + 3, 1)? else { return Some(false) };
                now.gpr[RSP] = base.wrapping_add(*n as i8 as u64);
                at += 4;
            }
            2 => {
                now.gpr[RSP] = base.wrapping_add(disp(code(at + 3, 4)?));
                at += 7;
            }
            _ => return Some(false),
        }
    }
    let pop = |now: &mut Regs, r: u8| {
        now.gpr[usize::from(r)] = mem.read_u64(Va(now.gpr[RSP])).ok()?;
        now.gpr[RSP] = now.gpr[RSP].wrapping_add(8);
        Some(())
    };
    for _ in 0..16 {
        if let Some([b @ 0x58..=0x5F]) = code(at, 1) {
            if pop(&mut now, b - 0x58).is_none() {
                return Some(false);
            }
            at += 1;
        } else if let Some([0x41, b @ 0x58..=0x5F]) = code(at, 2) {
            if pop(&mut now, b - 0x58 + 8).is_none() {
                return Some(false);
            }
            at += 2;
        } else {
            break;
        }
    }
    let outside = |target: i64| target < i64::from(f.begin) || target >= i64::from(f.end);
    let end = match (code(at, 1), code(at, 2), code(at, 5)) {
        (Some([0xC3]), ..) | (_, Some([0xF3, 0xC3]), _) | (_, Some([0xFF, 0x25]), _) => true,
        (.., Some([0xE9, n @ ..])) => outside(i64::from(at) + 5 + disp(n) as i64),
        (_, Some([0xEB, n]), _) => outside(i64::from(at) + 2 + i64::from(*n as i8)),
        (_, Some([0x48, 0xFF]), _) => code(at + 2, 1).is_some_and(|b| b[0] & 0x38 == 0x20),
        _ => false,
    };
    if !end || pop_return(mem, &mut now).is_none() {
        return Some(false);
    }
    *regs = now;
    Some(true)
}
