/*
 * Two words read high, low, high, and taken when both highs agree, as for a hardware clock. But High comes back to its
 * old value after two interrupts: one between the first two reads and one between the last two pass unseen.
 * Control code CONTROL_OF(0): read both.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    volatile ULONG High; /* always Low & 1 */
    volatile ULONG Low;
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PDEV dev = Context;
    ULONG low = dev->S.Low + 1;

    UNREFERENCED_PARAMETER(Interrupt);
    Ack(dev, Message);
    dev->S.High = low & 1;
    dev->S.Low = low;
    return TRUE;
}

static BOOLEAN NTAPI Read(PVOID Context)
{
    STATE *s = Context;
    ULONG high, low;

    do {
        high = s->High;
        low = s->Low;
    } while (s->High != high);
    MUST((low & 1) == high, 1, low);
    return TRUE;
}

static NTSTATUS Control(PDEV Dev, PIRP Irp, ULONG Code)
{
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Code);
#ifdef FIXED
    Sync(Dev, Read, &Dev->S);
#else
    Read(&Dev->S);
#endif
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
    Hush(Dev);
    Disconnect(Dev);
}
