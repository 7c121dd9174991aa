/*
 * Two words under a version that a reader compares before and after, but the writer raises it only when it is done: a
 * reader in the middle of the write sees one version and half of each. Control code CONTROL_OF(0): read both.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    volatile ULONG Version; /* odd while the words change */
    volatile ULONG Low;
    volatile ULONG High; /* always ~Low */
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PDEV dev = Context;
    STATE *s = &dev->S;

    UNREFERENCED_PARAMETER(Interrupt);
    Ack(dev, Message);
#ifdef FIXED
    s->Version = s->Version + 1;
#endif
    s->Low = s->Low + 1;
    s->High = ~s->Low;
#ifdef FIXED
    s->Version = s->Version + 1;
#else
    s->Version = s->Version + 2;
#endif
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
    STATE *s = &Dev->S;
    ULONG tries;

    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Code);
    for (tries = 0; tries < 2; tries++) {
        ULONG version = s->Version;
        ULONG low = s->Low;
        ULONG high = s->High;

        if ((version & 1) == 0 && s->Version == version) {
            MUST(high == ~low, 2, low);
            return STATUS_SUCCESS;
        }
    }
    Sync(Dev, Read, s);
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
