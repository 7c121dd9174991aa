//! Guest modules: the kernel's own export range, data exports, and the drivers mapped beside them.

use std::collections::BTreeMap;

use dirql_event::{EventKind, MissingImport};
use dirql_image::{Image, Symbol};
use dirql_mem::{PAGE_SIZE, Prot, Va};

use crate::cx::{Cx, Export};
use crate::exports::{self, data};
use crate::stop::Stop;
use crate::windows;

/// First address of the kernel's export range: each export is a gate of [`GATE_STEP`] bytes there.
pub const GATE_BASE: u64 = 0xFFFF_F800_1000_0000;
/// Distance between two gates.
pub const GATE_STEP: u64 = 16;
/// Guest routines called by the kernel return here.
pub const RETURN_GATE: u64 = GATE_BASE;
/// A page of the kernel's own guest code, below the gates: the control-flow guard's routines, which drivers call at
/// every indirect call and which therefore never leave the engine.
pub const KERNEL_CODE: u64 = GATE_BASE - 0x1000;
/// The guard's check routine: every target is good.
const GUARD_CHECK: u64 = KERNEL_CODE;
/// The guard's dispatch routine: goes to the target in RAX.
const GUARD_DISPATCH: u64 = KERNEL_CODE + 0x10;
/// Where drivers are mapped.
const MODULE_BASE: u64 = 0xFFFF_F800_4000_0000;
/// Where kernel stacks, device windows and other mappings are put.
const MAPPING_BASE: u64 = 0xFFFF_C000_0000_0000;
/// KUSER_SHARED_DATA, which drivers read inline for the time.
pub const SHARED_DATA: u64 = 0xFFFF_F780_0000_0000;

/// Most frames of a stack in a report.
const MAX_STACK: usize = 32;

/// What a gate stands for.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// An implemented export.
    Export(&'static Export),
    /// One that is not implemented; calling it ends the run with its name.
    Missing {
        /// The module.
        module: String,
        /// The name.
        name: String,
    },
}

/// A mapped driver.
#[derive(Clone, Debug)]
pub struct Module {
    /// File name without folders.
    pub name: String,
    /// Base address.
    pub base: u64,
    /// Size in bytes.
    pub size: u64,
    /// Address of its entry point.
    pub entry: u64,
    /// The parsed image.
    pub image: std::sync::Arc<Image>,
}

/// Modules and the address space reserved for mappings.
#[derive(Clone, Debug)]
pub struct Modules {
    gates: Vec<Resolved>,
    by_name: BTreeMap<String, u64>,
    next_module: u64,
    next_mapping: u64,
    /// Mapped drivers.
    pub drivers: Vec<Module>,
}

impl Default for Modules {
    fn default() -> Self {
        Self {
            // Gate 0 is the return gate.
            gates: vec![Resolved::Missing { module: "dirql".into(), name: "return gate".into() }],
            by_name: BTreeMap::new(),
            next_module: MODULE_BASE,
            next_mapping: MAPPING_BASE,
            drivers: vec![],
        }
    }
}

impl Modules {
    /// What the gate at `rip` stands for.
    #[must_use]
    pub fn gate(&self, rip: u64) -> Option<&Resolved> {
        let offset = rip.checked_sub(GATE_BASE)?;
        if offset == 0 || !offset.is_multiple_of(GATE_STEP) {
            return None;
        }
        self.gates.get(usize::try_from(offset / GATE_STEP).ok()?)
    }

    /// Address of an export that is implemented, by its documented name.
    #[must_use]
    pub fn export_address(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).copied()
    }

    /// Reserves address space for a mapping.
    pub fn reserve(&mut self, bytes: u64) -> u64 {
        let at = self.next_mapping;
        self.next_mapping += bytes.next_multiple_of(0x1000) + 0x1000;
        at
    }

    fn add_gate(&mut self, what: Resolved) -> u64 {
        let at = GATE_BASE + GATE_STEP * self.gates.len() as u64;
        self.gates.push(what);
        at
    }

    /// The driver that contains an address, and the offset in it.
    #[must_use]
    pub fn locate(&self, va: u64) -> Option<(&Module, u64)> {
        self.drivers.iter().find(|m| va >= m.base && va - m.base < m.size).map(|m| (m, va - m.base))
    }

    /// `module+offset`, or the export's name, or the plain address.
    #[must_use]
    pub fn describe(&self, va: u64) -> String {
        match (self.locate(va), self.gate(va)) {
            (Some((m, rva)), _) => format!("{}+{rva:#x}", m.name),
            (_, Some(Resolved::Export(e))) => {
                let module = if documented_module(e.name) == "hal.dll" { "hal" } else { "nt" };
                format!("{module}!{}", e.name)
            }
            _ => format!("{va:#x}"),
        }
    }
}

