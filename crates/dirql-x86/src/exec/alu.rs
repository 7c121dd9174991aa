//! Addition, subtraction and logic with their flags.

use crate::flags::Flags;

#[inline(always)]
fn cut(v: u64, bits: u32) -> u64 {
    v & (u64::MAX >> (64 - bits))
}

/// `a + b + carry`; operands may have rubbish above their width.
#[inline(always)]
pub(crate) fn adc(f: &mut Flags, a: u64, b: u64, carry: bool, bits: u32) -> u64 {
    let (a, b) = (cut(a, bits), cut(b, bits));
    let r = cut(a.wrapping_add(b).wrapping_add(u64::from(carry)), bits);
    f.cf = r < a || carry && r == a;
    f.of = ((a ^ r) & (b ^ r)) >> (bits - 1) & 1 != 0;
    f.af = (a ^ b ^ r) as u8;
    f.result(r, bits);
    r
}

/// `a - b - borrow`.
#[inline(always)]
pub(crate) fn sbb(f: &mut Flags, a: u64, b: u64, borrow: bool, bits: u32) -> u64 {
    let (a, b) = (cut(a, bits), cut(b, bits));
    let r = cut(a.wrapping_sub(b).wrapping_sub(u64::from(borrow)), bits);
    f.cf = a < b || borrow && a == b;
    f.of = ((a ^ b) & (a ^ r)) >> (bits - 1) & 1 != 0;
    f.af = (a ^ b ^ r) as u8;
    f.result(r, bits);
    r
}

#[inline(always)]
pub(crate) fn add(f: &mut Flags, a: u64, b: u64, bits: u32) -> u64 {
    adc(f, a, b, false, bits)
}

#[inline(always)]
pub(crate) fn sub(f: &mut Flags, a: u64, b: u64, bits: u32) -> u64 {
    sbb(f, a, b, false, bits)
}

/// Flags of and, or, xor and test. AF, undefined in the SDM, is cleared.
#[inline(always)]
pub(crate) fn logic(f: &mut Flags, r: u64, bits: u32) -> u64 {
    let r = cut(r, bits);
    f.cf = false;
    f.of = false;
    f.af = 0;
    f.result(r, bits);
    r
}
