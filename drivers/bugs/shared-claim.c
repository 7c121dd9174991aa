/*
 * On a shared line the routine claims an interrupt because it expects one, not because its device's STATUS says so
 * (spec Z-06): it takes the other device's, and declines its own afterwards. Control code CONTROL_OF(0): raise and wait.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    KDPC Dpc;
    KEVENT Came;
    volatile LONG Expecting;
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PDEV dev = Context;
    BOOLEAN mine;

    UNREFERENCED_PARAMETER(Interrupt);
    if (dev->Quiet)
        return FALSE;
#ifdef FIXED
    mine = (PulseRead(dev->Registers, PULSE_STATUS) & 1) != 0;
#else
    mine = InterlockedExchange(&dev->S.Expecting, 0) != 0;
#endif
    if (!mine)
        return FALSE;
    Ack(dev, 0);
    KeInsertQueueDpc(&dev->S.Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeSetEvent(&dev->S.Came, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS Control(PDEV Dev, PIRP Irp, ULONG Code)
{
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Code);
    InterlockedExchange(&Dev->S.Expecting, 1);
    PulseWrite(Dev->Registers, PULSE_RAISE, 1);
    WaitFor(&Dev->S.Came);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PDEV Dev)
{
    NTSTATUS status;

    KeInitializeDpc(&Dev->S.Dpc, Deferred, Dev);
    KeInitializeEvent(&Dev->S.Came, SynchronizationEvent, FALSE);
    status = ConnectLine(Dev, Isr);
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
