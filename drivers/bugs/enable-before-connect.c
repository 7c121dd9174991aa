/*
 * The device is enabled before its routine is connected to a line that another device shares already (spec Z-12): when
 * it interrupts in between, nobody on the line takes the interrupt, and the line stays up.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    ULONG Taken;
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    if ((PulseRead(dev->Registers, PULSE_STATUS) & PulseRead(dev->Registers, PULSE_ENABLE) & 1) == 0)
        return FALSE;
    Ack(dev, 0);
    dev->S.Taken++;
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

#ifndef FIXED
    Enable(Dev, 1);
#endif
    status = ConnectLine(Dev, Isr);
#ifdef FIXED
    if (NT_SUCCESS(status))
        Enable(Dev, 1);
#endif
    return status;
}

static VOID Stop(PDEV Dev)
{
    Hush(Dev);
    Disconnect(Dev);
}
