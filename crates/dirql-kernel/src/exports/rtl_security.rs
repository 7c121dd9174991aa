//! Run-time library: SIDs, access control lists and security descriptors.
//!
//! Their formats are wdm.h's and ntifs.h's. Nothing here checks an access: kernel mode is not checked, and there is no
//! user mode.

use crate::context::{Result, ret, void};
use crate::cx::Cx;
use crate::exports;
use crate::stop::Stop;

type Res<T> = std::result::Result<T, Stop>;

const INVALID_PARAMETER: u64 = 0xC000_000D;
const UNKNOWN_REVISION: u64 = 0xC000_0058;
const INVALID_ACL: u64 = 0xC000_0077;
const INVALID_SID: u64 = 0xC000_0078;
const INVALID_SECURITY_DESCR: u64 = 0xC000_0079;
const BUFFER_TOO_SMALL: u64 = 0xC000_0023;
const ALLOTTED_SPACE_EXCEEDED: u64 = 0xC000_0099;
const BAD_DESCRIPTOR_FORMAT: u64 = 0xC000_00E7;

/// SECURITY_DESCRIPTOR: Revision 0, Control 2, Owner 8, Group 16, Sacl 24, Dacl 32.
const SD_SIZE: u64 = 40;
/// SECURITY_DESCRIPTOR_RELATIVE: the same with offsets, at 4, 8, 12, 16.
const RELATIVE_SIZE: u64 = 20;
const OWNER_DEFAULTED: u16 = 1;
const GROUP_DEFAULTED: u16 = 2;
const DACL_PRESENT: u16 = 4;
const DACL_DEFAULTED: u16 = 8;
const SACL_PRESENT: u16 = 0x10;
const SACL_DEFAULTED: u16 = 0x20;
const SELF_RELATIVE: u16 = 0x8000;

fn sid_length(cx: &Cx<'_>, sid: u64) -> Res<u64> {
    Ok(8 + 4 * u64::from(cx.r8(sid + 1)?))
}

fn valid_sid(cx: &Cx<'_>, sid: u64) -> Res<bool> {
    Ok(sid != 0 && cx.r8(sid)? & 0xf == 1 && cx.r8(sid + 1)? <= 15)
}

/// A part of a descriptor: where it is, or none.
#[derive(Clone, Copy)]
enum Part {
    Owner,
    Group,
    Sacl,
    Dacl,
}

fn part(cx: &Cx<'_>, sd: u64, which: Part) -> Res<u64> {
    let control = cx.r16(sd + 2)?;
    let n = match which {
        Part::Owner => 0,
        Part::Group => 1,
        Part::Sacl if control & SACL_PRESENT != 0 => 2,
        Part::Dacl if control & DACL_PRESENT != 0 => 3,
        _ => return Ok(0),
    };
    if control & SELF_RELATIVE != 0 {
        let offset = u64::from(cx.r32(sd + 4 + 4 * n)?);
        return Ok(if offset == 0 { 0 } else { sd + offset });
    }
    cx.r64(sd + 8 + 8 * n)
}

const PARTS: [Part; 4] = [Part::Owner, Part::Group, Part::Sacl, Part::Dacl];

fn part_length(cx: &Cx<'_>, at: u64, which: Part) -> Res<u64> {
    if at == 0 {
        return Ok(0);
    }
    match which {
        Part::Owner | Part::Group => sid_length(cx, at),
        Part::Sacl | Part::Dacl => Ok(u64::from(cx.r16(at + 2)?)),
    }
}

fn length(cx: &Cx<'_>, sd: u64) -> Res<u64> {
    let mut n = if cx.r16(sd + 2)? & SELF_RELATIVE != 0 { RELATIVE_SIZE } else { SD_SIZE };
    for which in PARTS {
        n += part_length(cx, part(cx, sd, which)?, which)?.next_multiple_of(4);
    }
    Ok(n)
}

