/*
 * The event is cleared after the device was armed: when the device is quick, its wake-up is cleared with it.
 * Control code CONTROL_OF(0): arm the device and wait for it.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    KDPC Dpc;
    KEVENT Came;
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
    KeSetEvent(&dev->S.Came, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS Control(PDEV Dev, PIRP Irp, ULONG Code)
{
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Code);
#ifdef FIXED
    KeClearEvent(&Dev->S.Came);
    Enable(Dev, 1);
#else
    Enable(Dev, 1);
    KeClearEvent(&Dev->S.Came);
#endif
    WaitFor(&Dev->S.Came);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PDEV Dev)
{
    KeInitializeDpc(&Dev->S.Dpc, Deferred, Dev);
    KeInitializeEvent(&Dev->S.Came, NotificationEvent, FALSE);
    return Connect(Dev, Isr, &Dev->Lock);
}

static VOID Stop(PDEV Dev)
{
    Hush(Dev);
    Disconnect(Dev);
    KeFlushQueuedDpcs();
}
