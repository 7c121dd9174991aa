/*
 * The device's ENABLE register is read, changed and written by a thread, and by the interrupt routine, which masks its own
 * source: one undoes the other. Control code CONTROL_OF(0): let source 1 interrupt as well.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    BOOLEAN Masked; /* the routine masked source 0 */
    BOOLEAN Armed;  /* the thread let source 1 in */
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    Ack(dev, Message);
    if (Message == 0) {
        Enable(dev, PulseRead(dev->Registers, PULSE_ENABLE) & ~1u);
        dev->S.Masked = TRUE;
    }
    return TRUE;
}

static BOOLEAN NTAPI ArmOne(PVOID Context)
{
    PDEV dev = Context;

    Enable(dev, PulseRead(dev->Registers, PULSE_ENABLE) | 2);
    return TRUE;
}

static BOOLEAN NTAPI Check(PVOID Context)
{
    PDEV dev = Context;
    ULONG enable = PulseRead(dev->Registers, PULSE_ENABLE);

    MUST(!dev->S.Masked || (enable & 1) == 0, 1, enable);
    MUST(!dev->S.Armed || (enable & 2) != 0, 2, enable);
    return TRUE;
}

static NTSTATUS Control(PDEV Dev, PIRP Irp, ULONG Code)
{
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Code);
#ifdef FIXED
    Sync(Dev, ArmOne, Dev);
#else
    ArmOne(Dev);
#endif
    Dev->S.Armed = TRUE;
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PDEV Dev)
{
    NTSTATUS status = Connect(Dev, Isr, &Dev->Lock);

    if (NT_SUCCESS(status))
        Enable(Dev, 1);
    return status;
}

static VOID Stop(PDEV Dev)
{
    Sync(Dev, Check, Dev);
    Hush(Dev);
    Disconnect(Dev);
}
