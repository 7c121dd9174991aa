/*
 * While the DPC polls, the routine queues none. The DPC finds nothing left, then says that it polls no more: work that
 * came in between stays until the next interrupt (spec Z-11). Control code CONTROL_OF(n), n = 0 or 1: wait for source n.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    volatile LONG Work;
    volatile LONG Polling;
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
    InterlockedOr(&dev->S.Work, 1 << Message);
    if (InterlockedExchange(&dev->S.Polling, 1) == 0)
        KeInsertQueueDpc(&dev->S.Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEV dev = Context;
    ULONG i, work;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    do {
        while ((work = (ULONG)InterlockedExchange(&dev->S.Work, 0)) != 0)
            for (i = 0; i < 2; i++)
                if (work & 1u << i)
                    KeSetEvent(&dev->S.Came[i], IO_NO_INCREMENT, FALSE);
        InterlockedExchange(&dev->S.Polling, 0);
#ifdef FIXED
    } while (dev->S.Work != 0 && InterlockedExchange(&dev->S.Polling, 1) == 0);
#else
    } while (FALSE);
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
