//! IRPs: making, sending, completing and cancelling them; StartIo queues; cancel-safe queues.

use crate::context::{Outcome, Result, ret, void};
use crate::cx::Cx;
use crate::io::{self, Built, IoThen, device, driver, irp, stack};
use crate::pool::PoolKind;
use crate::stop::Stop;
use crate::then::Then;

const SL_INVOKE_ALL: u8 = 0xE0;

fn build(
    cx: &mut Cx<'_>,
    target: u64,
    major: u8,
    event: u64,
    iosb: u64,
) -> std::result::Result<(u64, u64), Stop> {
    let stacks = cx.r8(target + device::STACK_SIZE)?.max(1);
    let at = io::new_irp(cx, stacks)?;
    cx.w64(at + irp::USER_EVENT, event)?;
    cx.w64(at + irp::USER_IOSB, iosb)?;
    let kthread = cx.k.current_thread(cx.cpu).map_or(0, |t| t.kthread);
    cx.w64(at + irp::THREAD, kthread)?;
    let here = cx.r64(at + irp::CURRENT_STACK)? - stack::SIZE;
    cx.w8(here, major)?;
    cx.k.io.built.insert(at, Built { owned: true, copy_back: None });
    Ok((at, here))
}

#[expect(clippy::too_many_arguments, reason = "they are the arguments of the routine it serves")]
fn fsd(
    cx: &mut Cx<'_>,
    major: u8,
    target: u64,
    buffer: u64,
    length: u32,
    offset: u64,
    event: u64,
    iosb: u64,
) -> Result {
    let (at, here) = build(cx, target, major, event, iosb)?;
    if matches!(major, 3 | 4) {
        cx.w32(here + stack::PARAMS, length)?;
        let o = if offset == 0 { 0 } else { cx.r64(offset)? };
        cx.w64(here + stack::PARAMS + 0x10, o)?;
        let flags = cx.r32(target + device::FLAGS)?;
        if flags & 4 != 0 && length > 0 {
            let b = cx.k.pool.alloc(
                &mut cx.m.mem,
                u64::from(length),
                PoolKind::NonPaged,
                u32::from_le_bytes(*b"IoSB"),
            )?;
            if major == 4 {
                let data = cx.bytes(buffer, length as usize)?;
                cx.put(b, &data)?;
            }
            cx.w64(at + irp::SYSTEM_BUFFER, b)?;
            let back = if major == 3 { (b, buffer, u64::from(length)) } else { (b, 0, 0) };
            cx.k.io.built.insert(at, Built { owned: true, copy_back: Some(back) });
        } else if flags & 0x10 != 0 && length > 0 {
            let mdl = super::mm::mdl_for(cx, buffer, length)?;
            cx.w64(at + irp::MDL, mdl)?;
        } else {
            cx.w64(at + irp::USER_BUFFER, buffer)?;
        }
    }
    ret(at)
}

/// Starts a packet of the device's StartIo queue.
fn start_io(cx: &mut Cx<'_>, target: u64, at: u64) -> Result {
    cx.w64(target + device::CURRENT_IRP, at)?;
    let routine = cx.r64(cx.r64(target + device::DRIVER)? + driver::START_IO)?;
    if routine == 0 {
        return Err(Stop::bug_check(
            0xD1,
            [0, 2, 8, 0],
            "IoStartPacket for a driver whose DriverStartIo is NULL",
        ));
    }
    let old = cx.irql();
    cx.set_irql(2);
    Ok(Outcome::Call { routine, args: vec![target, at], then: Then::Io(IoThen::Lower(old)) })
}

