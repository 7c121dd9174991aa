//! The flags: their places in RFLAGS, and the form the engine keeps the arithmetic ones in.

/// Bits of RFLAGS (SDM volume 1, 3.4.3).
pub mod rflags {
    /// Carry.
    pub const CF: u64 = 1;
    /// Always one.
    pub const FIXED: u64 = 2;
    /// Parity of the low byte.
    pub const PF: u64 = 4;
    /// Carry out of bit 3.
    pub const AF: u64 = 0x10;
    /// Zero.
    pub const ZF: u64 = 0x40;
    /// Sign.
    pub const SF: u64 = 0x80;
    /// Trap after each instruction.
    pub const TF: u64 = 0x100;
    /// Interrupts enabled.
    pub const IF: u64 = 0x200;
    /// String operations go down.
    pub const DF: u64 = 0x400;
    /// Signed overflow.
    pub const OF: u64 = 0x800;
    /// The six arithmetic flags.
    pub const ARITH: u64 = CF | PF | AF | ZF | SF | OF;
}

/// The arithmetic flags while running: ZF, SF and PF stay implicit in a result until someone asks.
#[derive(Clone, Copy, Default)]
pub(crate) struct Flags {
    /// ZF is `z == 0`.
    pub(crate) z: u64,
    /// SF is bit 63; PF is the parity of the low byte.
    pub(crate) sp: u64,
    pub(crate) cf: bool,
    pub(crate) of: bool,
    /// AF is bit 4.
    pub(crate) af: u8,
}

impl Flags {
    #[inline]
    pub(crate) fn from_rflags(r: u64) -> Flags {
        Flags {
            z: u64::from(r & rflags::ZF == 0),
            sp: (r & rflags::SF) << 56 | u64::from(r & rflags::PF == 0),
            cf: r & rflags::CF != 0,
            of: r & rflags::OF != 0,
            af: r as u8 & 0x10,
        }
    }

    #[inline]
    pub(crate) fn to_rflags(self) -> u64 {
        u64::from(self.cf)
            | u64::from(self.pf()) << 2
            | u64::from(self.af & 0x10)
            | u64::from(self.zf()) << 6
            | u64::from(self.sf()) << 7
            | u64::from(self.of) << 11
    }

    #[inline(always)]
    pub(crate) fn zf(self) -> bool {
        self.z == 0
    }

    #[inline(always)]
    pub(crate) fn sf(self) -> bool {
        self.sp >> 63 != 0
    }

    #[inline(always)]
    pub(crate) fn pf(self) -> bool {
        (self.sp as u8).count_ones() & 1 == 0
    }

    /// ZF, SF and PF from a result of `bits` bits.
    #[inline(always)]
    pub(crate) fn result(&mut self, res: u64, bits: u32) {
        self.z = res << (64 - bits);
        // The parity byte stays low; the sign goes to bit 63.
        self.sp = ((res << (64 - bits)) as i64 >> (64 - bits)) as u64;
    }

    /// A condition code 0 to 15 as the opcode numbers them (SDM volume 1, appendix B).
    #[inline(always)]
    pub(crate) fn cond(self, cc: u8) -> bool {
        let value = match cc >> 1 {
            0 => self.of,
            1 => self.cf,
            2 => self.zf(),
            3 => self.cf || self.zf(),
            4 => self.sf(),
            5 => self.pf(),
            6 => self.sf() != self.of,
            _ => self.zf() || self.sf() != self.of,
        };
        value != (cc & 1 == 1)
    }
}
