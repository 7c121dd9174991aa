//! A schedule: where a run departs from the default policy, and how. It is all that is needed to have the run again.

use std::fmt;

/// A departure from the default policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Act {
    /// Another processor goes on.
    Switch(u8),
    /// The instruction has read memory, another processor goes on, and only then does the instruction write: what an
    /// unlocked read-modify-write may do.
    Split(u8),
    /// A device raises an interrupt of itself; this processor accepts it and goes on.
    Arrive {
        /// The device's number.
        device: u8,
        /// Its source.
        source: u8,
        /// The processor.
        cpu: u8,
    },
    /// Time passes until the next event of a device, timer or timeout; this processor sees to it and goes on.
    Time {
        /// The processor.
        cpu: u8,
    },
    /// The quantum of the running thread is over: another thread of its priority goes on here.
    Quantum,
    /// A choice of the hardware, by its number in the run, is answered with this option.
    Choose {
        /// Which choice.
        number: u32,
        /// The option.
        pick: u32,
    },
}

impl Act {
    /// Whether it is the hardware's doing: a device's own interrupt, time, a choice. Else it is who goes on.
    #[must_use]
    pub fn is_arrival(self) -> bool {
        matches!(self, Self::Arrive { .. } | Self::Time { .. } | Self::Choose { .. })
    }
}

/// A departure and where it is made: at the boundary before this step of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deviation {
    /// The step.
    pub at: u64,
    /// What is done.
    pub act: Act,
}

/// The deviations of a run, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Schedule(pub Vec<Deviation>);

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadToken {
    /// A character that no token has, or too few.
    Form,
    /// The check digits are wrong: it was cut or mistyped.
    Check,
    /// Made by a version of dirql that writes tokens otherwise.
    Version,
}

impl fmt::Display for BadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "this is no token: a token is letters and digits, as `dirql explore` printed it",
            Self::Check => "the token is damaged: its check digits do not fit; copy it whole",
            Self::Version => "the token was made by another version of dirql",
        })
    }
}

impl std::error::Error for BadToken {}

/// Form of the tokens written here.
const VERSION: u8 = 2;
/// Most deviations a token may hold.
const MAX_DEVIATIONS: u64 = 1 << 20;
/// Crockford's base 32: no I, L, O, U.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl Schedule {
    /// How many deviations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is the default policy's own run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are the hardware's doing.
    #[must_use]
    pub fn arrivals(&self) -> usize {
        self.0.iter().filter(|d| d.act.is_arrival()).count()
    }

    /// This one with a deviation more.
    #[must_use]
    pub fn with(&self, deviation: Deviation) -> Self {
        let mut out = self.0.clone();
        out.push(deviation);
        Self(out)
    }

    /// As text to be pasted: base 32, with the subject (a digest of image and lab) and check digits.
    #[must_use]
    pub fn token(&self, subject: u32) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&subject.to_le_bytes()[..3]);
        put(&mut bytes, self.0.len() as u64);
        let mut last = 0;
        for d in &self.0 {
            // Choices may lie before the deviation they follow in the list.
            put(&mut bytes, zigzag(d.at.wrapping_sub(last) as i64));
            last = d.at;
            match d.act {
                Act::Switch(cpu) => bytes.extend([0, cpu]),
                Act::Split(cpu) => bytes.extend([1, cpu]),
                Act::Arrive { device, source, cpu } => bytes.extend([2, device, source, cpu]),
                Act::Time { cpu } => bytes.extend([3, cpu]),
                Act::Quantum => bytes.push(4),
                Act::Choose { number, pick } => {
                    bytes.push(5);
                    put(&mut bytes, u64::from(number));
                    put(&mut bytes, u64::from(pick));
                }
            }
        }
        let check = check(&bytes);
        bytes.extend(check.to_le_bytes());
        let mut out = String::new();
        let (mut acc, mut bits) = (0u32, 0);
        for b in bytes {
            acc = acc << 8 | u32::from(b);
            bits += 8;
            while bits >= 5 {
                bits -= 5;
                out.push(char::from(DIGITS[(acc >> bits & 31) as usize]));
            }
        }
        if bits > 0 {
            out.push(char::from(DIGITS[(acc << (5 - bits) & 31) as usize]));
        }
        out
    }

    /// Reads a token: its subject and the schedule.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_token(text: &str) -> Result<(u32, Self), BadToken> {
        let mut bytes = vec![];
        let (mut acc, mut bits) = (0u32, 0);
        for c in text.trim().chars() {
            let c = match c.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                c => c,
            };
            let v = DIGITS.iter().position(|d| char::from(*d) == c).ok_or(BadToken::Form)? as u32;
            acc = acc << 5 | v;
            bits += 5;
            if bits >= 8 {
                bits -= 8;
                bytes.push((acc >> bits) as u8);
                acc &= (1 << bits) - 1;
            }
        }
        let end = bytes.len().checked_sub(2).filter(|n| *n >= 5).ok_or(BadToken::Form)?;
        let (body, sum) = bytes.split_at(end);
        if check(body).to_le_bytes() != sum {
            return Err(BadToken::Check);
        }
        if body[0] != VERSION {
            return Err(BadToken::Version);
        }
        let subject = u32::from_le_bytes([body[1], body[2], body[3], 0]);
        let mut rest = &body[4..];
        let count = get(&mut rest).filter(|n| *n <= MAX_DEVIATIONS).ok_or(BadToken::Form)?;
        let mut list = vec![];
        let mut last = 0u64;
        for _ in 0..count {
            let delta = get(&mut rest).ok_or(BadToken::Form)?;
            last = last.wrapping_add(unzigzag(delta) as u64);
            let mut byte = || {
                let (first, tail) = rest.split_first()?;
                rest = tail;
                Some(*first)
            };
            let act = match byte().ok_or(BadToken::Form)? {
                0 => Act::Switch(byte().ok_or(BadToken::Form)?),
                1 => Act::Split(byte().ok_or(BadToken::Form)?),
                2 => Act::Arrive {
                    device: byte().ok_or(BadToken::Form)?,
                    source: byte().ok_or(BadToken::Form)?,
                    cpu: byte().ok_or(BadToken::Form)?,
                },
                3 => Act::Time { cpu: byte().ok_or(BadToken::Form)? },
                4 => Act::Quantum,
                5 => {
                    let mut number =
                        || get(&mut rest).and_then(|n| u32::try_from(n).ok()).ok_or(BadToken::Form);
                    Act::Choose { number: number()?, pick: number()? }
                }
                _ => return Err(BadToken::Form),
            };
            list.push(Deviation { at: last, act });
        }
        Ok((subject, Self(list)))
    }
}

