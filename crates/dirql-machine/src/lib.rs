//! The machine of dirql: processors, local APICs, I/O APIC, PCI, virtual time
