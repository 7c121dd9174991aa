/*
 * The DPC takes First, then Second; a thread takes Second, then First, on another processor: each waits for the other.
 * Control code CONTROL_OF(0): take both.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    KDPC Dpc;
    KSPIN_LOCK First;
    KSPIN_LOCK Second;
    ULONG Count;
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

static VOID Both(PDEV Dev, PKSPIN_LOCK Outer, PKSPIN_LOCK Inner)
{
    KIRQL irql;

    KeAcquireSpinLock(Outer, &irql);
    KeAcquireSpinLockAtDpcLevel(Inner);
    Dev->S.Count++;
    KeReleaseSpinLockFromDpcLevel(Inner);
    KeReleaseSpinLock(Outer, irql);
}

static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    Both(dev, &dev->S.First, &dev->S.Second);
}

static NTSTATUS Control(PDEV Dev, PIRP Irp, ULONG Code)
{
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Code);
#ifdef FIXED
    Both(Dev, &Dev->S.First, &Dev->S.Second);
#else
    Both(Dev, &Dev->S.Second, &Dev->S.First);
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PDEV Dev)
{
    NTSTATUS status;

    KeInitializeDpc(&Dev->S.Dpc, Deferred, Dev);
    KeInitializeSpinLock(&Dev->S.First);
    KeInitializeSpinLock(&Dev->S.Second);
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
