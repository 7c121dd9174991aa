//! Error log, once-a-second device timers, named events, and small questions to the I/O manager.

use dirql_event::EventKind;

use crate::context::{Outcome, Result, Wait, ret, void};
use crate::cx::Cx;
use crate::dispatcher;
use crate::exports;
use crate::exports::ex_pool::kernel_block;
use crate::exports::ke_cpu::thread_at;
use crate::exports::ke_dpc;
use crate::exports::ps::system_process;
use crate::io::read_unicode;
use crate::stop::Stop;
use crate::then::Then;
use crate::timer;

type Res<T> = std::result::Result<T, Stop>;

const INVALID_HANDLE: u64 = 0xC000_0008;
const INVALID_PARAMETER: u64 = 0xC000_000D;
const INSUFFICIENT_RESOURCES: u64 = 0xC000_009A;
/// ERROR_LOG_MAXIMUM_SIZE, and the fixed part of IO_ERROR_LOG_PACKET.
const LOG_MAX: u8 = 0xf0;
const LOG_FIXED: u8 = 0x30;
/// CONFIGURATION_INFORMATION.
const CONFIGURATION_SIZE: u64 = 0x28;
const CONFIGURATION_VERSION: u64 = 0x20;

/// A device's timer: IoInitializeTimer.
#[derive(Clone, Copy, Debug)]
pub struct DeviceTimer {
    routine: u64,
    context: u64,
    /// A KTIMER and, 64 bytes on, its KDPC.
    block: u64,
}

const DPC: u64 = 64;

fn device_timer(cx: &Cx<'_>, device: u64, what: &str) -> Res<DeviceTimer> {
    cx.k.ke.device_timers.get(&device).copied().ok_or_else(|| {
        Stop::bug_check(
            0x1E,
            [0xC000_0005, cx.caller(), device, 0],
            format!("{what} for the device at {device:#x}, which has no timer (IoInitializeTimer)"),
        )
    })
}

/// An event in pool with a handle; a name makes or finds it.
fn event(cx: &mut Cx<'_>, name: Option<String>, kind: u8, signalled: bool, handle: u64) -> Res<Option<u64>> {
    let named = name.as_ref().and_then(|n| cx.k.ke.named_events.get(&n.to_lowercase()).copied());
    let at = match named {
        Some(at) => at,
        None => {
            let at = match kernel_block(cx, dispatcher::EVENT_SIZE) {
                Err(Stop::OutOfMemory) => return Ok(None),
                other => other?,
            };
            dispatcher::init_header(cx, at, kind, dispatcher::EVENT_SIZE, i32::from(signalled))?;
            if let Some(n) = name {
                cx.k.ke.named_events.insert(n.to_lowercase(), at);
            }
            at
        }
    };
    let Some(h) = cx.k.ke.open_event_handle(at) else { return Ok(None) };
    cx.w64(handle, h)?;
    Ok(Some(at))
}

fn event_of(cx: &Cx<'_>, handle: u64) -> Option<u64> {
    cx.k.ke.event_handles.get(&handle).copied()
}

fn set(cx: &mut Cx<'_>, handle: u64, previous: u64, signal: bool) -> Result {
    let Some(at) = event_of(cx, handle) else { return ret(INVALID_HANDLE) };
    let before = dispatcher::signal_state(cx, at)?;
    if signal {
        dispatcher::set_event(cx, at)?;
    } else {
        cx.w32(at + dispatcher::SIGNAL, 0)?;
    }
    if previous != 0 {
        cx.w32(previous, before as u32)?;
    }
    ret(0)
}

