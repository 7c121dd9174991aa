/*
 * Two words that the interrupt routine changes together, read by a thread without its lock: half old, half new.
 * Control code CONTROL_OF(0): read both.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    volatile ULONG Low;
    volatile ULONG High; /* always ~Low */
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    Ack(dev, Message);
    dev->S.Low = dev->S.Low + 1;
    dev->S.High = ~dev->S.Low;
    return TRUE;
}

static BOOLEAN NTAPI Read(PVOID Context)
{
    STATE *s = Context;
    ULONG low = s->Low;

    MUST(s->High == ~low, 1, low);
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
    NTSTATUS status;

    Dev->S.High = ~0u;
    status = Connect(Dev, Isr, &Dev->Lock);
    if (NT_SUCCESS(status))
        Enable(Dev, 1);
    return status;
}

static VOID Stop(PDEV Dev)
{
    Hush(Dev);
    Disconnect(Dev);
}
