/*
 * The buffer is freed once the device's ENABLE register is clear, but a message sent before is still on its way, or its
 * routine running on another processor. Control code CONTROL_OF(0): stop.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    volatile LONG *volatile Buffer;
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    Ack(dev, Message);
    if (dev->S.Buffer != NULL)
        InterlockedIncrement(dev->S.Buffer);
    return TRUE;
}

static BOOLEAN NTAPI Halt(PVOID Context)
{
    PDEV dev = Context;

    Enable(dev, 0);
    dev->S.Buffer = NULL;
    return TRUE;
}

static VOID StopDevice(PDEV Dev)
{
    volatile LONG *buffer = Dev->S.Buffer;

    if (buffer == NULL)
        return;
#ifdef FIXED
    Sync(Dev, Halt, Dev);
#else
    Halt(Dev);
#endif
    ExFreePoolWithTag((PVOID)buffer, TAG);
}

static NTSTATUS Control(PDEV Dev, PIRP Irp, ULONG Code)
{
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Code);
    StopDevice(Dev);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PDEV Dev)
{
    NTSTATUS status;

    Dev->S.Buffer = NewPage();
    if (Dev->S.Buffer == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = Connect(Dev, Isr, &Dev->Lock);
    if (NT_SUCCESS(status))
        Enable(Dev, 1);
    else
        ExFreePoolWithTag((PVOID)Dev->S.Buffer, TAG);
    return status;
}

static VOID Stop(PDEV Dev)
{
    StopDevice(Dev);
    Hush(Dev);
    Disconnect(Dev);
}
