//! The run-time library's registry routines: `RtlQueryRegistryValues` with its tables, and the write and check ones.
//!
//! After the Microsoft page of `RtlQueryRegistryValues`, flag by flag. Of the environment only `%SystemRoot%` is known
//! to the expansion of REG_EXPAND_SZ. Left out: a table entry with DIRECT for a REG_MULTI_SZ without NOEXPAND, which
//! the page forbids.

use std::collections::VecDeque;

use crate::context::{Outcome, Result, ret};
use crate::cx::Cx;
use crate::exports;
use crate::exports::crt::units;
use crate::exports::ex_pool::kernel_block;
use crate::exports::rtl::RtlThen;
use crate::exports::zw_key::{
    BUFFER_TOO_SMALL, INVALID_PARAMETER, NAME_NOT_FOUND, by_handle, create_last, set_value, status_of,
};
use crate::identity::CONTROL_SET;
use crate::pool::PoolKind;
use crate::registry::{KeyId, REG_EXPAND_SZ, REG_MULTI_SZ, REG_NONE, REG_SZ, Registry, Value, sz};
use crate::stop::Stop;
use crate::then::Then;

type Res<T> = std::result::Result<T, Stop>;

const TYPE_MISMATCH: u64 = 0xC000_0024;
const NO_MEMORY: u64 = 0xC000_0017;
/// RTL_REGISTRY_HANDLE and RTL_REGISTRY_OPTIONAL.
const HANDLE: u32 = 0x4000_0000;
const OPTIONAL: u32 = 0x8000_0000;
/// Entries of one table; more is a table without its end.
const MAX_ENTRIES: u32 = 4096;

/// RTL_QUERY_REGISTRY_*.
mod flag {
    pub(super) const SUBKEY: u32 = 1;
    pub(super) const TOPKEY: u32 = 2;
    pub(super) const REQUIRED: u32 = 4;
    pub(super) const NOVALUE: u32 = 8;
    pub(super) const NOEXPAND: u32 = 0x10;
    pub(super) const DIRECT: u32 = 0x20;
    pub(super) const DELETE: u32 = 0x40;
    pub(super) const NOSTRING: u32 = 0x80;
    pub(super) const TYPECHECK: u32 = 0x100;
}

/// RTL_QUERY_REGISTRY_TABLE.
#[derive(Clone, Copy, Debug)]
struct Entry {
    routine: u64,
    flags: u32,
    name: u64,
    context: u64,
    default_kind: u32,
    default: u64,
    default_length: u32,
}

const ENTRY_SIZE: u64 = 56;

/// A call of the driver's QueryRoutine that is due.
#[derive(Clone, Debug)]
pub(crate) struct Due {
    entry: Option<(u64, u64)>,
    value: Value,
    none: bool,
    delete: Option<KeyId>,
}

/// A query in the middle of its table.
#[derive(Clone, Debug)]
pub struct Query {
    top: KeyId,
    current: KeyId,
    at: u64,
    left: u32,
    context: u64,
    due: VecDeque<Due>,
    scratch: u64,
    deleting: Option<(KeyId, String)>,
}

/// The key that RelativeTo and Path name; none if there is no such key.
fn find(cx: &mut Cx<'_>, relative: u32, path: u64, create: bool) -> Res<std::result::Result<KeyId, u64>> {
    if relative & HANDLE != 0 {
        return Ok(by_handle(cx, path));
    }
    let base = match relative & 0x3fff_ffff {
        0 => String::new(),
        1 => format!("{CONTROL_SET}\\Services"),
        2 => format!("{CONTROL_SET}\\Control"),
        3 => "\\Registry\\Machine\\Software\\Microsoft\\Windows NT\\CurrentVersion".to_owned(),
        4 => "\\Registry\\Machine\\Hardware\\DeviceMap".to_owned(),
        5 => "\\Registry\\User\\.Default".to_owned(),
        _ => return Ok(Err(INVALID_PARAMETER)),
    };
    let path = if path == 0 { String::new() } else { String::from_utf16_lossy(&units(cx, path, true)?) };
    let full = if path.is_empty() { base } else { format!("{base}\\{path}") };
    Ok(match cx.k.registry.key(&full) {
        Some(key) => Ok(key),
        None if create => create_last(cx, Registry::ROOT, &full).map(|(key, _)| key),
        None => Err(NAME_NOT_FOUND),
    })
}

