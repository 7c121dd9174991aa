//! Brings the kernel up on a machine: per-processor blocks, stacks, the export range, the driver and its devices.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use dirql_core::Config;
use dirql_image::Image;
use dirql_machine::Machine;
use dirql_mem::{Prot, Va};

use crate::cx::Cx;
use crate::identity::{self, Setting};
use crate::interrupt::Interrupts;
use crate::io::IoState;
use crate::kernel::{Kernel, Proc};
use crate::life::{self, Life, Plan};
use crate::loader::{self, Modules};
use crate::pool::Pool;
use crate::registry::Registry;
use crate::sched;
use crate::stop::Stop;
use crate::system::System;

/// What a system is made of.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Interrupt-core profile.
    pub config: Config,
    /// Windows build number drivers are told.
    pub windows_build: u32,
    /// The driver's file name.
    pub image_name: String,
    /// The driver.
    pub image: Arc<Image>,
    /// Devices and workload.
    pub plan: Plan,
    /// Values of each device's hardware key (its `Device Parameters`), in the order of the plan's devices.
    pub device_settings: Vec<Vec<Setting>>,
    /// Values of the service key and below it.
    pub service_settings: Vec<Setting>,
    /// Instructions the run may retire.
    pub budget: u64,
    /// Record every export call.
    pub trace_exports: bool,
}

impl System {
    /// A system with its driver mapped, about to call DriverEntry.
    ///
    /// # Errors
    /// The driver cannot be mapped, or guest memory is short.
    pub fn boot(machine: Machine, boot: Boot) -> Result<Self, Stop> {
        let cpus = machine.cpus.len();
        let mut machine = machine;
        let mut kernel = Kernel {
            procs: vec![Proc::default(); cpus],
            threads: BTreeMap::new(),
            ready: vec![VecDeque::new(); 32],
            waiters: vec![],
            next_thread: 1,
            modules: Modules::default(),
            pool: Pool::default(),
            registry: Registry::default(),
            ke: crate::exports::ke::KeState::default(),
            io: IoState::default(),
            interrupts: Interrupts::new(boot.config, cpus as u32),
            life: Life::default(),
            windows_build: boot.windows_build,
            events: vec![],
            events_lost: 0,
            trace_exports: boot.trace_exports,
            trace: None,
            step: 0,
            begun: BTreeMap::new(),
        };
        let mut cx = Cx { m: &mut machine, k: &mut kernel, cpu: 0 };
        for cpu in 0..cpus {
            cx.cpu = cpu;
            processor(&mut cx)?;
        }
        cx.cpu = 0;
        loader::map_kernel(&mut cx)?;
        let module = loader::map_driver(&mut cx, &boot.image_name, boot.image)?;
        let service =
            boot.image_name.rsplit_once('.').map_or(boot.image_name.as_str(), |(stem, _)| stem).to_owned();
        let mut settings = boot.device_settings.into_iter();
        let devices: Vec<_> =
            boot.plan.devices.iter().map(|d| (d.clone(), settings.next().unwrap_or_default())).collect();
        identity::populate(
            &mut cx.k.registry,
            cx.m,
            &service,
            boot.windows_build,
            &devices,
            &boot.service_settings,
        )
        .map_err(|e| Stop::Internal(format!("the registry at start: {e:?}")))?;
        life::begin(&mut cx, module, &service, boot.plan)?;
        Ok(Self::new(machine, kernel, boot.budget))
    }
}

/// KPCR and interrupt stack of one processor. Compilers inline `gs:[18h]` (Self), `[20h]` (the PRCB), `[188h]`
/// (CurrentThread) and `[1a4h]` (Number).
fn processor(cx: &mut Cx<'_>) -> Result<(), Stop> {
    let kpcr = cx.k.modules.reserve(0x4000);
    let pa = cx.m.mem.alloc_frames(4)?;
    cx.m.mem.map_ram(Va(kpcr), pa, 4, Prot::READ | Prot::WRITE);
    cx.w64(kpcr + 0x18, kpcr)?;
    cx.w64(kpcr + 0x20, kpcr + 0x180)?;
    cx.w32(kpcr + 0x180, 0x1f80)?;
    cx.w32(kpcr + 0x1a4, cx.cpu as u32)?;
    let (_, top) = sched::new_stack(cx)?;
    let cpu = cx.cpu;
    cx.k.procs[cpu].kpcr = kpcr;
    cx.k.procs[cpu].isr_stack = top - 0x40;
    cx.m.cpus[cpu].gs_base = kpcr;
    cx.m.cpus[cpu].cr8 = 0;
    cx.m.cpus[cpu].regs.rflags = 0x202;
    cx.m.cpus[cpu].regs.mxcsr = 0x1f80;
    Ok(())
}
