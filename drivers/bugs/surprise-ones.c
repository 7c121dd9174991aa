/*
 * The device is taken away between its interrupt and the read of STATUS, which then gives all ones (spec Z-35): the
 * routine takes every source for pending, and most have nothing behind them.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    ULONG Count;
    PULONG Counters[32]; /* of the sources there are */
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PDEV dev = Context;
    ULONG i, status = PulseRead(dev->Registers, PULSE_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
#ifdef FIXED
    if (status == ~0u)
        return FALSE;
#endif
    if (status == 0)
        return FALSE;
    PulseWrite(dev->Registers, PULSE_STATUS, status);
    for (i = 0; i < 32; i++)
        if (status & 1u << i)
            (*dev->S.Counters[i])++;
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

    Dev->S.Counters[0] = &Dev->S.Count;
    status = ConnectLine(Dev, Isr);
    if (NT_SUCCESS(status))
        Enable(Dev, 1);
    return status;
}

static VOID Stop(PDEV Dev)
{
    Hush(Dev);
    Disconnect(Dev);
}
