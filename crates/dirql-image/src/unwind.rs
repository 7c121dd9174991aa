//! The exception table and unwind information, after Microsoft's page "x64 exception handling": what stack walks and
//! `__C_specific_handler` need.

use crate::{Image, ImageError, bytes, headers::Directory};
use object::{LittleEndian as LE, pe};

const TABLE: &str = "exception table";
const ENTRY: u32 = 12;
/// The longest chain of unwind information or indirections followed; compilers make chains of two or three.
const MAX_CHAIN: usize = 32;

/// One function, or one part of a function that was split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuntimeFunction {
    /// RVA of its first byte.
    pub begin: u32,
    /// RVA behind its last byte.
    pub end: u32,
    /// RVA of its UNWIND_INFO.
    pub unwind: u32,
}

/// A function's unwind information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnwindInfo {
    /// 1, or 2 when it describes epilogs.
    pub version: u8,
    /// `UNW_FLAG_*`: 1 exception handler, 2 termination handler, 4 chained.
    pub flags: u8,
    /// Bytes of the prolog.
    pub prolog_size: u8,
    /// What the prolog does, last instruction first.
    pub codes: Vec<UnwindCode>,
    /// The frame register (5 is RBP) and the bytes by which it lies above RSP when it is set.
    pub frame: Option<(u8, u32)>,
    /// The language's handler.
    pub handler: Option<UnwindHandler>,
    /// The function whose unwind information continues this one.
    pub chained: Option<RuntimeFunction>,
}

/// A language handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnwindHandler {
    /// RVA of the handler, usually an import stub of `__C_specific_handler`.
    pub rva: u32,
    /// RVA of its data, which only the handler understands.
    pub data_rva: u32,
    /// Called while a handler for the exception is sought.
    pub exception: bool,
    /// Called while the stack is unwound.
    pub termination: bool,
}

/// One effect of the prolog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnwindCode {
    /// Offset in the prolog behind the instruction; from the end of the function for an epilog.
    pub offset: u8,
    /// What the instruction did.
    pub op: UnwindOp,
}

/// What an instruction of the prolog did. Registers are numbered as in instructions: 0 RAX ... 15 R15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnwindOp {
    /// Pushed a register.
    Push(u8),
    /// Took this many bytes of stack.
    Alloc(u32),
    /// Set the frame register from RSP.
    SetFrame,
    /// Stored a register this many bytes above RSP.
    Save(u8, u32),
    /// Stored an XMM register this many bytes above RSP.
    SaveXmm(u8, u32),
    /// The processor pushed an interrupt frame, with an error code or without.
    MachineFrame {
        /// With an error code.
        error_code: bool,
    },
    /// Version 2: where an epilog is; no effect on the prolog. Its high four offset bits or flags.
    Epilog(u8),
}

/// One `__try` block of C code, from the scope table of `__C_specific_handler`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScopeRecord {
    /// RVA of the first byte guarded.
    pub begin: u32,
    /// RVA behind the last.
    pub end: u32,
    /// RVA of the filter, 1 for "always execute the handler"; with `target` 0, RVA of the `__finally` routine.
    pub handler: u32,
    /// RVA of the `__except` block, 0 for `__finally`.
    pub target: u32,
}

fn bad(rva: u32, why: impl Into<String>) -> ImageError {
    ImageError::Table { table: TABLE, rva, why: why.into() }
}

fn entry_at(image: &[u8], rva: u32) -> Option<RuntimeFunction> {
    let e: pe::ImageRuntimeFunctionEntry = bytes::pod(image, rva.into())?;
    Some(RuntimeFunction {
        begin: e.begin_address.get(LE),
        end: e.end_address.get(LE),
        unwind: e.unwind_info_address_or_data.get(LE),
    })
}

