//! Every way a kernel routine goes on after a guest routine it called returned, or a wait it began ended.

use crate::context::{Outcome, Result};
use crate::cx::Cx;

/// A continuation: plain data, so that a machine in the middle of anything can be cloned.
#[derive(Clone, Debug)]
pub enum Then {
    /// Return the value as it is.
    Ret,
    /// Return this value whatever came back.
    RetValue(u64),
    /// Dispatcher objects, threads, DPCs, locks (`exports/ke.rs` and what it uses).
    Ke(crate::exports::ke::KeThen),
    /// The executive: resources, lookaside lists, callbacks (`exports/ex.rs`).
    Ex(crate::exports::ex::ExThen),
    /// Run-time library (`exports/rtl.rs`).
    Rtl(crate::exports::rtl::RtlThen),
    /// Bus-master DMA (`exports/hal_dma.rs`).
    Hal(crate::exports::hal_dma::HalThen),
    /// IRPs and devices.
    Io(crate::io::IoThen),
    /// Interrupt dispatch.
    Isr(crate::interrupt::IsrThen),
    /// Structured exceptions.
    Seh(crate::exception::SehThen),
    /// The driver's life: entry, AddDevice, start, workload, removal.
    Life(crate::life::LifeThen),
}

impl Then {
    /// Goes on, with the guest routine's RAX or the wait's status.
    ///
    /// # Errors
    /// Whatever ends the run.
    pub fn resume(self, cx: &mut Cx<'_>, value: u64) -> Result {
        match self {
            Self::Ret => Ok(Outcome::Ret(value)),
            Self::RetValue(v) => Ok(Outcome::Ret(v)),
            Self::Ke(then) => then.resume(cx, value),
            Self::Ex(then) => then.resume(cx, value),
            Self::Rtl(then) => then.resume(cx, value),
            Self::Hal(then) => then.resume(cx, value),
            Self::Io(then) => then.resume(cx, value),
            Self::Isr(then) => then.resume(cx, value),
            Self::Seh(then) => then.resume(cx, value),
            Self::Life(then) => then.resume(cx, value),
        }
    }
}
