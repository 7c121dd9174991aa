//! The machine of dirql: processors, local APICs, I/O APIC, PCI, virtual time.
//!
//! [`Machine`] is the whole of it and is `Clone`: a clone goes on exactly as the original would. It knows nothing
//! of the operating system that runs on it. Interrupts travel as they do in hardware: a device drives its pin or
//! sends a message ([`device`]), configuration space and capabilities let it pass or hold it ([`pci`]), the
//! I/O APIC ([`ioapic`]) and the message's own address choose processors, and a local APIC ([`lapic`]) keeps the
//! request until its processor accepts it.
//!
//! Left out: bridges and buses past 0, PCI Express extended configuration space, power states D1 and D2.

pub mod choice;
pub mod clock;
mod cpu;
pub mod device;
pub mod dma;
pub mod event;
mod hw;
pub mod ioapic;
pub mod lapic;
mod machine;
pub mod pci;

pub use choice::{Asked, Choice, Chooser, DefaultPolicy, Script};
pub use device::{Device, DeviceCtx};
pub use dma::DmaError;
pub use event::{MachineEvent, MachineEventKind};
pub use ioapic::{Dest, Wiring};
pub use machine::{IsaSlotConfig, Machine, MachineConfig, PciSlotConfig};
pub use pci::bar::{BarInfo, BarKind, BarSpec};
pub use pci::msi::MsiSpec;
pub use pci::{AddDeviceError, Bdf, Function, Interrupts, PciIdentity};

/// A device of a machine, by number, in the order they were added.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceId(pub u32);
