/*
 * The reference count goes down in one step and is compared with zero in another: both holders see zero and free the
 * object twice. Control code CONTROL_OF(0): an operation that a thread and the DPC hold.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    KDPC Dpc;
    PVOID volatile Operation; /* the DPC's reference */
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    if (dev->Quiet)
        return TRUE;
    Ack(dev, Message);
    KeInsertQueueDpc(&dev->S.Dpc, NULL, NULL);
    return TRUE;
}

/* An operation is a page that begins with its reference count. */
static VOID Release(PVOID Operation)
{
    volatile LONG *references = Operation;

#ifdef FIXED
    if (InterlockedDecrement(references) == 0)
        ExFreePoolWithTag(Operation, TAG);
#else
    InterlockedDecrement(references);
    if (*references == 0)
        ExFreePoolWithTag(Operation, TAG);
#endif
}

static VOID ReleaseTheDpcs(PDEV Dev)
{
    PVOID operation = InterlockedExchangePointer(&Dev->S.Operation, NULL);

    if (operation != NULL)
        Release(operation);
}

static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    ReleaseTheDpcs(dev);
}

static NTSTATUS Control(PDEV Dev, PIRP Irp, ULONG Code)
{
    PVOID operation;

    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Code);
    if (Dev->S.Operation != NULL)
        return STATUS_DEVICE_BUSY;
    operation = NewPage();
    if (operation == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    *(LONG *)operation = 2;
    Dev->S.Operation = operation;
    PulseWrite(Dev->Registers, PULSE_RAISE, 1);
    Release(operation);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PDEV Dev)
{
    NTSTATUS status;

    KeInitializeDpc(&Dev->S.Dpc, Deferred, Dev);
    status = Connect(Dev, Isr, &Dev->Lock);
    if (NT_SUCCESS(status))
        Enable(Dev, 1);
    return status;
}

static VOID Stop(PDEV Dev)
{
    Hush(Dev);
    Disconnect(Dev);
    KeFlushQueuedDpcs();
    ReleaseTheDpcs(Dev); /* the interrupt never came */
}
