/*
 * A count that the interrupt routine raises and a thread lowers, without KeSynchronizeExecution: a lost update.
 * Control code CONTROL_OF(0): take one.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    volatile LONG Pending;
    LONG Raised; /* the interrupt routine's own */
    LONG Taken;  /* the thread's own */
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    Ack(dev, Message);
    dev->S.Raised++;
    dev->S.Pending = dev->S.Pending + 1;
    return TRUE;
}

static BOOLEAN NTAPI Take(PVOID Context)
{
    STATE *s = Context;

    s->Pending = s->Pending - 1;
    return TRUE;
}

static NTSTATUS Control(PDEV Dev, PIRP Irp, ULONG Code)
{
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Code);
#ifdef FIXED
    Sync(Dev, Take, &Dev->S);
#else
    Take(&Dev->S);
#endif
    Dev->S.Taken++;
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
    MUST(Dev->S.Pending == Dev->S.Raised - Dev->S.Taken, 1, Dev->S.Pending);
}
