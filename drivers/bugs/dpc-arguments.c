/*
 * The message goes to the DPC by its argument, and is dropped when the DPC is queued already (spec Z-26).
 * Control code CONTROL_OF(n), n = 0 or 1: wait for source n.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    volatile LONG Causes;
    KDPC Dpc;
    KEVENT Came[2];
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    if (dev->Quiet)
        return TRUE;
    Ack(dev, Message);
#ifdef FIXED
    InterlockedOr(&dev->S.Causes, 1 << Message);
    KeInsertQueueDpc(&dev->S.Dpc, NULL, NULL);
#else
    KeInsertQueueDpc(&dev->S.Dpc, (PVOID)(ULONG_PTR)Message, NULL);
#endif
    return TRUE;
}

static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument2);
#ifdef FIXED
    ULONG i, causes = (ULONG)InterlockedExchange(&dev->S.Causes, 0);

    UNREFERENCED_PARAMETER(Argument1);
    for (i = 0; i < 2; i++)
        if (causes & 1u << i)
            KeSetEvent(&dev->S.Came[i], IO_NO_INCREMENT, FALSE);
#else
    KeSetEvent(&dev->S.Came[(ULONG_PTR)Argument1 & 1], IO_NO_INCREMENT, FALSE);
#endif
}

static NTSTATUS Control(PDEV Dev, PIRP Irp, ULONG Code)
{
    UNREFERENCED_PARAMETER(Irp);
    WaitFor(&Dev->S.Came[Code == CONTROL_OF(1)]);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PDEV Dev)
{
    NTSTATUS status;

    KeInitializeDpc(&Dev->S.Dpc, Deferred, Dev);
    KeInitializeEvent(&Dev->S.Came[0], SynchronizationEvent, FALSE);
    KeInitializeEvent(&Dev->S.Came[1], SynchronizationEvent, FALSE);
    status = Connect(Dev, Isr, &Dev->Lock);
    if (NT_SUCCESS(status))
        Enable(Dev, 3);
    return status;
}

static VOID Stop(PDEV Dev)
{
    Hush(Dev);
    Disconnect(Dev);
    KeFlushQueuedDpcs();
}
