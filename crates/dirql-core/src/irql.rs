//! Interrupt request levels on x64 (spec 1.5) and what they mean for a vector.

use core::fmt;

/// An interrupt request level. The inner value is raw: a driver may pass any byte, and checks compare with
/// [`Irql::HIGH`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Irql(pub u8);

impl Irql {
    /// Threads.
    pub const PASSIVE: Irql = Irql(0);
    /// Asynchronous procedure calls.
    pub const APC: Irql = Irql(1);
    /// DPCs, the scheduler, executive spin locks.
    pub const DISPATCH: Irql = Irql(2);
    /// The lowest level a device interrupt may have.
    pub const DEVICE_LOW: Irql = Irql(3);
    /// The highest level a device interrupt may have.
    pub const DEVICE_HIGH: Irql = Irql(12);
    /// The clock.
    pub const CLOCK: Irql = Irql(13);
    /// Interprocessor interrupts, and power failure.
    pub const IPI: Irql = Irql(14);
    /// Everything maskable is masked; also the profiling level.
    pub const HIGH: Irql = Irql(15);

    /// The level of a vector: its upper four bits, which are what the local APIC compares with CR8.
    pub const fn of_vector(vector: u8) -> Irql {
        Irql(vector >> 4)
    }

    /// Whether devices can interrupt at this level.
    pub const fn is_device(self) -> bool {
        self.0 >= Self::DEVICE_LOW.0 && self.0 <= Self::DEVICE_HIGH.0
    }
}

impl fmt::Display for Irql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("PASSIVE_LEVEL"),
            1 => f.write_str("APC_LEVEL"),
            2 => f.write_str("DISPATCH_LEVEL"),
            3..=12 => write!(f, "DIRQL {}", self.0),
            13 => f.write_str("CLOCK_LEVEL"),
            14 => f.write_str("IPI_LEVEL"),
            15 => f.write_str("HIGH_LEVEL"),
            other => write!(f, "IRQL {other} (no such level)"),
        }
    }
}