/// The exception table, sorted, and where each entry lies; entries that are all zero are padding.
pub(crate) fn table(image: &[u8], dir: Directory) -> Result<(Vec<RuntimeFunction>, Vec<u32>), ImageError> {
    let mut all = Vec::new();
    if dir.rva == 0 || dir.size == 0 {
        return Ok((vec![], vec![]));
    }
    if bytes::slice(image, dir.rva.into(), dir.size.into()).is_none() {
        return Err(bad(dir.rva, format!("its {:#x} bytes do not lie inside the image", dir.size)));
    }
    for i in 0..dir.size / ENTRY {
        let at = dir.rva + i * ENTRY;
        let Some(f) = entry_at(image, at) else { break };
        if f == (RuntimeFunction { begin: 0, end: 0, unwind: 0 }) {
            continue;
        }
        if f.begin >= f.end || f.end as usize > image.len() {
            return Err(bad(
                at,
                format!("the function {:#x}..{:#x} is empty or outside the image", f.begin, f.end),
            ));
        }
        if f.unwind as usize >= image.len() {
            return Err(bad(
                at,
                format!("the unwind information of {:#x} is at {:#x}, outside the image", f.begin, f.unwind),
            ));
        }
        all.push((f, at));
    }
    all.sort();
    if let Some(w) = all.windows(2).find(|w| w[0].0.end > w[1].0.begin) {
        return Err(bad(
            w[1].0.begin,
            format!("the functions at {:#x} and {:#x} overlap", w[0].0.begin, w[1].0.begin),
        ));
    }
    Ok(all.into_iter().unzip())
}

impl Image {
    /// The function that covers `rva`; `None` for a leaf function, which leaves the stack as it found it.
    #[must_use]
    pub fn lookup(&self, rva: u32) -> Option<RuntimeFunction> {
        let after = self.functions.partition_point(|f| f.begin <= rva);
        let mut f = *self.functions.get(after.checked_sub(1)?)?;
        if rva >= f.end {
            return None;
        }
        // An odd address names another table entry to be used instead.
        for _ in 0..MAX_CHAIN {
            if f.unwind & 1 == 0 {
                return Some(f);
            }
            let other = entry_at(&self.mapped, f.unwind & !1)?;
            f.unwind = other.unwind;
        }
        None
    }

    /// RVA of the exception-table entry that covers `rva`, as RtlLookupFunctionEntry gives it.
    #[must_use]
    pub fn lookup_entry(&self, rva: u32) -> Option<u32> {
        let i = self.functions.partition_point(|f| f.begin <= rva).checked_sub(1)?;
        (rva < self.functions.get(i)?.end).then(|| self.function_entries.get(i).copied()).flatten()
    }

    /// Reads the UNWIND_INFO at `rva` (the `unwind` of a [`RuntimeFunction`]).
    ///
    /// # Errors
    ///
    /// When it lies outside the image, has an unknown version or an unknown operation.
    pub fn unwind(&self, rva: u32) -> Result<UnwindInfo, ImageError> {
        let outside = || ImageError::Table {
            table: "unwind information",
            rva,
            why: "it lies outside the image".into(),
        };
        let wrong = |why: String| ImageError::Table { table: "unwind information", rva, why };
        let at = u64::from(rva);
        let head: [u8; 4] =
            bytes::slice(&self.mapped, at, 4).and_then(|s| s.try_into().ok()).ok_or_else(outside)?;
        let (version, flags) = (head[0] & 7, head[0] >> 3);
        if version != 1 && version != 2 {
            return Err(wrong(format!("its version is {version}, not 1 or 2")));
        }
        let count = u64::from(head[2]);
        let raw = bytes::slice(&self.mapped, at + 4, count * 2).ok_or_else(outside)?;
        let codes = codes(raw, version).map_err(wrong)?;
        let frame = (head[3] & 15 != 0).then(|| (head[3] & 15, u32::from(head[3] >> 4) * 16));
        // The array is padded to an even number of codes.
        let tail = at + 4 + count.next_multiple_of(2) * 2;
        let tail_rva = u32::try_from(tail).map_err(|_| outside())?;
        let mut info =
            UnwindInfo { version, flags, prolog_size: head[1], codes, frame, handler: None, chained: None };
        if flags & 4 != 0 {
            info.chained = Some(entry_at(&self.mapped, tail_rva).ok_or_else(outside)?);
        } else if flags & 3 != 0 {
            info.handler = Some(UnwindHandler {
                rva: bytes::u32_at(&self.mapped, tail).ok_or_else(outside)?,
                data_rva: tail_rva.checked_add(4).ok_or_else(outside)?,
                exception: flags & 1 != 0,
                termination: flags & 2 != 0,
            });
        }
        Ok(info)
    }

