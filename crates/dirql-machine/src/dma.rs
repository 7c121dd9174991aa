//! Memory accesses by devices: only RAM, only while bus mastering is on and the function is in D0.
//!
//! Whether the driver mapped the buffer for DMA is a question for the kernel, which sees every access in the log.

use dirql_mem::{Memory, Pa};

use crate::pci::Function;

/// Most bytes of one DMA access; longer transfers are several.
pub const MAX_DMA: usize = 1 << 20;

/// Why a device's access to memory did not happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DmaError {
    /// Bus mastering is disabled in the command register.
    BusMasterDisabled,
    /// The function is not in D0.
    Power,
    /// Part of the range is not RAM.
    NotRam,
    /// Longer than [`MAX_DMA`].
    TooLong,
    /// In the middle of a processor's access to a register: schedule an event with no delay and do it there.
    DuringAccess,
}

impl std::fmt::Display for DmaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DmaError::BusMasterDisabled => "bus mastering is disabled in the command register",
            DmaError::Power => "the device is not in D0",
            DmaError::NotRam => "part of the range is not RAM",
            DmaError::TooLong => "the transfer is longer than one DMA access may be",
            DmaError::DuringAccess => "DMA in the middle of a register access",
        })
    }
}

impl std::error::Error for DmaError {}

fn check(function: &Function, len: usize) -> Result<(), DmaError> {
    if function.d_state() != 0 {
        Err(DmaError::Power)
    } else if !function.may_master() {
        Err(DmaError::BusMasterDisabled)
    } else if len > MAX_DMA {
        Err(DmaError::TooLong)
    } else {
        Ok(())
    }
}

pub(crate) fn read(
    mem: Option<&Memory>,
    function: &Function,
    pa: Pa,
    buf: &mut [u8],
) -> Result<(), DmaError> {
    check(function, buf.len())?;
    mem.ok_or(DmaError::DuringAccess)?.read_phys(pa, buf).map_err(|_| DmaError::NotRam)
}

pub(crate) fn write(
    mem: Option<&mut Memory>,
    function: &Function,
    pa: Pa,
    data: &[u8],
) -> Result<(), DmaError> {
    check(function, data.len())?;
    mem.ok_or(DmaError::DuringAccess)?.write_phys(pa, data).map_err(|_| DmaError::NotRam)
}
