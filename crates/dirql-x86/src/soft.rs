//! IEEE 754 arithmetic on bit patterns, as SSE does it (SDM volume 1, 4.8 and 11.5): every rounding mode, status
//! flags, denormals-are-zeros and flush-to-zero, in integers only, so that every host gives the same result.

/// Invalid operation, denormal operand, division by zero, overflow, underflow, inexact: as in MXCSR.
pub(crate) const IE: u32 = 1;
const DE: u32 = 2;
const ZE: u32 = 4;
const OE: u32 = 8;
const UE: u32 = 16;
const PE: u32 = 32;

/// A format: bits of the significand with its leading one, and bits of the exponent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    p: u32,
    w: u32,
}

pub(crate) const SINGLE: Format = Format { p: 24, w: 8 };
pub(crate) const DOUBLE: Format = Format { p: 53, w: 11 };

/// The control bits of MXCSR, and the flags raised.
#[derive(Clone, Copy)]
pub(crate) struct Env {
    /// 0 to nearest even, 1 down, 2 up, 3 toward zero.
    pub(crate) rounding: u32,
    daz: bool,
    ftz: bool,
    /// Underflow is masked.
    quiet_tiny: bool,
    /// Overflow is masked.
    quiet_huge: bool,
    pub(crate) flags: u32,
}