/// Puts an entry into a KDEVICE_QUEUE: TRUE when it was queued, FALSE when the queue was not busy and now is.
fn queue_insert(
    cx: &mut Cx<'_>,
    queue: u64,
    entry: u64,
    key: Option<u32>,
) -> std::result::Result<bool, Stop> {
    const BUSY: u64 = 0x20;
    if cx.r8(queue + BUSY)? & 1 == 0 {
        cx.w8(queue + BUSY, 1)?;
        cx.w8(entry + 0x14, 0)?;
        return Ok(false);
    }
    cx.w32(entry + 0x10, key.unwrap_or(0))?;
    let head = queue + 8;
    let mut before = head;
    if let Some(key) = key {
        let mut e = cx.r64(head)?;
        for _ in 0..65536 {
            if e == head || cx.r32(e + 0x10)? > key {
                before = e;
                break;
            }
            e = cx.r64(e)?;
        }
    }
    let prev = cx.r64(before + 8)?;
    cx.w64(entry, before)?;
    cx.w64(entry + 8, prev)?;
    cx.w64(prev, entry)?;
    cx.w64(before + 8, entry)?;
    cx.w8(entry + 0x14, 1)?;
    Ok(true)
}

fn unlink(cx: &mut Cx<'_>, entry: u64) -> std::result::Result<(), Stop> {
    let (next, prev) = (cx.r64(entry)?, cx.r64(entry + 8)?);
    cx.w64(prev, next)?;
    cx.w64(next + 8, prev)?;
    cx.w8(entry + 0x14, 0)
}

fn queue_remove(cx: &mut Cx<'_>, queue: u64) -> std::result::Result<u64, Stop> {
    let first = cx.r64(queue + 8)?;
    if first == queue + 8 {
        cx.w8(queue + 0x20, 0)?;
        return Ok(0);
    }
    unlink(cx, first)?;
    Ok(first)
}