fn valid_acl(cx: &Cx<'_>, acl: u64) -> Res<bool> {
    let (revision, size, count) = (cx.r8(acl)?, u64::from(cx.r16(acl + 2)?), cx.r16(acl + 4)?);
    if !(2..=4).contains(&revision) || size < 8 {
        return Ok(false);
    }
    let mut at = 8;
    for _ in 0..count {
        if at + 4 > size {
            return Ok(false);
        }
        let n = u64::from(cx.r16(acl + at + 2)?);
        if n < 4 || n % 4 != 0 || at + n > size {
            return Ok(false);
        }
        at += n;
    }
    Ok(true)
}

fn valid_sd(cx: &Cx<'_>, sd: u64) -> Res<bool> {
    if sd == 0 || cx.r8(sd)? != 1 {
        return Ok(false);
    }
    for which in PARTS {
        let at = part(cx, sd, which)?;
        let good = at == 0
            || match which {
                Part::Owner | Part::Group => valid_sid(cx, at)?,
                Part::Sacl | Part::Dacl => valid_acl(cx, at)?,
            };
        if !good {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Appends an ACE with an access mask and a SID.
fn add_ace(cx: &mut Cx<'_>, acl: u64, revision: u32, kind: (u8, u8), mask: u32, sid: u64) -> Result {
    if !valid_acl(cx, acl)? {
        return ret(INVALID_ACL);
    }
    if !valid_sid(cx, sid)? {
        return ret(INVALID_SID);
    }
    if !(2..=4).contains(&revision) {
        return ret(0xC000_0059);
    }
    let (size, count) = (u64::from(cx.r16(acl + 2)?), cx.r16(acl + 4)?);
    let mut at = 8;
    for _ in 0..count {
        at += u64::from(cx.r16(acl + at + 2)?);
    }
    let body = sid_length(cx, sid)?;
    let n = 8 + body;
    if at + n > size {
        return ret(ALLOTTED_SPACE_EXCEEDED);
    }
    let ace = acl + at;
    cx.w8(ace, kind.0)?;
    cx.w8(ace + 1, kind.1)?;
    cx.w16(ace + 2, n as u16)?;
    cx.w32(ace + 4, mask)?;
    let data = cx.bytes(sid, body as usize)?;
    cx.put(ace + 8, &data)?;
    cx.w16(acl + 4, count + 1)?;
    let old = cx.r8(acl)?;
    cx.w8(acl, old.max(revision as u8))?;
    ret(0)
}

fn get_acl(cx: &mut Cx<'_>, sd: u64, present: u64, acl: u64, defaulted: u64, which: Part) -> Result {
    if cx.r8(sd)? != 1 {
        return ret(UNKNOWN_REVISION);
    }
    let (is, def) = match which {
        Part::Dacl => (DACL_PRESENT, DACL_DEFAULTED),
        _ => (SACL_PRESENT, SACL_DEFAULTED),
    };
    let control = cx.r16(sd + 2)?;
    cx.w8(present, u8::from(control & is != 0))?;
    if control & is != 0 {
        let at = part(cx, sd, which)?;
        cx.w64(acl, at)?;
        cx.w8(defaulted, u8::from(control & def != 0))?;
    }
    ret(0)
}

fn get_sid(cx: &mut Cx<'_>, sd: u64, out: u64, defaulted: u64, which: Part) -> Result {
    if cx.r8(sd)? != 1 {
        return ret(UNKNOWN_REVISION);
    }
    let at = part(cx, sd, which)?;
    let bit = if matches!(which, Part::Owner) { OWNER_DEFAULTED } else { GROUP_DEFAULTED };
    let control = cx.r16(sd + 2)?;
    cx.w64(out, at)?;
    cx.w8(defaulted, u8::from(control & bit != 0))?;
    ret(0)
}

/// Sets a pointer of an absolute descriptor and its control bits.
fn set(cx: &mut Cx<'_>, sd: u64, slot: u64, at: u64, bits: [(u16, bool); 2]) -> Result {
    if cx.r8(sd)? != 1 {
        return ret(UNKNOWN_REVISION);
    }
    let mut control = cx.r16(sd + 2)?;
    if control & SELF_RELATIVE != 0 {
        return ret(INVALID_SECURITY_DESCR);
    }
    for (bit, on) in bits {
        control = if on { control | bit } else { control & !bit };
    }
    cx.w16(sd + 2, control)?;
    cx.w64(sd + 8 + 8 * slot, at)?;
    ret(0)
}

exports! {
    [0] fn RtlLengthSid(cx, sid: u64) { ret(sid_length(cx, sid)?) }
    [0] fn RtlLengthRequiredSid(_cx, count: u32) { ret(8 + 4 * u64::from(count)) }
    [0] fn RtlValidSid(cx, sid: u64) { ret(u64::from(valid_sid(cx, sid)?)) }
    [0] fn RtlInitializeSid(cx, sid: u64, authority: u64, count: u8) {
        if count > 15 {
            return ret(INVALID_PARAMETER);
        }
        let authority = cx.bytes(authority, 6)?;
        cx.w8(sid, 1)?;
        cx.w8(sid + 1, count)?;
        cx.put(sid + 2, &authority)?;
        ret(0)
    }
    [0] fn RtlSubAuthoritySid(_cx, sid: u64, n: u32) { ret(sid + 8 + 4 * u64::from(n)) }
    [0] fn RtlSubAuthorityCountSid(_cx, sid: u64) { ret(sid + 1) }
    [0] fn RtlEqualSid(cx, a: u64, b: u64) {
        let (n, m) = (sid_length(cx, a)?, sid_length(cx, b)?);
        ret(u64::from(n == m && cx.bytes(a, n as usize)? == cx.bytes(b, m as usize)?))
    }
    [0] fn RtlCopySid(cx, room: u32, to: u64, from: u64) {
        let n = sid_length(cx, from)?;
        if n > u64::from(room) {
            return ret(BUFFER_TOO_SMALL);
        }
        let data = cx.bytes(from, n as usize)?;
        cx.put(to, &data)?;
        ret(0)
    }
    [0] fn RtlConvertSidToUnicodeString(cx, to: u64, sid: u64, alloc: u8) {
        if !valid_sid(cx, sid)? {
            return ret(INVALID_SID);
        }
        let authority = cx.bytes(sid + 2, 6)?.iter().fold(0u64, |n, &b| n << 8 | u64::from(b));
        let mut text = if authority >> 32 == 0 {
            format!("S-1-{authority}")
        } else {
            format!("S-1-0x{authority:012x}")
        };
        for i in 0..u64::from(cx.r8(sid + 1)?) {
            text = format!("{text}-{}", cx.r32(sid + 8 + 4 * i)?);
        }
        if alloc != 0 {
            crate::io::put_unicode(cx, to, &text)?;
            return ret(0);
        }
        let data: Vec<u8> = text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        if data.len() > usize::from(cx.r16(to + 2)?) {
            // STATUS_BUFFER_OVERFLOW.
            return ret(0x8000_0005);
        }
        let buffer = cx.r64(to + 8)?;
        cx.put(buffer, &data)?;
        cx.w16(to, data.len() as u16 - 2)?;
        ret(0)
    }
    [0] fn RtlCreateAcl(cx, acl: u64, size: u32, revision: u32) {
        if size < 8 {
            return ret(BUFFER_TOO_SMALL);
        }
        if !(2..=4).contains(&revision) || size > 0xffff {
            return ret(INVALID_PARAMETER);
        }
        cx.put(acl, &[revision as u8, 0])?;
        cx.w16(acl + 2, size as u16 & !3)?;
        cx.w32(acl + 4, 0)?;
        ret(0)
    }
    [0] fn RtlAddAccessAllowedAce(cx, acl: u64, revision: u32, mask: u32, sid: u64) {
        add_ace(cx, acl, revision, (0, 0), mask, sid)
    }
    [0] fn RtlAddAccessAllowedAceEx(cx, acl: u64, revision: u32, flags: u32, mask: u32, sid: u64) {
        add_ace(cx, acl, revision, (0, flags as u8), mask, sid)
    }
    [0] fn RtlCreateSecurityDescriptor(cx, sd: u64, revision: u32) {
        if revision != 1 {
            return ret(UNKNOWN_REVISION);
        }
        cx.put(sd, &[0; SD_SIZE as usize])?;
        cx.w8(sd, 1)?;
        ret(0)
    }
    [0] fn RtlValidSecurityDescriptor(cx, sd: u64) { ret(u64::from(valid_sd(cx, sd)?)) }
    [0] fn RtlLengthSecurityDescriptor(cx, sd: u64) { ret(length(cx, sd)?) }
    [0] fn RtlSetDaclSecurityDescriptor(cx, sd: u64, present: u8, acl: u64, defaulted: u8) {
        let acl = if present != 0 { acl } else { 0 };
        set(cx, sd, 3, acl, [(DACL_PRESENT, present != 0), (DACL_DEFAULTED, present != 0 && defaulted != 0)])
    }
    [0] fn RtlSetSaclSecurityDescriptor(cx, sd: u64, present: u8, acl: u64, defaulted: u8) {
        let acl = if present != 0 { acl } else { 0 };
        set(cx, sd, 2, acl, [(SACL_PRESENT, present != 0), (SACL_DEFAULTED, present != 0 && defaulted != 0)])
    }
    [0] fn RtlSetOwnerSecurityDescriptor(cx, sd: u64, owner: u64, defaulted: u8) {
        set(cx, sd, 0, owner, [(OWNER_DEFAULTED, defaulted != 0), (0, false)])
    }
    [0] fn RtlSetGroupSecurityDescriptor(cx, sd: u64, group: u64, defaulted: u8) {
        set(cx, sd, 1, group, [(GROUP_DEFAULTED, defaulted != 0), (0, false)])
    }
    [0] fn RtlGetDaclSecurityDescriptor(cx, sd: u64, present: u64, acl: u64, defaulted: u64) {
        get_acl(cx, sd, present, acl, defaulted, Part::Dacl)
    }
    [0] fn RtlGetSaclSecurityDescriptor(cx, sd: u64, present: u64, acl: u64, defaulted: u64) {
        get_acl(cx, sd, present, acl, defaulted, Part::Sacl)
    }
    [0] fn RtlGetOwnerSecurityDescriptor(cx, sd: u64, out: u64, defaulted: u64) {
        get_sid(cx, sd, out, defaulted, Part::Owner)
    }
    [0] fn RtlGetGroupSecurityDescriptor(cx, sd: u64, out: u64, defaulted: u64) {
        get_sid(cx, sd, out, defaulted, Part::Group)
    }
    [0] fn RtlAbsoluteToSelfRelativeSD(cx, from: u64, to: u64, room: u64) {
        let control = cx.r16(from + 2)?;
        if control & SELF_RELATIVE != 0 {
            return ret(BAD_DESCRIPTOR_FORMAT);
        }
        let need = length(cx, from)? - SD_SIZE + RELATIVE_SIZE;
        if u64::from(cx.r32(room)?) < need {
            cx.w32(room, need as u32)?;
            return ret(BUFFER_TOO_SMALL);
        }
        cx.put(to, &[0; RELATIVE_SIZE as usize])?;
        cx.w8(to, 1)?;
        cx.w16(to + 2, control | SELF_RELATIVE)?;
        let mut at = RELATIVE_SIZE;
        for (i, which) in PARTS.into_iter().enumerate() {
            let source = part(cx, from, which)?;
            let n = part_length(cx, source, which)?;
            if n > 0 {
                let data = cx.bytes(source, n as usize)?;
                cx.put(to + at, &data)?;
                cx.w32(to + 4 + 4 * i as u64, at as u32)?;
                at += n.next_multiple_of(4);
            }
        }
        ret(0)
    }
    [0] fn RtlMapGenericMask(cx, mask: u64, mapping: u64) {
        let old = cx.r32(mask)?;
        let mut new = old & 0x0fff_ffff;
        // GENERIC_READ, GENERIC_WRITE, GENERIC_EXECUTE, GENERIC_ALL, in the order of GENERIC_MAPPING.
        for (i, bit) in [31, 30, 29, 28].into_iter().enumerate() {
            if old >> bit & 1 != 0 {
                new |= cx.r32(mapping + 4 * i as u64)?;
            }
        }
        cx.w32(mask, new)?;
        void()
    }
}