fn zigzag(v: i64) -> u64 {
    (v << 1 ^ v >> 63) as u64
}

fn unzigzag(v: u64) -> i64 {
    (v >> 1) as i64 ^ -((v & 1) as i64)
}

fn put(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn get(from: &mut &[u8]) -> Option<u64> {
    let mut v = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, tail) = from.split_first()?;
        *from = tail;
        v |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(v);
        }
    }
    None
}

/// Fletcher's sum: finds a changed or swapped digit.
fn check(bytes: &[u8]) -> u16 {
    let (mut a, mut b) = (1u32, 0u32);
    for &x in bytes {
        a = (a + u32::from(x)) % 251;
        b = (b + a) % 251;
    }
    (b << 8 | a) as u16
}

/// A digest of what a token is about: the image's bytes and the lab's text (FNV-1a, cut to 24 bits).
#[must_use]
pub fn subject(parts: &[&[u8]]) -> u32 {
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for &b in part.iter().chain(&(part.len() as u64).to_le_bytes()) {
            h = (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3);
        }
    }
    (h ^ h >> 24 ^ h >> 48) as u32 & 0x00ff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Schedule {
        Schedule(vec![
            Deviation { at: 3021, act: Act::Arrive { device: 0, source: 2, cpu: 1 } },
            Deviation { at: 3020, act: Act::Choose { number: 7, pick: 300 } },
            Deviation { at: 3055, act: Act::Split(1) },
            Deviation { at: 1 << 40, act: Act::Time { cpu: 1 } },
            Deviation { at: (1 << 40) + 1, act: Act::Quantum },
            Deviation { at: (1 << 40) + 1, act: Act::Switch(63) },
        ])
    }

    #[test]
    fn tokens_come_back() {
        for schedule in [Schedule::default(), sample()] {
            let token = schedule.token(0x00ab_cdef);
            assert_eq!(Schedule::from_token(&token), Ok((0x00ab_cdef, schedule.clone())));
            assert_eq!(Schedule::from_token(&token.to_lowercase()), Ok((0x00ab_cdef, schedule)));
        }
        let one = Schedule(vec![Deviation { at: 3000, act: Act::Switch(1) }]);
        assert!(one.token(1).len() <= 20, "{}", one.token(1));
    }

    #[test]
    fn damaged_tokens_are_refused() {
        let token = sample().token(5);
        for i in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[i] = if bytes[i] == b'7' { b'8' } else { b'7' };
            let text = String::from_utf8(bytes).unwrap();
            // The last digit's padding bits mean nothing.
            assert!(Schedule::from_token(&text).is_err() || i + 1 == token.len(), "digit {i}");
            assert!(Schedule::from_token(&token[..i]).is_err());
        }
        assert_eq!(Schedule::from_token("über"), Err(BadToken::Form));
    }
}
