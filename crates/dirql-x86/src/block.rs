//! Decoded blocks and where they are kept.
//!
//! A block is found by virtual address in a small direct-mapped table, which is dropped when mappings change,
//! and behind it by virtual and physical address, which is dropped when decoded bytes are written. Clones of a
//! processor share the second.

use crate::decode::{finish, lower};
use crate::op::{K, Op};
use dirql_mem::{FrameId, Memory, PAGE_SIZE, Prot, Target, Va};
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};
use std::collections::BTreeMap;
use std::sync::Arc;

const NEAR: usize = 512;
/// A longer straight run is split.
const MAX_OPS: usize = 48;
/// With so many blocks all are dropped: hostile code that jumps everywhere must not fill the host's memory.
const MAX_BLOCKS: usize = 1 << 16;

pub(crate) type Block = Arc<[Op]>;

#[derive(Clone, Default)]
struct Far {
    index: BTreeMap<(u64, u64), u32>,
    blocks: Vec<Block>,
}

/// Where the next instructions come from.
pub(crate) enum Found {
    Cached(usize),
    /// A single instruction that crosses a page is decoded each time.
    Single(Op),
    /// The page at this address can't be executed; the flag says whether it is present.
    Fault(u64, bool),
    NonCanonical,
    Gate,
}

#[derive(Clone)]
pub(crate) struct Cache {
    near: Box<[(u64, u32); NEAR]>,
    far: Arc<Far>,
}

/// No instruction is there: the table's empty entry.
const NOWHERE: u64 = 0x8000_0000_0000_0000;

impl Default for Cache {
    fn default() -> Cache {
        Cache { near: Box::new([(NOWHERE, 0); NEAR]), far: Arc::default() }
    }
}

impl Cache {
    pub(crate) fn flush_near(&mut self) {
        self.near.fill((NOWHERE, 0));
    }

    pub(crate) fn flush(&mut self) {
        self.flush_near();
        self.far = Arc::default();
    }

    #[inline(always)]
    pub(crate) fn ops(&self, index: usize) -> &[Op] {
        &self.far.blocks[index]
    }

    /// The block there, if it was run lately.
    #[inline(always)]
    pub(crate) fn at_hand(&self, rip: u64) -> Option<&[Op]> {
        let (at, index) = self.near[rip as usize % NEAR];
        if at == rip { self.far.blocks.get(index as usize).map(|b| &b[..]) } else { None }
    }

    #[inline(always)]
    pub(crate) fn find(&mut self, mem: &mut Memory, rip: u64) -> Found {
        let (at, index) = self.near[rip as usize % NEAR];
        if at == rip {
            return Found::Cached(index as usize);
        }
        self.find_far(mem, rip)
    }

    #[inline(never)]
    fn find_far(&mut self, mem: &mut Memory, rip: u64) -> Found {
        let frame = match executable(mem, rip) {
            Ok(frame) => frame,
            Err(found) => return found,
        };
        let off = rip as usize % PAGE_SIZE;
        let key = (rip, frame.pa().0 + off as u64);
        let index = match self.far.index.get(&key) {
            Some(&index) => index,
            None => {
                let ops = decode_block(&mem.frame(frame)[off..], rip);
                if ops.is_empty() {
                    return crossing(mem, rip, frame);
                }
                let bytes = ops.iter().map(|op| usize::from(op.len)).sum();
                mem.mark_code(frame, off, bytes);
                if self.far.blocks.len() >= MAX_BLOCKS {
                    self.flush();
                }
                let far = Arc::make_mut(&mut self.far);
                let index = far.blocks.len() as u32;
                far.blocks.push(ops.into());
                far.index.insert(key, index);
                index
            }
        };
        self.near[rip as usize % NEAR] = (rip, index);
        Found::Cached(index as usize)
    }
}

/// The frame to fetch from.
fn executable(mem: &Memory, va: u64) -> Result<FrameId, Found> {
    if !Va(va).is_canonical() {
        return Err(Found::NonCanonical);
    }
    match mem.translate(Va(va)) {
        Some((_, prot)) if prot.contains(Prot::GATE) => Err(Found::Gate),
        Some((Target::Ram(frame), prot)) if prot.contains(Prot::EXEC) => Ok(frame),
        Some(_) => Err(Found::Fault(va, true)),
        None => Err(Found::Fault(va, false)),
    }
}

/// Decodes until control may go elsewhere, the bytes end, or something isn't an instruction. Empty if the
/// first instruction needs more bytes.
fn decode_block(bytes: &[u8], rip: u64) -> Vec<Op> {
    let mut decoder = Decoder::with_ip(64, bytes, rip, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut ops = Vec::new();
    while ops.len() < MAX_OPS {
        decoder.decode_out(&mut instruction);
        match decoder.last_error() {
            DecoderError::None => {
                let lowered = lower(&instruction);
                ops.push(lowered.op);
                if lowered.ends {
                    break;
                }
            }
            DecoderError::NoMoreBytes => break,
            _ => {
                // Its length matters to nobody: it never retires.
                let mut op = lower(&instruction).op;
                op.k = K::Invalid;
                op.len = 1;
                ops.push(op);
                break;
            }
        }
    }
    finish(&mut ops);
    ops
}

/// The instruction at `rip` goes on in the next page.
fn crossing(mem: &Memory, rip: u64, first: FrameId) -> Found {
    let off = rip as usize % PAGE_SIZE;
    let next = (rip | (PAGE_SIZE as u64 - 1)).wrapping_add(1);
    let second = match executable(mem, next) {
        Ok(frame) => frame,
        // A gate or a hole there: the fetch fails.
        Err(Found::Gate) => return Found::Fault(next, true),
        Err(found) => return found,
    };
    let mut bytes = Vec::with_capacity(32);
    bytes.extend_from_slice(&mem.frame(first)[off..]);
    bytes.extend_from_slice(&mem.frame(second)[..16]);
    match decode_block(&bytes, rip).first() {
        Some(&op) => Found::Single(op),
        None => Found::Fault(next, true),
    }
}

/// The instruction's text, for the message that the engine lacks it.
pub(crate) fn text_at(mem: &Memory, rip: u64) -> String {
    use iced_x86::Formatter;
    let mut bytes = [0; 15];
    let mut n = 0;
    while n < bytes.len() && mem.read(Va(rip.wrapping_add(n as u64)), &mut bytes[n..=n]).is_ok() {
        n += 1;
    }
    let instruction = Decoder::with_ip(64, &bytes[..n], rip, DecoderOptions::NONE).decode();
    let mut text = String::new();
    iced_x86::IntelFormatter::new().format(&instruction, &mut text);
    text
}
