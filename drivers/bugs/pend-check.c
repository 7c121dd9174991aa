/*
 * Whether the interrupt has come is looked at under the lock, the IRP is made waiting under it again: an interrupt in
 * between finds no IRP and the IRP waits for ever. Control code CONTROL_OF(0): wait for an interrupt.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    KDPC Dpc;
    KSPIN_LOCK IrpLock;
    PIRP Irp;
    BOOLEAN Came;
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    if (dev->Quiet)
        return TRUE;
    Ack(dev, Message);
    KeInsertQueueDpc(&dev->S.Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEV dev = Context;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&dev->S.IrpLock);
    irp = dev->S.Irp;
    dev->S.Irp = NULL;
    if (irp == NULL)
        dev->S.Came = TRUE;
    KeReleaseSpinLockFromDpcLevel(&dev->S.IrpLock);
    if (irp != NULL)
        Finish(irp, STATUS_SUCCESS);
}

static NTSTATUS Control(PDEV Dev, PIRP Irp, ULONG Code)
{
    KIRQL irql;

    UNREFERENCED_PARAMETER(Code);
    KeAcquireSpinLock(&Dev->S.IrpLock, &irql);
    if (Dev->S.Came) {
        Dev->S.Came = FALSE;
        KeReleaseSpinLock(&Dev->S.IrpLock, irql);
        return STATUS_SUCCESS;
    }
#ifndef FIXED
    KeReleaseSpinLock(&Dev->S.IrpLock, irql);
    KeAcquireSpinLock(&Dev->S.IrpLock, &irql);
#endif
    IoMarkIrpPending(Irp);
    Dev->S.Irp = Irp;
    KeReleaseSpinLock(&Dev->S.IrpLock, irql);
    return STATUS_PENDING;
}

static NTSTATUS Start(PDEV Dev)
{
    NTSTATUS status;

    KeInitializeDpc(&Dev->S.Dpc, Deferred, Dev);
    KeInitializeSpinLock(&Dev->S.IrpLock);
    status = Connect(Dev, Isr, &Dev->Lock);
    if (NT_SUCCESS(status))
        Enable(Dev, 1);
    return status;
}

static VOID Stop(PDEV Dev)
{
    Hush(Dev);
    Disconnect(Dev);
    KeFlushQueuedDpcs();
}
