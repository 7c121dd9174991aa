/*
 * The DPC empties the queue under a spin lock that the interrupt routine does not take (spec Z-29): an entry put in while
 * it takes one out is lost.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

#define ITEMS 8

typedef struct _STATE {
    KDPC Dpc;
    KSPIN_LOCK QueueLock;
    LIST_ENTRY Queue;
    LIST_ENTRY Items[ITEMS];
    ULONG In;
    ULONG Out;
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    if (dev->Quiet)
        return TRUE;
    Ack(dev, Message);
    if (dev->S.In < ITEMS) {
        InsertTailList(&dev->S.Queue, &dev->S.Items[dev->S.In]);
        dev->S.In++;
    }
    KeInsertQueueDpc(&dev->S.Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI Drain(PVOID Context)
{
    PDEV dev = Context;

    while (!IsListEmpty(&dev->S.Queue)) {
        RemoveHeadList(&dev->S.Queue);
        dev->S.Out++;
    }
    return TRUE;
}

static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
#ifdef FIXED
    Sync(dev, Drain, dev);
#else
    KeAcquireSpinLockAtDpcLevel(&dev->S.QueueLock);
    Drain(dev);
    KeReleaseSpinLockFromDpcLevel(&dev->S.QueueLock);
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
    KeInitializeSpinLock(&Dev->S.QueueLock);
    InitializeListHead(&Dev->S.Queue);
    status = Connect(Dev, Isr, &Dev->Lock);
    if (NT_SUCCESS(status))
        Enable(Dev, 3);
    return status;
}

static VOID Stop(PDEV Dev)
{
    Hush(Dev);
    /* Before the disconnect: the DPC uses the interrupt object. No routine queues it any more. */
    KeFlushQueuedDpcs();
    Disconnect(Dev);
    MUST(Dev->S.In == Dev->S.Out, 1, Dev->S.Out);
}