fn entry(cx: &Cx<'_>, at: u64) -> Res<Entry> {
    Ok(Entry {
        routine: cx.r64(at)?,
        flags: cx.r32(at + 8)?,
        name: cx.r64(at + 16)?,
        context: cx.r64(at + 24)?,
        default_kind: cx.r32(at + 32)?,
        default: cx.r64(at + 40)?,
        default_length: cx.r32(at + 48)?,
    })
}

fn text(data: &[u8]) -> String {
    let units: Vec<u16> = data.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
    let end = units.iter().position(|&u| u == 0).unwrap_or(units.len());
    String::from_utf16_lossy(&units[..end])
}

/// The strings of REG_MULTI_SZ data, each with its terminator.
fn strings(data: &[u8]) -> Vec<Vec<u8>> {
    let units: Vec<u16> = data.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
    units
        .split(|&u| u == 0)
        .take_while(|s| !s.is_empty())
        .map(|s| s.iter().copied().chain([0]).flat_map(u16::to_le_bytes).collect())
        .collect()
}

/// Replaces the variables of the environment, without regard to case.
fn expand(s: &str) -> String {
    const NAME: &str = "%systemroot%";
    let mut out = String::new();
    let mut rest = s;
    while let Some(at) = rest.to_ascii_lowercase().find(NAME) {
        out.push_str(&rest[..at]);
        out.push_str("C:\\Windows");
        rest = &rest[at + NAME.len()..];
    }
    out.push_str(rest);
    out
}

/// Stores a value as DIRECT asks: strings into a UNICODE_STRING, others into the buffer that EntryContext describes.
fn store(cx: &mut Cx<'_>, e: Entry, value: &Value) -> Res<u64> {
    let string = matches!(value.kind, REG_SZ | REG_EXPAND_SZ | REG_MULTI_SZ);
    let size = value.data.len();
    if e.flags & flag::TYPECHECK != 0 && e.default_kind >> 24 != value.kind {
        return Ok(TYPE_MISMATCH);
    }
    if string {
        if e.flags & flag::NOSTRING != 0 {
            return Ok(TYPE_MISMATCH);
        }
        if size > 0xfffe {
            return Ok(BUFFER_TOO_SMALL);
        }
        let (mut max, mut buffer) = (usize::from(cx.r16(e.context + 2)?), cx.r64(e.context + 8)?);
        if buffer == 0 {
            let tag = u32::from_le_bytes(*b"RtlQ");
            buffer = match cx.k.pool.alloc(&mut cx.m.mem, size as u64, PoolKind::Paged, tag) {
                Err(Stop::OutOfMemory) => return Ok(NO_MEMORY),
                other => other?,
            };
            max = size;
            cx.w16(e.context + 2, size as u16)?;
            cx.w64(e.context + 8, buffer)?;
        }
        if size > max {
            return Ok(BUFFER_TOO_SMALL);
        }
        cx.put(buffer, &value.data)?;
        // The length leaves out the terminator.
        let length = if value.data.ends_with(&[0, 0]) { size - 2 } else { size };
        cx.w16(e.context, length as u16)?;
    } else if size <= 4 {
        cx.put(e.context, &value.data)?;
    } else {
        // The buffer begins with its own size: positive asks for length and type before the data, negative does not.
        let room = cx.r32(e.context)? as i32;
        let head = if room < 0 { 0 } else { 8 };
        if (room.unsigned_abs() as usize) < size + head {
            return Ok(BUFFER_TOO_SMALL);
        }
        if head != 0 {
            cx.w32(e.context, size as u32)?;
            cx.w32(e.context + 4, value.kind)?;
        }
        cx.put(e.context + head as u64, &value.data)?;
    }
    Ok(0)
}