impl Env {
    pub(crate) fn new(mxcsr: u32) -> Env {
        Env {
            rounding: mxcsr >> 13 & 3,
            daz: mxcsr & 0x40 != 0,
            ftz: mxcsr & 0x8000 != 0,
            quiet_tiny: mxcsr & 0x800 != 0,
            quiet_huge: mxcsr & 0x400 != 0,
            flags: 0,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Zero,
    /// `sig * 2^exp`
    Finite,
    Infinite,
    Nan,
}

#[derive(Clone, Copy)]
struct Float {
    class: Class,
    negative: bool,
    denormal: bool,
    exp: i32,
    sig: u64,
    bits: u64,
    /// The format's sign bit.
    sign: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    Sqrt,
}

/// How two values compare: bits of a truth table.
pub(crate) const LESS: u8 = 1;
pub(crate) const EQUAL: u8 = 2;
pub(crate) const GREATER: u8 = 4;
pub(crate) const UNORDERED: u8 = 8;

impl Format {
    fn bias(self) -> i32 {
        (1 << (self.w - 1)) - 1
    }

    fn sign(self) -> u64 {
        1 << (self.p + self.w - 1)
    }

    fn infinity(self) -> u64 {
        ((1 << self.w) - 1) << (self.p - 1)
    }

    fn quiet(self) -> u64 {
        1 << (self.p - 2)
    }

    fn default_nan(self) -> u64 {
        self.sign() | self.infinity() | self.quiet()
    }

    fn unpack(self, bits: u64, daz: bool) -> Float {
        let all = (self.sign() << 1).wrapping_sub(1);
        let bits = bits & all;
        let negative = bits & self.sign() != 0;
        let fraction = bits & ((1 << (self.p - 1)) - 1);
        let biased = (bits >> (self.p - 1)) & ((1 << self.w) - 1);
        let mut f = Float {
            class: Class::Finite,
            negative,
            denormal: false,
            exp: 0,
            sig: fraction,
            bits,
            sign: self.sign(),
        };
        if biased == (1 << self.w) - 1 {
            f.class = if fraction == 0 { Class::Infinite } else { Class::Nan };
        } else if biased == 0 {
            if fraction == 0 || daz {
                f.class = Class::Zero;
                f.bits = bits & self.sign();
            } else {
                f.denormal = true;
                // Normalised, so that divisions give enough bits.
                let by = self.p - (64 - fraction.leading_zeros());
                f.sig = fraction << by;
                f.exp = 1 - self.bias() - (self.p as i32 - 1) - by as i32;
            }
        } else {
            f.sig = fraction | 1 << (self.p - 1);
            f.exp = biased as i32 - self.bias() - (self.p as i32 - 1);
        }
        f
    }

    fn is_signaling(self, f: &Float) -> bool {
        f.class == Class::Nan && f.bits & self.quiet() == 0
    }

    fn zero(self, negative: bool) -> u64 {
        if negative { self.sign() } else { 0 }
    }

    /// Rounds `sig * 2^exp`, where `sig` isn't zero and its lowest bit may stand for lost ones.
    fn round(self, env: &mut Env, negative: bool, exp: i32, sig: u128) -> u64 {
        let n = 128 - sig.leading_zeros() as i32;
        let p = self.p as i32;
        let (emin, emax) = (1 - self.bias(), self.bias());
        let mut e = exp + n - 1;
        let (mut q, inexact) = shift_round(sig, n - p, env.rounding, negative);
        if q >> p != 0 {
            q >>= 1;
            e += 1;
        }
        let sign = self.zero(negative);
        if e < emin {
            // Tiny, looked at after rounding as with an unbounded exponent.
            if env.ftz && env.quiet_tiny {
                env.flags |= UE | PE;
                return sign;
            }
            let (q, lost) = shift_round(sig, n - p + (emin - (exp + n - 1)), env.rounding, negative);
            if !env.quiet_tiny {
                // The handler gets the result with an unbounded exponent: inexact only if that is.
                env.flags |= UE | if inexact { PE } else { 0 };
            } else if lost {
                env.flags |= UE | PE;
            }
            return sign | q as u64;
        }
        if inexact {
            env.flags |= PE;
        }
        if e > emax {
            env.flags |= OE | if env.quiet_huge { PE } else { 0 };
            let away = match env.rounding {
                0 => true,
                1 => negative,
                2 => !negative,
                _ => false,
            };
            return sign | if away { self.infinity() } else { self.infinity() - 1 };
        }
        sign | ((e + self.bias()) as u64) << (p - 1) | (q as u64 & ((1 << (p - 1)) - 1))
    }

    /// One of the operations; SQRT takes `b`.
    pub(crate) fn arithmetic(self, env: &mut Env, kind: Kind, a: u64, b: u64) -> u64 {
        let (x, y) = (self.unpack(a, env.daz), self.unpack(b, env.daz));
        let x = if kind == Kind::Sqrt { y } else { x };
        if x.class == Class::Nan || y.class == Class::Nan {
            if matches!(kind, Kind::Min | Kind::Max) {
                env.flags |= IE;
                return y.bits;
            }
            if self.is_signaling(&x) || self.is_signaling(&y) {
                env.flags |= IE;
            }
            return if x.class == Class::Nan { x.bits | self.quiet() } else { y.bits | self.quiet() };
        }
        let denormal = if x.denormal || y.denormal { DE } else { 0 };
        let negative = x.negative != y.negative;
        let invalid = |env: &mut Env| {
            env.flags |= IE;
            self.default_nan()
        };
        use Class::{Infinite, Zero};
        match kind {
            Kind::Min | Kind::Max => {
                env.flags |= denormal;
                let want = if kind == Kind::Min { LESS } else { GREATER };
                if order(&x, &y) == want { x.bits } else { y.bits }
            }
            Kind::Add | Kind::Sub => {
                let minus = y.negative != (kind == Kind::Sub);
                match (x.class, y.class) {
                    (Infinite, Infinite) if x.negative != minus => invalid(env),
                    (Infinite, _) => {
                        env.flags |= denormal;
                        x.bits
                    }
                    (_, Infinite) => {
                        env.flags |= denormal;
                        self.zero(minus) | self.infinity()
                    }
                    _ => {
                        env.flags |= denormal;
                        self.sum(env, &x, &y, minus)
                    }
                }
            }
            Kind::Mul => match (x.class, y.class) {
                (Infinite, Zero) | (Zero, Infinite) => invalid(env),
                (Infinite, _) | (_, Infinite) => {
                    env.flags |= denormal;
                    self.zero(negative) | self.infinity()
                }
                (Zero, _) | (_, Zero) => {
                    env.flags |= denormal;
                    self.zero(negative)
                }
                _ => {
                    env.flags |= denormal;
                    self.round(env, negative, x.exp + y.exp, u128::from(x.sig) * u128::from(y.sig))
                }
            },
            Kind::Div => match (x.class, y.class) {
                (Infinite, Infinite) | (Zero, Zero) => invalid(env),
                (Infinite, _) => {
                    env.flags |= denormal;
                    self.zero(negative) | self.infinity()
                }
                (_, Zero) => {
                    env.flags |= ZE;
                    self.zero(negative) | self.infinity()
                }
                (Zero, _) | (_, Infinite) => {
                    env.flags |= denormal;
                    self.zero(negative)
                }
                _ => {
                    env.flags |= denormal;
                    let n = u128::from(x.sig) << 64;
                    let d = u128::from(y.sig);
                    let q = (n / d) << 1 | u128::from(n % d != 0);
                    self.round(env, negative, x.exp - y.exp - 65, q)
                }
            },
            Kind::Sqrt => match (y.class, y.negative) {
                (Zero, _) => y.bits,
                (_, true) => invalid(env),
                (Infinite, _) => y.bits,
                _ => {
                    env.flags |= denormal;
                    let mut by = y.sig.leading_zeros() as i32 + 62;
                    if (y.exp - by) & 1 != 0 {
                        by -= 1;
                    }
                    let n = u128::from(y.sig) << by;
                    let r = n.isqrt();
                    let s = r << 1 | u128::from(r * r != n);
                    self.round(env, false, (y.exp - by) / 2 - 1, s)
                }
            },
        }
    }

    fn sum(self, env: &mut Env, x: &Float, y: &Float, minus: bool) -> u64 {
        let wide = |f: &Float| if f.class == Class::Zero { 0 } else { u128::from(f.sig) << 66 };
        let (mut a, mut b) = (wide(x), wide(y));
        if a == 0 && b == 0 {
            let negative = if x.negative == minus { x.negative } else { env.rounding == 1 };
            return self.zero(negative);
        }
        let exp = match (a, b) {
            (_, 0) => x.exp,
            (0, _) => y.exp,
            _ if x.exp >= y.exp => {
                b = sticky(b, (x.exp - y.exp) as u32);
                x.exp
            }
            _ => {
                a = sticky(a, (y.exp - x.exp) as u32);
                y.exp
            }
        };
        let (negative, sig) = if x.negative == minus {
            (minus, a + b)
        } else if a >= b {
            (x.negative, a - b)
        } else {
            (minus, b - a)
        };
        if sig == 0 {
            return self.zero(env.rounding == 1);
        }
        self.round(env, negative, exp - 66, sig)
    }

    /// How they compare; raises invalid for a signaling NaN, or for any when `signals`.
    pub(crate) fn compare(self, env: &mut Env, a: u64, b: u64, signals: bool) -> u8 {
        let (x, y) = (self.unpack(a, env.daz), self.unpack(b, env.daz));
        if x.class == Class::Nan || y.class == Class::Nan {
            if signals || self.is_signaling(&x) || self.is_signaling(&y) {
                env.flags |= IE;
            }
            return UNORDERED;
        }
        if x.denormal || y.denormal {
            env.flags |= DE;
        }
        order(&x, &y)
    }

    /// To another format.
    pub(crate) fn convert(self, env: &mut Env, to: Format, a: u64) -> u64 {
        let x = self.unpack(a, env.daz);
        let sign = to.zero(x.negative);
        match x.class {
            Class::Zero => sign,
            Class::Infinite => sign | to.infinity(),
            Class::Nan => {
                if self.is_signaling(&x) {
                    env.flags |= IE;
                }
                let f = x.sig;
                let f = if to.p > self.p { f << (to.p - self.p) } else { f >> (self.p - to.p) };
                sign | to.infinity() | to.quiet() | f
            }
            Class::Finite => {
                if x.denormal {
                    env.flags |= DE;
                }
                to.round(env, x.negative, x.exp, u128::from(x.sig))
            }
        }
    }

    /// To a signed integer of `bits` bits; what doesn't fit gives the integer indefinite value.
    pub(crate) fn to_int(self, env: &mut Env, a: u64, bits: u32, truncate: bool) -> u64 {
        let x = self.unpack(a, env.daz);
        let indefinite = 1u64 << (bits - 1);
        let rounding = if truncate { 3 } else { env.rounding };
        match x.class {
            Class::Zero => 0,
            Class::Finite if x.exp <= 11 => {
                let (q, inexact) = shift_round(u128::from(x.sig), -x.exp, rounding, x.negative);
                let limit = u128::from(indefinite) - u128::from(!x.negative);
                if q > limit {
                    env.flags |= IE;
                    return indefinite;
                }
                if inexact {
                    env.flags |= PE;
                }
                let v = q as u64;
                (if x.negative { v.wrapping_neg() } else { v }) & (u64::MAX >> (64 - bits))
            }
            // A single of 24 bits may be shifted further and still fit.
            Class::Finite if x.exp <= 40 && u128::from(x.sig) << x.exp <= u128::from(indefinite) => {
                let q = (x.sig as u128) << x.exp;
                if q == u128::from(indefinite) && !x.negative {
                    env.flags |= IE;
                    return indefinite;
                }
                let v = q as u64;
                (if x.negative { v.wrapping_neg() } else { v }) & (u64::MAX >> (64 - bits))
            }
            _ => {
                env.flags |= IE;
                indefinite
            }
        }
    }

    pub(crate) fn of_int(self, env: &mut Env, v: i64) -> u64 {
        if v == 0 { 0 } else { self.round(env, v < 0, 0, u128::from(v.unsigned_abs())) }
    }

    /// ROUNDPS and its like; `imm` as the instruction has it.
    pub(crate) fn round_to_int(self, env: &mut Env, a: u64, imm: u64) -> u64 {
        let x = self.unpack(a, env.daz);
        if self.is_signaling(&x) {
            env.flags |= IE;
            return x.bits | self.quiet();
        }
        if x.class != Class::Finite || x.exp >= 0 {
            return x.bits;
        }
        let rounding = if imm & 4 != 0 { env.rounding } else { imm as u32 & 3 };
        let (q, inexact) = shift_round(u128::from(x.sig), -x.exp, rounding, x.negative);
        if inexact && imm & 8 == 0 {
            env.flags |= PE;
        }
        if q == 0 {
            return self.zero(x.negative);
        }
        let mut exact = *env;
        self.round(&mut exact, x.negative, 0, q)
    }

    /// An approximation with 12 good bits, as RCPPS and RSQRTPS promise: the exact value, cut.
    pub(crate) fn approximate(self, a: u64, root: bool) -> u64 {
        let mut env = Env { rounding: 3, daz: true, ftz: true, quiet_tiny: true, quiet_huge: true, flags: 0 };
        let one = (self.bias() as u64) << (self.p - 1);
        let v = if root { self.arithmetic(&mut env, Kind::Sqrt, 0, a) } else { a };
        let r = self.arithmetic(&mut env, Kind::Div, one, v);
        if self.unpack(r, false).class == Class::Nan { r } else { r & !((1 << (self.p - 13)) - 1) }
    }
}

fn order(x: &Float, y: &Float) -> u8 {
    let key = |f: &Float| {
        let size = (f.bits & !f.sign) as i64;
        let size = match f.class {
            Class::Zero => 0,
            _ => size,
        };
        if f.negative { -size } else { size }
    };
    match key(x).cmp(&key(y)) {
        std::cmp::Ordering::Less => LESS,
        std::cmp::Ordering::Equal => EQUAL,
        std::cmp::Ordering::Greater => GREATER,
    }
}

/// Shifted right, with the lost bits in the lowest.
fn sticky(v: u128, by: u32) -> u128 {
    if by >= 128 { u128::from(v != 0) } else { v >> by | u128::from(v & ((1 << by) - 1) != 0) }
}

/// `sig >> by`, rounded; and whether that lost anything.
fn shift_round(sig: u128, by: i32, rounding: u32, negative: bool) -> (u128, bool) {
    if by <= 0 {
        return (sig << by.unsigned_abs().min(127), false);
    }
    let by = by as u32;
    let (q, rest, half) =
        if by > 127 { (0, 1, 2) } else { (sig >> by, sig & ((1 << by) - 1), 1u128 << (by - 1)) };
    if rest == 0 {
        return (q, false);
    }
    let up = match rounding {
        0 => rest > half || rest == half && q & 1 != 0,
        1 => negative,
        2 => !negative,
        _ => false,
    };
    (q + u128::from(up), true)
}
