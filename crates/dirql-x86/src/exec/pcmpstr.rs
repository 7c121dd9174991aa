//! PCMPESTRI and its like (SDM volume 2, 4.1).

/// What the comparison found: the mask of IntRes2, and the flags that tell.
pub(crate) struct Found {
    pub(crate) mask: u16,
    pub(crate) lanes: u32,
    pub(crate) bits: u32,
    /// CF, ZF, SF, OF.
    pub(crate) flags: [bool; 4],
}

/// The first operand with its length, the second with its; explicit lengths are counted in elements, an implicit
/// one (`None`) ends at a zero.
pub(crate) fn compare(a: u128, la: Option<i64>, b: u128, lb: Option<i64>, imm: u64) -> Found {
    let bits = if imm & 1 != 0 { 16 } else { 8 };
    let n = 128 / bits;
    let raw = |v: u128, i: u32| (v >> (i * bits)) as u64 & (u64::MAX >> (64 - bits));
    let value = |v: u128, i: u32| {
        let x = raw(v, i);
        if imm & 2 != 0 { super::packed::sx(x, bits) } else { x as i64 }
    };
    let length = |v: u128, len: Option<i64>| match len {
        Some(len) => u32::try_from(len.unsigned_abs().min(u64::from(n))).unwrap_or(n),
        None => (0..n).find(|&i| raw(v, i) == 0).unwrap_or(n),
    };
    let (la, lb) = (length(a, la), length(b, lb));
    let mut r = 0u16;
    for j in 0..n {
        let hit = match imm >> 2 & 3 {
            // Any of `a` equals it.
            0 => j < lb && (0..la).any(|i| value(a, i) == value(b, j)),
            // It lies in one of the ranges.
            1 => {
                j < lb
                    && (0..la / 2 * 2)
                        .step_by(2)
                        .any(|i| (value(a, i)..=value(a, i + 1)).contains(&value(b, j)))
            }
            // Each equals each; both past their ends counts as equal.
            2 => match (j < la, j < lb) {
                (true, true) => value(a, j) == value(b, j),
                (false, false) => true,
                _ => false,
            },
            // `a` begins here; what lies past the register isn't looked at.
            _ => (0..la).all(|i| j + i >= n || j + i < lb && value(a, i) == value(b, j + i)),
        };
        if hit {
            r |= 1 << j;
        }
    }
    let all = if n == 16 { 0xffff } else { 0xff };
    let mask = match imm >> 4 & 3 {
        1 => !r & all,
        3 => r ^ if lb >= 16 { all } else { ((1u16 << lb) - 1) & all },
        _ => r,
    };
    Found { mask, lanes: n, bits, flags: [mask != 0, lb < n, la < n, mask & 1 != 0] }
}
