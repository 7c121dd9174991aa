/*
 * The device goes to D3 while the DPC is pending: the DPC reads STATUS as all ones, takes every source for pending, and
 * most have nothing behind them (spec Z-34).
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

#define POWER

typedef struct _STATE {
    KDPC Dpc;
    ULONG Count;
    PULONG Counters[32]; /* of the sources there are */
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    UNREFERENCED_PARAMETER(Message);
    if (dev->Quiet)
        return TRUE; /* STATUS keeps it */
    Enable(dev, 0);
    KeInsertQueueDpc(&dev->S.Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI Rearm(PVOID Context)
{
    PDEV dev = Context;

    if (!dev->Quiet)
        Enable(dev, 1);
    return TRUE;
}

static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEV dev = Context;
    ULONG i, status = PulseRead(dev->Registers, PULSE_STATUS);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    PulseWrite(dev->Registers, PULSE_STATUS, status);
    for (i = 0; i < 32; i++)
        if (status & 1u << i)
            (*dev->S.Counters[i])++;
    Sync(dev, Rearm, dev);
}

static BOOLEAN NTAPI Unhush(PVOID Context)
{
    PDEV dev = Context;

    dev->Quiet = FALSE;
    Enable(dev, 1);
    return TRUE;
}

static VOID Power(PDEV Dev, BOOLEAN On)
{
    if (On) {
        Sync(Dev, Unhush, Dev);
        return;
    }
    Hush(Dev);
#ifdef FIXED
    KeFlushQueuedDpcs();
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
    Dev->S.Counters[0] = &Dev->S.Count;
    status = Connect(Dev, Isr, &Dev->Lock);
    if (NT_SUCCESS(status))
        Enable(Dev, 1);
    return status;
}

static VOID Stop(PDEV Dev)
{
    Hush(Dev);
    /* Before the disconnect: the DPC uses the interrupt object. No routine queues it any more. */
    KeFlushQueuedDpcs();
    Disconnect(Dev);
}
