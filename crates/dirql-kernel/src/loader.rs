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
/// Where drivers are mapped.
const MODULE_BASE: u64 = 0xFFFF_F800_4000_0000;
/// Where kernel stacks, device windows and other mappings are put.
const MAPPING_BASE: u64 = 0xFFFF_C000_0000_0000;
/// KUSER_SHARED_DATA, which drivers read inline for the time.
pub const SHARED_DATA: u64 = 0xFFFF_F780_0000_0000;

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
            (_, Some(Resolved::Export(e))) => format!("nt!{}", e.name),
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
    let pa = cx.m.mem.alloc_frames(1)?;
    cx.m.mem.map_ram(Va(SHARED_DATA), pa, 1, Prot::READ);
    update_shared_data(cx)
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

/// Brings KUSER_SHARED_DATA up to date: InterruptTime at 0x8, SystemTime at 0x14, TickCount at 0x320 (ntddk.h).
pub(crate) fn update_shared_data(cx: &mut Cx<'_>) -> Result<(), Stop> {
    let now = cx.now() / 100;
    let system = crate::timer::system_time(cx);
    for (at, value) in [(0x8, now), (0x14, system), (0x320, now / 156_250)] {
        cx.w32(SHARED_DATA + at, value as u32)?;
        cx.w32(SHARED_DATA + at + 4, (value >> 32) as u32)?;
        cx.w32(SHARED_DATA + at + 8, (value >> 32) as u32)?;
    }
    cx.w32(SHARED_DATA + 4, 0x0fa0_0000)?;
    Ok(())
}

/// Imports of an image that are not implemented.
#[must_use]
pub fn missing_imports(image: &Image) -> Vec<MissingImport> {
    image
        .imports
        .iter()
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

fn ours(module: &str) -> bool {
    matches!(
        module.to_ascii_lowercase().as_str(),
        "ntoskrnl.exe" | "hal.dll" | "ntkrnlpa.exe" | "ntkrnlmp.exe" | "wdm.dll"
    )
}

/// Is this import one that dirql implements?
#[must_use]
pub fn implemented(module: &str, name: &str) -> bool {
    ours(module)
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

/// Maps a driver: relocated, protected, imports bound. A missing import is bound to a gate that names it when called.
///
/// # Errors
/// The image imports what the chosen Windows lacks, or cannot be laid out, or memory is short.
pub fn map_driver(cx: &mut Cx<'_>, name: &str, image: std::sync::Arc<Image>) -> Result<usize, Stop> {
    let chosen = windows::of_build(cx.k.windows_build);
    let lacking: Vec<_> = image
        .imports
        .iter()
        .filter(|i| ours(&i.module))
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
    for import in &image.imports {
        let symbol = symbol_name(&import.symbol);
        let address = if ours(&import.module) { cx.k.modules.export_address(&symbol) } else { None };
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
        // The loader seeds the cookie when it still has its default, and points the guard checks at routines that
        // let every target pass: there is no user mode to protect against.
        if let Some(rva) = config.security_cookie_rva
            && cx.r64(base + u64::from(rva))? == 0x2B99_2DDF_A232
        {
            cx.w64(base + u64::from(rva), 0x0000_5EED_C001_D00D & 0xFFFF_FFFF_FFFF)?;
        }
        for (rva, export) in [
            (config.guard_cf_check_function_pointer_rva, "_guard_check_icall"),
            (config.guard_cf_dispatch_function_pointer_rva, "_guard_dispatch_icall"),
        ] {
            if let (Some(rva), Some(to)) = (rva, cx.k.modules.export_address(export)) {
                cx.w64(base + u64::from(rva), to)?;
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

/// Return addresses into drivers found on the current stack, nearest first: a stack walk by scanning, which may show
/// a stale frame and says so by being approximate.
pub(crate) fn walk_stack(cx: &Cx<'_>, rip: u64) -> Vec<String> {
    let mut out = vec![cx.k.modules.describe(rip)];
    let rsp = cx.m.cpus[cx.cpu].regs.gpr[4];
    for slot in 0..256u64 {
        let Ok(value) = cx.m.mem.read_u64(Va(rsp.wrapping_add(slot * 8))) else { break };
        if let Some((m, rva)) = cx.k.modules.locate(value)
            && m.image.sections.iter().any(|s| {
                s.executable && rva >= u64::from(s.rva) && rva < u64::from(s.rva) + u64::from(s.virtual_size)
            })
        {
            let text = cx.k.modules.describe(value);
            if out.last() != Some(&text) {
                out.push(text);
            }
        }
        if out.len() >= 16 {
            break;
        }
    }
    out
}
