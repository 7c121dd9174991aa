/*
 * KeSynchronizeExecution with message 0's interrupt object, for data that message 1's routine writes (spec Z-24).
 * Control code CONTROL_OF(0): read both halves.
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
    if (Message == 1) {
        dev->S.Low = dev->S.Low + 1;
        dev->S.High = ~dev->S.Low;
    }
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
    KeSynchronizeExecution(ObjectOf(Dev, 1), Read, &Dev->S);
#else
    KeSynchronizeExecution(ObjectOf(Dev, 0), Read, &Dev->S);
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PDEV Dev)
{
    NTSTATUS status;

    Dev->S.High = ~0u;
    status = Connect(Dev, Isr, NULL);
    if (NT_SUCCESS(status))
        Enable(Dev, 3);
    return status;
}

static VOID Stop(PDEV Dev)
{
    Hush(Dev);
    Disconnect(Dev);
}
