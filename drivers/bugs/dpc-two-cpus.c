/*
 * The same DPC runs on two processors at once when it is queued again while it runs (spec Z-25): its count loses an update.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    KDPC Dpc;
    KSPIN_LOCK DpcLock;
    volatile LONG Fresh;  /* interrupts that no DPC has counted */
    volatile LONG Total;  /* counted by the DPC */
    LONG Taken;           /* by the interrupt routine */
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    if (dev->Quiet)
        return TRUE;
    Ack(dev, Message);
    dev->S.Taken++;
    InterlockedIncrement(&dev->S.Fresh);
    KeInsertQueueDpc(&dev->S.Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEV dev = Context;
    LONG fresh = InterlockedExchange(&dev->S.Fresh, 0);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&dev->S.DpcLock);
#endif
    dev->S.Total = dev->S.Total + fresh;
#ifdef FIXED
    KeReleaseSpinLockFromDpcLevel(&dev->S.DpcLock);
#endif
}

static NTSTATUS Control(PDEV Dev, PIRP Irp, ULONG Code)
{
    UNREFERENCED_PARAMETER(Dev);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Code);
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS Start(PDEV Dev)
{
    NTSTATUS status;

    KeInitializeDpc(&Dev->S.Dpc, Deferred, Dev);
    KeInitializeSpinLock(&Dev->S.DpcLock);
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
    MUST(Dev->S.Total == Dev->S.Taken, 1, Dev->S.Total);
}