exports! {
    [2] fn IoAllocateErrorLogEntry(cx, _object: u64, size: u8) {
        if !(LOG_FIXED..=LOG_MAX).contains(&size) {
            return ret(0);
        }
        match kernel_block(cx, u64::from(size)) {
            Ok(at) => {
                cx.put(at, &vec![0; usize::from(size)])?;
                ret(at)
            }
            Err(Stop::OutOfMemory) => ret(0),
            Err(other) => Err(other),
        }
    }
    /// The packet is shown as output: error code, final status, and the size of its dump data.
    [2] fn IoWriteErrorLogEntry(cx, at: u64) {
        let (dump, strings) = (cx.r16(at + 2)?, cx.r16(at + 4)?);
        let (code, unique, status) = (cx.r32(at + 12)?, cx.r32(at + 16)?, cx.r32(at + 20)?);
        let text = format!(
            "[error log: code {code:#010x}, final status {status:#010x}, unique value {unique:#x}, {dump} bytes of dump data, {strings} strings]"
        );
        cx.event(EventKind::Print { text });
        crate::io::free(cx, at)?;
        void()
    }
    [2] fn IoFreeErrorLogEntry(cx, at: u64) {
        crate::io::free(cx, at)?;
        void()
    }

    [0] fn IoInitializeTimer(cx, device: u64, routine: u64, context: u64) {
        let known = cx.k.ke.device_timers.get(&device).map(|t| t.block);
        let block = match known {
            Some(block) => block,
            None => match kernel_block(cx, DPC + 64) {
                Err(Stop::OutOfMemory) => return ret(INSUFFICIENT_RESOURCES),
                other => other?,
            },
        };
        if known.is_none() {
            timer::init(cx, block, false)?;
            let gate = cx.k.modules.export_address("IopTimerDispatch").unwrap_or(0);
            ke_dpc::init(cx, block + DPC, 19, gate, device)?;
        }
        cx.k.ke.device_timers.insert(device, DeviceTimer { routine, context, block });
        ret(0)
    }
    /// Not a documented routine: the DPC of a device's timer.
    [2] fn IopTimerDispatch(cx, _dpc: u64, device: u64) {
        match cx.k.ke.device_timers.get(&device).copied() {
            Some(t) => Ok(Outcome::Call { routine: t.routine, args: vec![device, t.context], then: Then::RetValue(0) }),
            None => void(),
        }
    }
    [2] fn IoStartTimer(cx, device: u64) {
        let t = device_timer(cx, device, "IoStartTimer")?;
        timer::set(cx, t.block, -10_000_000, 1000, t.block + DPC)?;
        void()
    }
    [2] fn IoStopTimer(cx, device: u64) {
        let t = device_timer(cx, device, "IoStopTimer")?;
        timer::cancel(cx, t.block)?;
        void()
    }

    [0] fn IoCreateNotificationEvent(cx, name: u64, handle: u64) {
        let name = read_unicode(cx, name)?;
        ret(event(cx, Some(name), 0, true, handle)?.unwrap_or(0))
    }
    [0] fn IoCreateSynchronizationEvent(cx, name: u64, handle: u64) {
        let name = read_unicode(cx, name)?;
        ret(event(cx, Some(name), 1, true, handle)?.unwrap_or(0))
    }
    [0] fn ZwCreateEvent(cx, handle: u64, _access: u32, attributes: u64, kind: u32, signalled: u8) {
        if kind > 1 {
            return ret(INVALID_PARAMETER);
        }
        let name = if attributes == 0 { 0 } else { cx.r64(attributes + 16)? };
        let name = if name == 0 { None } else { Some(read_unicode(cx, name)?) };
        if name.as_ref().is_some_and(|n| cx.k.ke.named_events.contains_key(&n.to_lowercase())) {
            // OBJ_OPENIF opens what there is, and says so.
            if cx.r32(attributes + 24)? & 0x80 == 0 {
                return ret(0xC000_0035);
            }
            event(cx, name, kind as u8, signalled != 0, handle)?;
            return ret(0x4000_0000);
        }
        match event(cx, name, kind as u8, signalled != 0, handle)? {
            Some(_) => ret(0),
            None => ret(INSUFFICIENT_RESOURCES),
        }
    }
    [2] fn ZwSetEvent(cx, handle: u64, previous: u64) { set(cx, handle, previous, true) }
    [2] fn ZwClearEvent(cx, handle: u64) { set(cx, handle, 0, false) }
    [2] fn ZwResetEvent(cx, handle: u64, previous: u64) { set(cx, handle, previous, false) }
    [1] fn ZwWaitForSingleObject(cx, handle: u64, alertable: u8, timeout: u64) {
        let thread = cx.k.ke.handles.get(&handle).and_then(|id| cx.k.threads.get(id)).map(|t| t.kthread);
        let Some(object) = event_of(cx, handle).or(thread) else { return ret(INVALID_HANDLE) };
        let deadline = if timeout == 0 { None } else { Some(timer::to_deadline(cx, cx.r64(timeout)? as i64)) };
        let wait = Wait { deadline, alertable: alertable != 0, ..Wait::object(object) };
        Ok(Outcome::Wait { wait, then: Then::Ret })
    }

    // Counts of devices that drivers keep for each other; nothing else is on this machine, so all begin at zero.
    [0] fn IoGetConfigurationInformation(cx) {
        if let Some(&at) = cx.k.ke.singletons.get("configuration") {
            return ret(at);
        }
        let at = kernel_block(cx, CONFIGURATION_SIZE)?;
        cx.put(at, &[0; CONFIGURATION_SIZE as usize])?;
        cx.w32(at + CONFIGURATION_VERSION, CONFIGURATION_SIZE as u32)?;
        cx.k.ke.singletons.insert("configuration", at);
        ret(at)
    }
    [2] fn IoGetInitialStack(cx) { ret(cx.k.current_thread(cx.cpu).map_or(0, |t| t.stack.1)) }
    [2] fn IoThreadToProcess(cx, thread: u64) {
        if thread_at(cx, thread).is_none() {
            return Err(cx.missing(format!("IoThreadToProcess of {thread:#x}, which is no thread")));
        }
        ret(system_process(cx)?)
    }
    [2] fn IoIs32bitProcess(_cx, _irp: u64) { ret(0) }
    [2] fn IoGetRequestorProcessId(_cx, _irp: u64) { ret(4) }
    [2] fn IoGetRequestorProcess(cx, _irp: u64) { ret(system_process(cx)?) }
}
