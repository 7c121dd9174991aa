//! What a kernel routine sees: the machine, the kernel's state and the processor it runs on.
//!
//! An export is declared once, with [`exports!`]: its name, the highest IRQL it may be called at, its typed arguments
//! and its body. From the declaration come the import table, the IRQL rule and the list of what is implemented.

use dirql_event::EventKind;
use dirql_machine::Machine;
use dirql_mem::{Memory, Va};

use crate::context::Result;
use crate::kernel::Kernel;
use crate::stop::Stop;

/// The surroundings of a kernel routine.
pub struct Cx<'a> {
    /// The machine: guest memory, processors, devices.
    pub m: &'a mut Machine,
    /// The kernel's own state.
    pub k: &'a mut Kernel,
    /// The processor the routine runs on.
    pub cpu: usize,
}

impl Cx<'_> {
    /// Guest memory.
    pub fn mem(&mut self) -> &mut Memory {
        &mut self.m.mem
    }

    /// Argument `n` of the export being called, by the Microsoft x64 convention: RCX, RDX, R8, R9, then the stack
    /// above the return address and the 32 bytes of home space.
    ///
    /// # Errors
    /// The stack cannot be read.
    pub fn arg(&self, n: usize) -> std::result::Result<u64, Stop> {
        let gpr = &self.m.cpus[self.cpu].regs.gpr;
        Ok(match n {
            0 => gpr[1],
            1 => gpr[2],
            2 => gpr[8],
            3 => gpr[9],
            _ => self.m.mem.read_u64(Va(gpr[4].wrapping_add(0x28 + 8 * (n as u64 - 4))))?,
        })
    }

    /// Return address of the export call being served.
    #[must_use]
    pub fn caller(&self) -> u64 {
        self.m.mem.read_u64(Va(self.m.cpus[self.cpu].regs.gpr[4])).unwrap_or(0)
    }

    /// Current IRQL of this processor: CR8.
    #[must_use]
    pub fn irql(&self) -> u8 {
        self.m.cpus[self.cpu].cr8
    }

    /// Sets this processor's IRQL.
    pub fn set_irql(&mut self, irql: u8) {
        self.m.cpus[self.cpu].cr8 = irql & 15;
    }

    /// Virtual time in nanoseconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.m.now()
    }

    /// Records an event.
    pub fn event(&mut self, kind: EventKind) {
        let (at, irql) = (self.m.now(), self.irql());
        self.k.record(at, Some(self.cpu as u32), irql, kind);
    }

    /// Reads a 16-bit value.
    ///
    /// # Errors
    /// The address cannot be read.
    pub fn r16(&self, at: u64) -> std::result::Result<u16, Stop> {
        Ok(self.m.mem.read_u16(Va(at))?)
    }

    /// Reads a byte.
    ///
    /// # Errors
    /// The address cannot be read.
    pub fn r8(&self, at: u64) -> std::result::Result<u8, Stop> {
        Ok(self.m.mem.read_u8(Va(at))?)
    }

    /// Reads a 32-bit value.
    ///
    /// # Errors
    /// The address cannot be read.
    pub fn r32(&self, at: u64) -> std::result::Result<u32, Stop> {
        Ok(self.m.mem.read_u32(Va(at))?)
    }

    /// Reads a 64-bit value.
    ///
    /// # Errors
    /// The address cannot be read.
    pub fn r64(&self, at: u64) -> std::result::Result<u64, Stop> {
        Ok(self.m.mem.read_u64(Va(at))?)
    }

    /// Writes a byte.
    ///
    /// # Errors
    /// The address cannot be written.
    pub fn w8(&mut self, at: u64, v: u8) -> std::result::Result<(), Stop> {
        Ok(self.m.mem.write_u8(Va(at), v)?)
    }

    /// Writes a 16-bit value.
    ///
    /// # Errors
    /// The address cannot be written.
    pub fn w16(&mut self, at: u64, v: u16) -> std::result::Result<(), Stop> {
        Ok(self.m.mem.write_u16(Va(at), v)?)
    }

    /// Writes a 32-bit value.
    ///
    /// # Errors
    /// The address cannot be written.
    pub fn w32(&mut self, at: u64, v: u32) -> std::result::Result<(), Stop> {
        Ok(self.m.mem.write_u32(Va(at), v)?)
    }

    /// Writes a 64-bit value.
    ///
    /// # Errors
    /// The address cannot be written.
    pub fn w64(&mut self, at: u64, v: u64) -> std::result::Result<(), Stop> {
        Ok(self.m.mem.write_u64(Va(at), v)?)
    }

    /// Copies bytes out of guest memory; at most 64 MiB at once.
    ///
    /// # Errors
    /// The range cannot be read, or is absurdly long.
    pub fn bytes(&self, at: u64, len: usize) -> std::result::Result<Vec<u8>, Stop> {
        if len > 64 << 20 {
            return Err(Stop::MissingFeature {
                what: format!("a single copy of {len} bytes"),
                caller: self.caller(),
            });
        }
        let mut buf = vec![0; len];
        self.m.mem.read(Va(at), &mut buf)?;
        Ok(buf)
    }

    /// Copies bytes into guest memory.
    ///
    /// # Errors
    /// The range cannot be written.
    pub fn put(&mut self, at: u64, data: &[u8]) -> std::result::Result<(), Stop> {
        Ok(self.m.mem.write(Va(at), data)?)
    }

    /// Stops the run: the driver needs something that dirql lacks.
    pub fn missing(&self, what: impl Into<String>) -> Stop {
        Stop::MissingFeature { what: what.into(), caller: self.caller() }
    }
}

/// A type an export's argument is taken as: the low bits of the register, as the convention has it.
pub trait FromArg {
    /// Takes the value from a 64-bit register or stack slot.
    fn from_arg(raw: u64) -> Self;
}

macro_rules! from_arg {
    ($($t:ty),*) => { $(impl FromArg for $t { fn from_arg(raw: u64) -> Self { raw as $t } })* };
}
from_arg!(u8, u16, u32, u64, i8, i16, i32, i64);

/// An export's implementation.
pub type Shim = fn(&mut Cx<'_>) -> Result;

/// One export, stated once.
#[derive(Clone, Copy)]
pub struct Export {
    /// Documented name.
    pub name: &'static str,
    /// Highest IRQL at which it may be called.
    pub max_irql: u8,
    /// Its implementation.
    pub shim: Shim,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (<= {})", self.name, self.max_irql)
    }
}

/// Declares exports. `[2]` before the function is the highest permitted IRQL; arguments are typed by the width the
/// C signature gives them.
#[macro_export]
macro_rules! exports {
    ($($(#[$meta:meta])* [$irql:literal] fn $name:ident($cx:ident $(, $arg:ident : $ty:ty)* $(,)?) $body:block)*) => {
        $(
            $(#[$meta])*
            #[allow(non_snake_case)]
            fn $name($cx: &mut $crate::cx::Cx<'_>) -> $crate::context::Result {
                #[allow(unused_mut, unused_variables)]
                let mut n = 0usize;
                $(
                    #[allow(non_snake_case)]
                    let $arg = <$ty as $crate::cx::FromArg>::from_arg($cx.arg(n)?);
                    #[allow(unused_assignments)]
                    { n += 1; }
                )*
                $body
            }
        )*
        /// What this file implements.
        pub(crate) const EXPORTS: &[$crate::cx::Export] = &[
            $($crate::cx::Export { name: stringify!($name), max_irql: $irql, shim: $name }),*
        ];
    };
}
