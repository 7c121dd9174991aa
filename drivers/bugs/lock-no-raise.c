/*
 * A lock of the driver's own, taken by the DPC and, at PASSIVE_LEVEL, by a thread: the DPC that interrupts the thread
 * spins for ever. Control code CONTROL_OF(0): take and give the lock.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    KDPC Dpc;
    volatile LONG Held;
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

static VOID Count(PDEV Dev)
{
    while (InterlockedExchange(&Dev->S.Held, 1) != 0)
        YieldProcessor();
    Dev->S.Count++;
    InterlockedExchange(&Dev->S.Held, 0);
}

static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    Count(dev);
}

static NTSTATUS Control(PDEV Dev, PIRP Irp, ULONG Code)
{
#ifdef FIXED
    KIRQL irql;
#endif

    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Code);
#ifdef FIXED
    KeRaiseIrql(DISPATCH_LEVEL, &irql);
#endif
    Count(Dev);
#ifdef FIXED
    KeLowerIrql(irql);
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PDEV Dev)
{
    NTSTATUS status;

    KeInitializeDpc(&Dev->S.Dpc, Deferred, Dev);
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