/// Lays out the export range, the data exports and the shared page. Called once, before any driver is mapped.
pub(crate) fn map_kernel(cx: &mut Cx<'_>) -> Result<(), Stop> {
    // What this Windows does not have yet is not there to be found by name either.
    let windows = windows::of_build(cx.k.windows_build);
    for family in exports::FAMILIES {
        for export in family.iter().filter(|e| windows::since(e.name) <= windows) {
            let at = cx.k.modules.add_gate(Resolved::Export(export));
            cx.k.modules.by_name.insert(export.name.to_owned(), at);
        }
    }
    // Room for every import a driver may add; pages are made as gates are.
    map_gates(cx)?;
    let pa = cx.m.mem.alloc_frames(1)?;
    cx.m.mem.map_ram(Va(KERNEL_CODE), pa, 1, Prot::READ | Prot::WRITE);
    cx.put(KERNEL_CODE, &[0xCC; PAGE_SIZE])?;
    cx.put(GUARD_CHECK, &[0xC3])?; // ret
    cx.put(GUARD_DISPATCH, &[0xFF, 0xE0])?; // jmp rax
    cx.m.mem.protect(Va(KERNEL_CODE), 1, Prot::READ | Prot::EXEC);
    let mut table = data::DATA.iter().filter(|(name, _)| windows::since(name) <= windows).peekable();
    while table.peek().is_some() {
        let page = cx.k.modules.reserve(0x1000);
        let pa = cx.m.mem.alloc_frames(1)?;
        cx.m.mem.map_ram(Va(page), pa, 1, Prot::READ | Prot::WRITE);
        for (slot, (name, init)) in table.by_ref().take(PAGE_SIZE / 32).enumerate() {
            let at = page + 32 * slot as u64;
            let value = init.value(cx, at + 16)?;
            cx.w64(at, value)?;
            cx.k.modules.by_name.insert((*name).to_owned(), at);
        }
    }
    crate::shared_data::map(cx)
}

fn map_gates(cx: &mut Cx<'_>) -> Result<(), Stop> {
    let bytes = GATE_STEP * cx.k.modules.gates.len() as u64;
    for page in 0..bytes.div_ceil(PAGE_SIZE as u64) {
        let va = Va(GATE_BASE + page * PAGE_SIZE as u64);
        if cx.m.mem.translate(va).is_none() {
            let pa = cx.m.mem.alloc_frames(1)?;
            // int3 all over: what a debugger would see in a routine that is not guest code.
            cx.m.mem.map_ram(va, pa, 1, Prot::READ | Prot::EXEC | Prot::GATE);
            cx.m.mem.write(va, &[0xCC; PAGE_SIZE])?;
        }
    }
    Ok(())
}

/// Imports of an image that are not implemented.
#[must_use]
pub fn missing_imports(image: &Image) -> Vec<MissingImport> {
    image
        .imports
        .iter()
        .chain(&image.delay_imports)
        .filter_map(|i| {
            let (module, name) = (i.module.clone(), symbol_name(&i.symbol));
            (!implemented(&module, &name)).then_some(MissingImport { module, name })
        })
        .collect()
}

fn symbol_name(symbol: &Symbol) -> String {
    match symbol {
        Symbol::Name(n) => n.clone(),
        Symbol::Ordinal(n) => format!("#{n}"),
    }
}

/// Is this module one that dirql stands for? From Windows 10 on, `hal.dll` forwards to the kernel and both export
/// all, so a routine is found under either name.
#[must_use]
pub fn provides(module: &str) -> bool {
    matches!(
        module.to_ascii_lowercase().as_str(),
        "ntoskrnl.exe" | "hal.dll" | "ntkrnlpa.exe" | "ntkrnlmp.exe" | "wdm.dll"
    )
}

