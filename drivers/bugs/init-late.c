/*
 * What the interrupt routine writes to is allocated after the device is enabled (spec Z-13).
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    volatile ULONG *volatile Log;
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    Ack(dev, Message);
    dev->S.Log[0]++;
    return TRUE;
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
    NTSTATUS status = Connect(Dev, Isr, &Dev->Lock);

    if (!NT_SUCCESS(status))
        return status;
#ifndef FIXED
    Enable(Dev, 1);
#endif
    Dev->S.Log = NewPage();
    if (Dev->S.Log == NULL) {
        Hush(Dev);
        Disconnect(Dev);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
#ifdef FIXED
    Enable(Dev, 1);
#endif
    return status;
}

static VOID Stop(PDEV Dev)
{
    Hush(Dev);
    Disconnect(Dev);
    ExFreePoolWithTag((PVOID)Dev->S.Log, TAG);
}
