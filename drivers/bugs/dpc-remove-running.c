/*
 * KeRemoveQueueDpc tells that the DPC is not queued, not that it does not run (spec Z-30).
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    KDPC Dpc;
    volatile LONG *Page;
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

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    InterlockedIncrement(dev->S.Page);
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
    Dev->S.Page = NewPage();
    if (Dev->S.Page == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = Connect(Dev, Isr, &Dev->Lock);
    if (NT_SUCCESS(status))
        Enable(Dev, 1);
    else
        ExFreePoolWithTag((PVOID)Dev->S.Page, TAG);
    return status;
}

static VOID Stop(PDEV Dev)
{
    Hush(Dev);
    Disconnect(Dev);
    if (!KeRemoveQueueDpc(&Dev->S.Dpc)) {
#ifdef FIXED
        KeFlushQueuedDpcs(); /* it may be running */
#endif
    }
    ExFreePoolWithTag((PVOID)Dev->S.Page, TAG);
}
