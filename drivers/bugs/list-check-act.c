/*
 * Whether the list is empty is looked at outside its lock: the last entry is taken by two, and the second takes the list's
 * head for one and frees it. Message 0 adds an entry; message 1 and control code CONTROL_OF(0) take one.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    KDPC Add;
    KDPC Drop;
    KSPIN_LOCK ListLock;
    LIST_ENTRY List;
} STATE;

#include "frame.h"

typedef struct _ITEM {
    LIST_ENTRY Link;
} ITEM, *PITEM;

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    if (dev->Quiet)
        return TRUE;
    Ack(dev, Message);
    KeInsertQueueDpc(Message == 0 ? &dev->S.Add : &dev->S.Drop, NULL, NULL);
    return TRUE;
}

static VOID TakeOne(PDEV Dev)
{
    PLIST_ENTRY entry = NULL;
    KIRQL irql;

#ifndef FIXED
    if (IsListEmpty(&Dev->S.List))
        return;
#endif
    KeAcquireSpinLock(&Dev->S.ListLock, &irql);
#ifdef FIXED
    if (!IsListEmpty(&Dev->S.List))
#endif
        entry = RemoveHeadList(&Dev->S.List);
    KeReleaseSpinLock(&Dev->S.ListLock, irql);
    if (entry != NULL)
        ExFreePoolWithTag(CONTAINING_RECORD(entry, ITEM, Link), TAG);
}

static VOID NTAPI AddOne(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEV dev = Context;
    PITEM item = ExAllocatePoolWithTag(NonPagedPool, sizeof(ITEM), TAG);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    if (item == NULL)
        return;
    KeAcquireSpinLockAtDpcLevel(&dev->S.ListLock);
    InsertTailList(&dev->S.List, &item->Link);
    KeReleaseSpinLockFromDpcLevel(&dev->S.ListLock);
}

static VOID NTAPI DropOne(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    TakeOne(Context);
}

static NTSTATUS Control(PDEV Dev, PIRP Irp, ULONG Code)
{
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Code);
    TakeOne(Dev);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PDEV Dev)
{
    NTSTATUS status;

    KeInitializeDpc(&Dev->S.Add, AddOne, Dev);
    KeInitializeDpc(&Dev->S.Drop, DropOne, Dev);
    KeInitializeSpinLock(&Dev->S.ListLock);
    InitializeListHead(&Dev->S.List);
    status = Connect(Dev, Isr, &Dev->Lock);
    if (NT_SUCCESS(status))
        Enable(Dev, 3);
    return status;
}

static VOID Stop(PDEV Dev)
{
    Hush(Dev);
    Disconnect(Dev);
    KeFlushQueuedDpcs();
    while (!IsListEmpty(&Dev->S.List))
        TakeOne(Dev);
}