    /// The unwind information of a function and of all it chains to, first the function's own.
    ///
    /// # Errors
    ///
    /// As [`Image::unwind`], or when the chain is longer than 32 or goes round.
    pub fn unwind_chain(&self, function: RuntimeFunction) -> Result<Vec<UnwindInfo>, ImageError> {
        let mut all = vec![self.unwind(function.unwind)?];
        while let Some(next) = all.last().and_then(|i| i.chained) {
            if all.len() == MAX_CHAIN {
                return Err(ImageError::Table {
                    table: "unwind information",
                    rva: function.unwind,
                    why: format!("its chain is longer than {MAX_CHAIN}"),
                });
            }
            all.push(self.unwind(next.unwind)?);
        }
        Ok(all)
    }

    /// The scope table at a handler's `data_rva`. Only for a handler known to be `__C_specific_handler`: the data of others
    /// has another form.
    ///
    /// # Errors
    ///
    /// When the table does not lie inside the image.
    pub fn c_scope_table(&self, data_rva: u32) -> Result<Vec<ScopeRecord>, ImageError> {
        let outside = || ImageError::Table {
            table: "C scope table",
            rva: data_rva,
            why: "it lies outside the image".into(),
        };
        let at = u64::from(data_rva);
        let count = bytes::u32_at(&self.mapped, at).ok_or_else(outside)?;
        let records = bytes::slice(&self.mapped, at + 4, u64::from(count) * 16).ok_or_else(outside)?;
        let word = |r: &[u8], i: u64| bytes::u32_at(r, i * 4).unwrap_or(0);
        Ok(records
            .chunks_exact(16)
            .map(|r| ScopeRecord {
                begin: word(r, 0),
                end: word(r, 1),
                handler: word(r, 2),
                target: word(r, 3),
            })
            .collect())
    }
}

fn codes(raw: &[u8], version: u8) -> Result<Vec<UnwindCode>, String> {
    let mut all = Vec::new();
    let mut slots = raw.chunks_exact(2);
    while let Some(code) = slots.next() {
        let (offset, op, info) = (code[0], code[1] & 15, code[1] >> 4);
        let mut word = || {
            slots
                .next()
                .map(|s| u32::from(u16::from_le_bytes([s[0], s[1]])))
                .ok_or_else(|| format!("operation {op} lacks its operand"))
        };
        let op = match (op, info) {
            (0, register) => UnwindOp::Push(register),
            (1, 0) => UnwindOp::Alloc(word()? * 8),
            (1, 1) => UnwindOp::Alloc(word()? | word()? << 16),
            (2, info) => UnwindOp::Alloc(u32::from(info) * 8 + 8),
            (3, _) => UnwindOp::SetFrame,
            (4, register) => UnwindOp::Save(register, word()? * 8),
            (5, register) => UnwindOp::Save(register, word()? | word()? << 16),
            (6, info) if version == 2 => UnwindOp::Epilog(info),
            (8, register) => UnwindOp::SaveXmm(register, word()? * 16),
            (9, register) => UnwindOp::SaveXmm(register, word()? | word()? << 16),
            (10, 0) => UnwindOp::MachineFrame { error_code: false },
            (10, 1) => UnwindOp::MachineFrame { error_code: true },
            (op, info) => {
                return Err(format!("it has operation {op} with information {info}, which is not defined"));
            }
        };
        all.push(UnwindCode { offset, op });
    }
    Ok(all)
}
