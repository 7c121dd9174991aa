//! AES and carry-less multiplication (SDM volume 2, AESENC and PCLMULQDQ; FIPS 197).

/// Multiplies in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1.
const fn times(mut a: u8, mut b: u8) -> u8 {
    let mut r = 0;
    while b != 0 {
        if b & 1 != 0 {
            r ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        b >>= 1;
    }
    r
}

const fn boxes() -> ([u8; 256], [u8; 256]) {
    let (mut forward, mut inverse) = ([0u8; 256], [0u8; 256]);
    let mut x = 0usize;
    while x < 256 {
        // The inverse is x^254; zero's is zero.
        let (mut r, mut n) = (1u8, 0);
        while n < 254 {
            r = times(r, x as u8);
            n += 1;
        }
        let s = r ^ r.rotate_left(1) ^ r.rotate_left(2) ^ r.rotate_left(3) ^ r.rotate_left(4) ^ 0x63;
        forward[x] = s;
        inverse[s as usize] = x as u8;
        x += 1;
    }
    (forward, inverse)
}

static BOXES: ([u8; 256], [u8; 256]) = boxes();

fn substitute(v: u128, inverse: bool) -> u128 {
    let table = if inverse { &BOXES.1 } else { &BOXES.0 };
    u128::from_le_bytes(v.to_le_bytes().map(|b| table[usize::from(b)]))
}

fn shift_rows(v: u128, inverse: bool) -> u128 {
    let b = v.to_le_bytes();
    u128::from_le_bytes(std::array::from_fn(|i| {
        let (row, column) = (i % 4, i / 4);
        b[row + 4 * ((column + if inverse { 4 - row } else { row }) % 4)]
    }))
}

fn mix(v: u128, factors: [u8; 4]) -> u128 {
    let b = v.to_le_bytes();
    u128::from_le_bytes(std::array::from_fn(|i| {
        let column = i / 4 * 4;
        (0..4).fold(0, |r, k| r ^ times(b[column + k], factors[(k + 4 - i % 4) % 4]))
    }))
}

const FORWARD: [u8; 4] = [2, 3, 1, 1];
const INVERSE: [u8; 4] = [14, 11, 13, 9];

/// One round with `key`.
pub(crate) fn aes(state: u128, key: u128, decrypt: bool, last: bool) -> u128 {
    let v = substitute(shift_rows(state, decrypt), decrypt);
    let v = if last { v } else { mix(v, if decrypt { INVERSE } else { FORWARD }) };
    v ^ key
}

pub(crate) fn aes_inverse_mix(v: u128) -> u128 {
    mix(v, INVERSE)
}

pub(crate) fn aes_key_assist(v: u128, round: u64) -> u128 {
    let word = |n: u32| (substitute(v, false) >> (32 * n)) as u32;
    let (x1, x3) = (word(1), word(3));
    let turned = |x: u32| x.rotate_right(8) ^ (round as u32 & 0xff);
    u128::from(x1) | u128::from(turned(x1)) << 32 | u128::from(x3) << 64 | u128::from(turned(x3)) << 96
}

pub(crate) fn carryless(a: u128, b: u128, imm: u64) -> u128 {
    let a = (a >> (64 * (imm & 1))) as u64;
    let b = (b >> (64 * (imm >> 4 & 1))) as u64;
    (0..64).filter(|n| b >> n & 1 != 0).fold(0, |r, n| r ^ u128::from(a) << n)
}
