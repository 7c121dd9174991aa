/*
 * A count that the routines of two messages raise, each under its message's own lock (spec Z-23): they run on two
 * processors at once, and an update is lost.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    volatile LONG Total;
    LONG Of[2]; /* each message's own */
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    Ack(dev, Message);
    dev->S.Of[Message & 1]++;
    dev->S.Total = dev->S.Total + 1;
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

#ifdef FIXED
    status = Connect(Dev, Isr, &Dev->Lock);
#else
    status = Connect(Dev, Isr, NULL);
#endif
    if (NT_SUCCESS(status))
        Enable(Dev, 3);
    return status;
}

static VOID Stop(PDEV Dev)
{
    Hush(Dev);
    Disconnect(Dev);
    MUST(Dev->S.Total == Dev->S.Of[0] + Dev->S.Of[1], 1, Dev->S.Total);
}
