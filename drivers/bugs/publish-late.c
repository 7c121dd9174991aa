/*
 * The device may interrupt before the message table's pointer is where the interrupt routine looks for it (spec Z-40).
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    PIO_INTERRUPT_MESSAGE_INFO volatile Table;
    ULONG Lowest; /* of the levels the routines were called at */
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    Ack(dev, Message);
    dev->S.Lowest = min(dev->S.Lowest, dev->S.Table->MessageInfo[Message].Irql);
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
    NTSTATUS status;

    Dev->S.Lowest = ~0u;
    status = Connect(Dev, Isr, &Dev->Lock);
    if (!NT_SUCCESS(status))
        return status;
#ifdef FIXED
    Dev->S.Table = Dev->Connection.Messages;
    Enable(Dev, 1);
#else
    Enable(Dev, 1);
    Dev->S.Table = Dev->Connection.Messages;
#endif
    return status;
}

static VOID Stop(PDEV Dev)
{
    Hush(Dev);
    Disconnect(Dev);
}