crate::exports! {
    [2] fn IofCallDriver(cx, target: u64, at: u64) { io::call_driver(cx, target, at) }
    [2] fn IoCallDriver(cx, target: u64, at: u64) { io::call_driver(cx, target, at) }
    [2] fn IofCompleteRequest(cx, at: u64, _boost: u8) { io::complete(cx, at) }
    [2] fn IoCompleteRequest(cx, at: u64, _boost: u8) { io::complete(cx, at) }

    [2] fn IoAllocateIrp(cx, stacks: u8, _quota: u8) {
        let at = io::new_irp(cx, stacks)?;
        cx.k.io.built.insert(at, Built { owned: false, copy_back: None });
        ret(at)
    }
    [2] fn IoFreeIrp(cx, at: u64) {
        cx.k.io.built.remove(&at);
        io::free(cx, at)?;
        void()
    }
    [2] fn IoInitializeIrp(cx, at: u64, size: u16, stacks: u8) {
        if u64::from(size) < irp::SIZE + u64::from(stacks) * stack::SIZE {
            return Err(Stop::bug_check(0xC9, [0, at, 0, 0], "IoInitializeIrp: the packet is too small for its stack locations"));
        }
        io::init_irp(cx, at, stacks)?;
        void()
    }
    [2] fn IoReuseIrp(cx, at: u64, status: u32) {
        let stacks = cx.r8(at + irp::STACK_COUNT)?;
        io::init_irp(cx, at, stacks)?;
        cx.w32(at + irp::STATUS, status)?;
        void()
    }
    [15] fn IoSizeOfIrp(cx, stacks: u8) {
        let _ = &cx;
        ret(irp::SIZE + u64::from(stacks) * stack::SIZE)
    }
    [0] fn IoBuildDeviceIoControlRequest(
        cx, code: u32, target: u64, input: u64, input_len: u32, output: u64, output_len: u32, internal: u8, event: u64, iosb: u64,
    ) {
        let (at, here) = build(cx, target, if internal != 0 { 0xf } else { 0xe }, event, iosb)?;
        cx.w32(here + stack::PARAMS, output_len)?;
        cx.w32(here + stack::PARAMS + 8, input_len)?;
        cx.w32(here + stack::PARAMS + 0x10, code)?;
        match code & 3 {
            0 => {
                let size = input_len.max(output_len);
                if size > 0 {
                    let b = cx.k.pool.alloc(&mut cx.m.mem, u64::from(size), PoolKind::NonPaged, u32::from_le_bytes(*b"IoSB"))?;
                    if input_len > 0 {
                        let data = cx.bytes(input, input_len as usize)?;
                        cx.put(b, &data)?;
                    }
                    cx.w64(at + irp::SYSTEM_BUFFER, b)?;
                    cx.k.io.built.insert(at, Built { owned: true, copy_back: Some((b, output, u64::from(output_len))) });
                }
            }
            3 => {
                cx.w64(here + stack::PARAMS + 0x18, input)?;
                cx.w64(at + irp::USER_BUFFER, output)?;
            }
            _ => {
                if input_len > 0 {
                    let b = cx.k.pool.alloc(&mut cx.m.mem, u64::from(input_len), PoolKind::NonPaged, u32::from_le_bytes(*b"IoSB"))?;
                    let data = cx.bytes(input, input_len as usize)?;
                    cx.put(b, &data)?;
                    cx.w64(at + irp::SYSTEM_BUFFER, b)?;
                    cx.k.io.built.insert(at, Built { owned: true, copy_back: Some((b, 0, 0)) });
                }
                if output_len > 0 {
                    let mdl = super::mm::mdl_for(cx, output, output_len)?;
                    cx.w64(at + irp::MDL, mdl)?;
                }
            }
        }
        ret(at)
    }
    [0] fn IoBuildSynchronousFsdRequest(
        cx, major: u32, target: u64, buffer: u64, length: u32, offset: u64, event: u64, iosb: u64,
    ) {
        fsd(cx, major as u8, target, buffer, length, offset, event, iosb)
    }
    [1] fn IoBuildAsynchronousFsdRequest(cx, major: u32, target: u64, buffer: u64, length: u32, offset: u64, iosb: u64) {
        let r = fsd(cx, major as u8, target, buffer, length, offset, 0, iosb)?;
        if let Outcome::Ret(at) = r {
            // The driver frees this one itself, in its completion routine.
            cx.k.io.built.insert(at, Built { owned: false, copy_back: None });
        }
        Ok(r)
    }
    [2] fn IoForwardIrpSynchronously(cx, target: u64, at: u64) {
        // Copies the stack location down with a completion routine that signals an event, as the routine documents.
        let location = cx.r8(at + irp::CURRENT_LOCATION)?;
        if location <= 1 {
            return ret(0);
        }
        let here = cx.r64(at + irp::CURRENT_STACK)?;
        let copy = cx.bytes(here, stack::COMPLETION as usize)?;
        cx.put(here - stack::SIZE, &copy)?;
        let event = cx.k.pool.alloc(&mut cx.m.mem, 24, PoolKind::NonPaged, u32::from_le_bytes(*b"IoEv"))?;
        cx.put(event, &[0; 24])?;
        cx.w64(event + 8, event + 8)?;
        cx.w64(event + 16, event + 8)?;
        let routine = cx.k.modules.export_address("IopSynchronousCompletion").unwrap_or(0);
        cx.w64(here - stack::SIZE + stack::COMPLETION, routine)?;
        cx.w64(here - stack::SIZE + stack::CONTEXT, event)?;
        cx.w8(here - stack::SIZE + stack::CONTROL, SL_INVOKE_ALL)?;
        let then = Then::Io(IoThen::Forwarded(event));
        let outcome = io::call_driver(cx, target, at)?;
        // Whatever the drivers below do first (a completion routine, a wait), its value comes back to here.
        crate::system::after(cx, then);
        Ok(outcome)
    }
    /// Not a documented routine: the completion routine of IoForwardIrpSynchronously.
    [2] fn IopSynchronousCompletion(cx, _device: u64, _irp: u64, event: u64) {
        cx.w32(event + 4, 1)?;
        crate::sched::wake_waiters(cx, event)?;
        ret(u64::from(io::STATUS_MORE_PROCESSING_REQUIRED))
    }

    [2] fn IoAcquireCancelSpinLock(cx, out: u64) {
        if cx.k.io.cancel_lock.is_some() {
            return Ok(Outcome::Retry);
        }
        let old = cx.irql();
        cx.k.io.cancel_lock = Some(cx.cpu);
        cx.w8(out, old)?;
        cx.set_irql(2);
        void()
    }
    [2] fn IoReleaseCancelSpinLock(cx, old: u8) {
        cx.k.io.cancel_lock = None;
        cx.set_irql(old);
        void()
    }
    [2] fn IoCancelIrp(cx, at: u64) {
        let had = cx.r64(at + irp::CANCEL_ROUTINE)? != 0;
        io::cancel(cx, at, Then::RetValue(u64::from(had)))
    }

    [2] fn IoStartPacket(cx, target: u64, at: u64, key: u64, cancel: u64) {
        if cancel != 0 {
            cx.w64(at + irp::CANCEL_ROUTINE, cancel)?;
        }
        let key = if key == 0 { None } else { Some(cx.r32(key)?) };
        // The IRP's own Tail.Overlay.DeviceQueueEntry is the queue entry.
        if queue_insert(cx, target + device::QUEUE, at + 0x78, key)? {
            return void();
        }
        start_io(cx, target, at)
    }
    [2] fn IoStartNextPacket(cx, target: u64, _cancelable: u8) {
        cx.w64(target + device::CURRENT_IRP, 0)?;
        match queue_remove(cx, target + device::QUEUE)? {
            0 => void(),
            entry => start_io(cx, target, entry - 0x78),
        }
    }
    [2] fn KeInitializeDeviceQueue(cx, queue: u64) {
        cx.put(queue, &[0; 0x28])?;
        cx.w16(queue, 20)?;
        cx.w16(queue + 2, 0x28)?;
        cx.w64(queue + 8, queue + 8)?;
        cx.w64(queue + 16, queue + 8)?;
        void()
    }
    [2] fn KeInsertDeviceQueue(cx, queue: u64, entry: u64) {
        let queued = queue_insert(cx, queue, entry, None)?;
        ret(u64::from(queued))
    }
    [2] fn KeInsertByKeyDeviceQueue(cx, queue: u64, entry: u64, key: u32) {
        let queued = queue_insert(cx, queue, entry, Some(key))?;
        ret(u64::from(queued))
    }
    [2] fn KeRemoveDeviceQueue(cx, queue: u64) {
        let entry = queue_remove(cx, queue)?;
        ret(entry)
    }
    [2] fn KeRemoveEntryDeviceQueue(cx, _queue: u64, entry: u64) {
        let queued = cx.r8(entry + 0x14)? != 0;
        if queued {
            unlink(cx, entry)?;
        }
        ret(u64::from(queued))
    }

    [0] fn IoCsqInitialize(cx, csq: u64, insert: u64, remove: u64, peek: u64, acquire: u64, release: u64, complete: u64) {
        cx.put(csq, &[0; 0x40])?;
        cx.w32(csq, 1)?;
        for (i, f) in [insert, remove, peek, acquire, release, complete].into_iter().enumerate() {
            cx.w64(csq + 8 + 8 * i as u64, f)?;
        }
        void()
    }
    [2] fn IoCsqInsertIrp(cx, csq: u64, at: u64, context: u64) {
        IoThen::csq(cx, csq, at, context, io::CsqStep::Insert)
    }
    [2] fn IoCsqRemoveNextIrp(cx, csq: u64, peek: u64) {
        IoThen::csq(cx, csq, 0, peek, io::CsqStep::RemoveNext)
    }
    /// Not a documented routine: the cancel routine of cancel-safe queues.
    [2] fn IopCsqCancel(cx, _device: u64, at: u64) {
        let old = cx.r8(at + irp::CANCEL_IRQL)?;
        cx.k.io.cancel_lock = None;
        cx.set_irql(old);
        // Tail.Overlay.DriverContext[3] holds the queue.
        let csq = cx.r64(at + 0x90)?;
        IoThen::csq(cx, csq, at, 0, io::CsqStep::Cancel)
    }
}