/// Routines documented as exports of `hal.dll` (the DLL line of each routine's page); the rest are the kernel's.
const HAL: &[&str] = &[
    "ExAcquireFastMutex",
    "ExReleaseFastMutex",
    "ExTryToAcquireFastMutex",
    "IoFlushAdapterBuffers",
    "IoFreeAdapterChannel",
    "IoFreeMapRegisters",
    "IoMapTransfer",
    "IoReadPartitionTable",
    "KeFlushWriteBuffer",
    "KeGetCurrentIrql",
    "KeLowerIrql",
    "KeQueryPerformanceCounter",
    "KeRaiseIrql",
    "KeRaiseIrqlToDpcLevel",
    "KeRaiseIrqlToSynchLevel",
    "KeStallExecutionProcessor",
    "KfAcquireSpinLock",
    "KfLowerIrql",
    "KfRaiseIrql",
    "KfReleaseSpinLock",
];

/// The module whose export a routine is documented to be.
#[must_use]
pub fn documented_module(name: &str) -> &'static str {
    let port = name.starts_with("READ_PORT_") || name.starts_with("WRITE_PORT_");
    if port || name.starts_with("Hal") || HAL.binary_search(&name).is_ok() {
        "hal.dll"
    } else {
        "ntoskrnl.exe"
    }
}

/// Is this import one that dirql implements?
#[must_use]
pub fn implemented(module: &str, name: &str) -> bool {
    provides(module)
        && (exports::FAMILIES.iter().any(|f| f.iter().any(|e| e.name == name))
            || data::DATA.iter().any(|(n, _)| *n == name))
}

/// Names of all implemented exports, sorted: routines with their highest IRQL, data with none.
#[must_use]
pub fn implemented_exports() -> Vec<(&'static str, Option<u8>)> {
    let mut all: Vec<_> = exports::FAMILIES
        .iter()
        .flat_map(|f| f.iter().map(|e| (e.name, Some(e.max_irql))))
        .chain(data::DATA.iter().map(|(n, _)| (*n, None)))
        .collect();
    all.sort_unstable();
    all
}

/// The linker's value of `__security_cookie`.
const DEFAULT_COOKIE: u64 = 0x2B99_2DDF_A232;
/// `IMAGE_GUARD_CF_INSTRUMENTED`.
const GUARD_INSTRUMENTED: u32 = 0x100;

/// A cookie for the image at `base`: not the default, the high 16 bits clear so that no string copy can write it.
fn cookie(base: u64) -> u64 {
    let mixed = base.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23) & 0xFFFF_FFFF_FFFF;
    if matches!(mixed, 0 | DEFAULT_COOKIE) { 0x5EED_C001_D00D } else { mixed }
}

