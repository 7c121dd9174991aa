/*
 * The interrupt routine moves the ring's head before the entry is in: a thread on another processor reads an entry that is
 * not there yet. Control code CONTROL_OF(0): take what is in.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

#define ENTRIES 8

typedef struct _STATE {
    volatile ULONG Head; /* written by the interrupt routine only */
    volatile ULONG Ring[ENTRIES];
    ULONG Tail; /* the thread's own */
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PDEV dev = Context;
    ULONG head = dev->S.Head;

    UNREFERENCED_PARAMETER(Interrupt);
    Ack(dev, Message);
    if (head == ENTRIES)
        return TRUE; /* full: this ring is used once */
#ifdef FIXED
    dev->S.Ring[head] = head + 1;
    dev->S.Head = head + 1;
#else
    dev->S.Head = head + 1;
    dev->S.Ring[head] = head + 1;
#endif
    return TRUE;
}

static NTSTATUS Control(PDEV Dev, PIRP Irp, ULONG Code)
{
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Code);
    while (Dev->S.Tail != Dev->S.Head) {
        ULONG entry = Dev->S.Ring[Dev->S.Tail];

        Dev->S.Tail++;
        MUST(entry == Dev->S.Tail, 1, entry);
    }
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