/// What to do with a value that a table entry asks for: store it, or call the routine one or several times.
fn deliver(cx: &mut Cx<'_>, q: &mut Query, e: Entry, value: Value, from: Option<KeyId>) -> Res<u64> {
    let mut values = vec![];
    let plain = e.flags & flag::NOEXPAND != 0;
    match value.kind {
        REG_MULTI_SZ if !plain => {
            if e.flags & flag::DIRECT != 0 {
                return Err(cx.missing("RtlQueryRegistryValues: DIRECT for REG_MULTI_SZ without NOEXPAND"));
            }
            for s in strings(&value.data) {
                values.push(Value { name: value.name.clone(), kind: REG_SZ, data: s });
            }
        }
        REG_EXPAND_SZ if !plain => {
            let data = sz(&expand(&text(&value.data)));
            values.push(Value { kind: REG_SZ, data, ..value.clone() });
        }
        _ => values.push(value.clone()),
    }
    let delete = from.filter(|_| e.flags & flag::DELETE != 0);
    if e.flags & flag::DIRECT != 0 {
        for v in &values {
            // TYPECHECK looks at what is in the registry, before any expansion.
            let v = if e.flags & flag::TYPECHECK != 0 && e.default_kind >> 24 == value.kind {
                Value { kind: value.kind, ..v.clone() }
            } else {
                v.clone()
            };
            let status = store(cx, e, &v)?;
            if status != 0 {
                return Ok(status);
            }
        }
        if let Some(key) = delete {
            // It was there a moment ago, and nothing ran in between.
            let _ = cx.k.registry.delete_value(key, &value.name);
        }
        return Ok(0);
    }
    if values.is_empty() {
        // An empty REG_MULTI_SZ: no string, no call.
        return Ok(0);
    }
    let last = values.len() - 1;
    for (i, v) in values.into_iter().enumerate() {
        q.due.push_back(Due {
            entry: Some((e.routine, e.context)),
            value: v,
            none: false,
            delete: delete.filter(|_| i == last),
        });
    }
    Ok(0)
}

/// The default of a table entry as a value; none when it has none.
fn default_of(cx: &Cx<'_>, e: Entry, name: &str) -> Res<Option<Value>> {
    let kind = e.default_kind & 0x00ff_ffff;
    if kind == REG_NONE {
        return Ok(None);
    }
    let mut length = e.default_length as usize;
    if length == 0 && e.default != 0 {
        length = match kind {
            REG_SZ | REG_EXPAND_SZ => 2 * (units(cx, e.default, true)?.len() + 1),
            REG_MULTI_SZ => {
                let mut n = 0usize;
                loop {
                    let one = units(cx, e.default + 2 * n as u64, true)?.len();
                    n += one + 1;
                    if one == 0 || n > 1 << 20 {
                        break 2 * n;
                    }
                }
            }
            _ => 0,
        };
    }
    let data = if e.default == 0 { vec![] } else { cx.bytes(e.default, length)? };
    Ok(Some(Value { name: name.to_owned(), kind, data }))
}

/// Handles one entry; gives a status other than success to end the query with.
fn one(cx: &mut Cx<'_>, q: &mut Query, e: Entry) -> Res<u64> {
    use flag::{DIRECT, NOVALUE, REQUIRED, SUBKEY, TOPKEY};
    if e.flags & DIRECT != 0 && (e.name == 0 || e.flags & SUBKEY != 0 || e.routine != 0) {
        return Ok(INVALID_PARAMETER);
    }
    if e.flags & (TOPKEY | SUBKEY) != 0 {
        q.current = q.top;
    }
    let name = if e.name == 0 { String::new() } else { String::from_utf16_lossy(&units(cx, e.name, true)?) };
    if e.flags & SUBKEY != 0 {
        if e.name == 0 {
            return Ok(INVALID_PARAMETER);
        }
        match cx.k.registry.key_under(q.top, &name) {
            Some(key) => q.current = key,
            None => return Ok(NAME_NOT_FOUND),
        }
        if e.routine == 0 {
            return Ok(0);
        }
    } else if e.flags & NOVALUE != 0 {
        q.due.push_back(Due {
            entry: Some((e.routine, e.context)),
            value: Value { name, kind: REG_NONE, data: vec![] },
            none: true,
            delete: None,
        });
        return Ok(0);
    } else if e.name != 0 {
        let found = cx.k.registry.value(q.current, &name).cloned();
        return match found {
            Some(v) => {
                let from = q.current;
                deliver(cx, q, e, Value { name, ..v }, Some(from))
            }
            None if e.flags & REQUIRED != 0 => Ok(NAME_NOT_FOUND),
            None => match default_of(cx, e, &name)? {
                Some(v) => {
                    // A default is what the caller made: its type needs no check.
                    deliver(cx, q, Entry { flags: e.flags & !flag::TYPECHECK, ..e }, v, None)
                }
                None => Ok(0),
            },
        };
    }
    // Every value of the key.
    let values: Vec<Value> = cx.k.registry.values(q.current).cloned().collect();
    if values.is_empty() && e.flags & REQUIRED != 0 {
        return Ok(NAME_NOT_FOUND);
    }
    for v in values {
        let from = q.current;
        let status = deliver(cx, q, e, v, Some(from))?;
        if status != 0 {
            return Ok(status);
        }
    }
    Ok(0)
}