/// Maps a driver: relocated, protected, imports bound. A missing import is bound to a gate that names it when called.
///
/// # Errors
/// The image imports what the chosen Windows lacks, or cannot be laid out, or memory is short.
pub fn map_driver(cx: &mut Cx<'_>, name: &str, image: std::sync::Arc<Image>) -> Result<usize, Stop> {
    let chosen = windows::of_build(cx.k.windows_build);
    let lacking: Vec<_> = image
        .imports
        .iter()
        .filter(|i| provides(&i.module))
        .map(|i| symbol_name(&i.symbol))
        .map(|symbol| (windows::since(&symbol), symbol))
        .filter(|(since, _)| *since > chosen)
        .map(|(since, symbol)| (symbol, since))
        .collect();
    if !lacking.is_empty() {
        let status = windows::STATUS_DRIVER_ENTRYPOINT_NOT_FOUND;
        return Err(Stop::NotLoaded { image: name.to_owned(), lacking, status });
    }
    let base = cx.k.modules.next_module;
    let bytes = image.lay_out(base).map_err(|e| Stop::Internal(format!("{name}: {e}")))?;
    let pages = bytes.len().div_ceil(PAGE_SIZE);
    cx.k.modules.next_module += ((pages as u64 + 16) * PAGE_SIZE as u64).next_multiple_of(0x1_0000);
    let pa = cx.m.mem.alloc_frames(pages)?;
    cx.m.mem.map_ram(Va(base), pa, pages, Prot::READ | Prot::WRITE);
    cx.put(base, &bytes)?;
    let mut resolved = 0;
    let mut missing = vec![];
    // The kernel binds delayed imports at their first call; to bind them now gives the same calls.
    for import in image.imports.iter().chain(&image.delay_imports) {
        let symbol = symbol_name(&import.symbol);
        let address = if provides(&import.module) { cx.k.modules.export_address(&symbol) } else { None };
        let address = match address {
            Some(a) => {
                resolved += 1;
                a
            }
            None => {
                missing.push(MissingImport { module: import.module.clone(), name: symbol.clone() });
                cx.k.modules.add_gate(Resolved::Missing { module: import.module.clone(), name: symbol })
            }
        };
        cx.w64(base + u64::from(import.iat_rva), address)?;
    }
    map_gates(cx)?;
    if let Some(config) = &image.load_config {
        // The loader seeds the cookie when it still has the linker's value: another one, of 48 bits.
        if let Some(rva) = config.security_cookie_rva
            && cx.r64(base + u64::from(rva))? == DEFAULT_COOKIE
        {
            cx.w64(base + u64::from(rva), cookie(base))?;
        }
        // An image built without the guard keeps its own routines.
        if config.guard_flags & GUARD_INSTRUMENTED != 0 {
            for (rva, to) in [
                (config.guard_cf_check_function_pointer_rva, GUARD_CHECK),
                (config.guard_cf_dispatch_function_pointer_rva, GUARD_DISPATCH),
                (config.guard_xfg_check_function_pointer_rva, GUARD_CHECK),
                (config.guard_xfg_dispatch_function_pointer_rva, GUARD_DISPATCH),
                (config.guard_xfg_table_dispatch_function_pointer_rva, GUARD_DISPATCH),
            ] {
                if let Some(rva) = rva {
                    cx.w64(base + u64::from(rva), to)?;
                }
            }
        }
    }
    for (page, p) in image.page_protections().into_iter().enumerate().take(pages) {
        let mut prot = Prot::READ;
        if p.writable {
            prot = prot | Prot::WRITE;
        }
        if p.executable {
            prot = prot | Prot::EXEC;
        }
        if p.pageable {
            prot = prot | Prot::PAGED;
        }
        cx.m.mem.protect(Va(base + (page * PAGE_SIZE) as u64), 1, prot);
    }
    let entry = base + u64::from(image.entry_rva);
    let size = (pages * PAGE_SIZE) as u64;
    cx.event(EventKind::DriverLoaded { image: name.to_owned(), base, size, entry });
    cx.event(EventKind::ImportsResolved { image: name.to_owned(), resolved, missing });
    cx.k.modules.drivers.push(Module { name: name.to_owned(), base, size, entry, image });
    Ok(cx.k.modules.drivers.len() - 1)
}

/// Where each frame of the current stack executes, innermost first, by the unwind tables. `rip` is the place the
/// report is about.
pub(crate) fn walk_stack(cx: &mut Cx<'_>, rip: u64) -> Vec<String> {
    let mut frames = crate::exception::stack(cx, MAX_STACK);
    match frames.iter().position(|&pc| pc == rip) {
        // The kernel routines on top of the place are not the driver's.
        Some(n) => drop(frames.drain(..n)),
        None if rip != 0 => frames.insert(0, rip),
        None => {}
    }
    frames.into_iter().map(|pc| cx.k.modules.describe(pc)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routine_has_its_documented_module() {
        assert!(HAL.is_sorted());
        assert_eq!(documented_module("KeStallExecutionProcessor"), "hal.dll");
        assert_eq!(documented_module("READ_PORT_UCHAR"), "hal.dll");
        assert_eq!(documented_module("HalGetInterruptVector"), "hal.dll");
        assert_eq!(documented_module("IoCallDriver"), "ntoskrnl.exe");
        assert!(implemented("HAL.dll", "IoDeleteDevice") && implemented("ntoskrnl.exe", "IoDeleteDevice"));
        assert!(!implemented("WDFLDR.SYS", "IoDeleteDevice"));
    }

    #[test]
    fn a_cookie_is_its_own_and_fits_48_bits() {
        for base in (0..64).map(|i| MODULE_BASE + 0x1_0000 * i) {
            let c = cookie(base);
            assert!(c != 0 && c != DEFAULT_COOKIE && c >> 48 == 0, "{c:#x}");
        }
        assert_ne!(cookie(MODULE_BASE), cookie(MODULE_BASE + 0x1_0000));
    }
}
