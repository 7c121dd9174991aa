/*
 * The DPC completes the waiting IRP without asking IoSetCancelRoutine whether the cancel routine has it already: it is
 * completed twice. Control code CONTROL_OF(0): wait for an interrupt.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    KDPC Dpc;
    KSPIN_LOCK IrpLock;
    PIRP Irp;
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
#ifdef FIXED
    if (irp != NULL && IoSetCancelRoutine(irp, NULL) == NULL)
        irp = NULL; /* the cancel routine has begun and completes it */
    else
        dev->S.Irp = NULL;
#else
    if (irp != NULL)
        IoSetCancelRoutine(irp, NULL);
    dev->S.Irp = NULL;
#endif
    KeReleaseSpinLockFromDpcLevel(&dev->S.IrpLock);
    if (irp != NULL)
        Finish(irp, STATUS_SUCCESS);
}

static VOID NTAPI Cancelled(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV dev = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&dev->S.IrpLock, &irql);
    if (dev->S.Irp == Irp)
        dev->S.Irp = NULL;
    KeReleaseSpinLock(&dev->S.IrpLock, irql);
    Finish(Irp, STATUS_CANCELLED);
}

static NTSTATUS Control(PDEV Dev, PIRP Irp, ULONG Code)
{
    KIRQL irql;
    BOOLEAN late;

    UNREFERENCED_PARAMETER(Code);
    KeAcquireSpinLock(&Dev->S.IrpLock, &irql);
    if (Dev->S.Irp != NULL) {
        KeReleaseSpinLock(&Dev->S.IrpLock, irql);
        return STATUS_DEVICE_BUSY;
    }
    IoMarkIrpPending(Irp);
    Dev->S.Irp = Irp;
    IoSetCancelRoutine(Irp, Cancelled);
    /* Cancelled before the routine was there: take it back, unless the routine has it. */
    late = Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL;
    if (late)
        Dev->S.Irp = NULL;
    KeReleaseSpinLock(&Dev->S.IrpLock, irql);
    if (late)
        Finish(Irp, STATUS_CANCELLED);
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