/// Goes on with a query until the driver's routine must be called, or the table ends.
fn go(cx: &mut Cx<'_>, mut q: Query) -> Result {
    loop {
        if let Some(due) = q.due.pop_front() {
            let Some((routine, context)) = due.entry else { continue };
            let name = sz(&due.value.name);
            let at = name.len().next_multiple_of(16);
            let size = at + due.value.data.len();
            let block = match kernel_block(cx, size as u64) {
                Err(Stop::OutOfMemory) => return ret(NO_MEMORY),
                other => other?,
            };
            cx.put(block, &name)?;
            cx.put(block + at as u64, &due.value.data)?;
            q.scratch = block;
            q.deleting = due.delete.map(|key| (key, due.value.name.clone()));
            let (data, length) =
                if due.none { (0, 0) } else { (block + at as u64, due.value.data.len() as u64) };
            let args = vec![block, u64::from(due.value.kind), data, length, q.context, context];
            return Ok(Outcome::Call { routine, args, then: Then::Rtl(RtlThen::Query(Box::new(q))) });
        }
        let e = entry(cx, q.at)?;
        if e.routine == 0 && e.flags & (flag::SUBKEY | flag::DIRECT) == 0 {
            return ret(0);
        }
        if q.left == 0 {
            return Err(cx.missing("a registry query table of more than 4096 entries"));
        }
        q.left -= 1;
        q.at = q.at.wrapping_add(ENTRY_SIZE);
        let status = one(cx, &mut q, e)?;
        if status != 0 {
            return ret(status);
        }
    }
}

/// The driver's routine returned: a failure ends the query, except the one that says that its buffer is small.
pub(crate) fn resume(cx: &mut Cx<'_>, mut q: Query, status: u64) -> Result {
    crate::io::free(cx, q.scratch)?;
    if (status as u32 as i32) < 0 {
        return ret(status & 0xffff_ffff);
    }
    if let Some((key, name)) = q.deleting.take() {
        // The routine may have deleted it itself.
        let _ = cx.k.registry.delete_value(key, &name);
    }
    go(cx, q)
}

exports! {
    [0] fn RtlQueryRegistryValues(cx, relative: u32, path: u64, table: u64, context: u64, _environment: u64) {
        match find(cx, relative, path, false)? {
            Ok(key) => go(cx, Query {
                top: key,
                current: key,
                at: table,
                left: MAX_ENTRIES,
                context,
                due: VecDeque::new(),
                scratch: 0,
                deleting: None,
            }),
            Err(NAME_NOT_FOUND) if relative & OPTIONAL != 0 => ret(0),
            Err(status) => ret(status),
        }
    }
    [0] fn RtlWriteRegistryValue(cx, relative: u32, path: u64, name: u64, kind: u32, data: u64, length: u32) {
        let key = match find(cx, relative, path, true)? {
            Ok(key) => key,
            Err(status) => return ret(status),
        };
        let name = if name == 0 { String::new() } else { String::from_utf16_lossy(&units(cx, name, true)?) };
        let data = cx.bytes(data, length as usize)?;
        ret(set_value(cx, key, &name, kind, &data))
    }
    [0] fn RtlDeleteRegistryValue(cx, relative: u32, path: u64, name: u64) {
        let key = match find(cx, relative, path, false)? {
            Ok(key) => key,
            Err(status) => return ret(status),
        };
        let name = String::from_utf16_lossy(&units(cx, name, true)?);
        ret(cx.k.registry.delete_value(key, &name).map_or_else(status_of, |()| 0))
    }
    [0] fn RtlCheckRegistryKey(cx, relative: u32, path: u64) {
        ret(find(cx, relative, path, false)?.map_or_else(|status| status, |_| 0))
    }
    [0] fn RtlCreateRegistryKey(cx, relative: u32, path: u64) {
        ret(find(cx, relative, path, true)?.map_or_else(|status| status, |_| 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_expansion_follow_the_registry_types() {
        let mut data = sz("a");
        data.extend(sz("bc"));
        data.extend([0, 0]);
        assert_eq!(strings(&data), [sz("a"), sz("bc")]);
        assert!(strings(&[0, 0]).is_empty());
        assert_eq!(text(&sz("x")), "x");
        assert_eq!(expand("%SystemROOT%\\a %other%"), "C:\\Windows\\a %other%");
    }
}
