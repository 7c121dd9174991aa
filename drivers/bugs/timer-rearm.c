/*
 * The timer's DPC looks at the stop flag and arms the timer again, not under the lock of the flag: the timer armed after the
 * cancel expires when its memory is gone (spec Z-17).
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    KDPC Dpc;
    KDPC TimerDpc;
    KTIMER Timer;
    volatile LONG *Page;
    KSPIN_LOCK StopLock;
    volatile BOOLEAN Stopping; /* written under StopLock */
    LONG Left;
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

static VOID Arm(PDEV Dev)
{
    LARGE_INTEGER due;

    due.QuadPart = -10; /* 1 us */
    KeSetTimer(&Dev->S.Timer, due, &Dev->S.TimerDpc);
}

static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    Arm(dev);
}

static VOID NTAPI Expired(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    InterlockedIncrement(dev->S.Page);
#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&dev->S.StopLock);
#endif
    if (!dev->S.Stopping && dev->S.Left-- > 0)
        Arm(dev);
#ifdef FIXED
    KeReleaseSpinLockFromDpcLevel(&dev->S.StopLock);
#endif
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

    KeInitializeDpc(&Dev->S.Dpc, Deferred, Dev);
    KeInitializeDpc(&Dev->S.TimerDpc, Expired, Dev);
    KeInitializeTimer(&Dev->S.Timer);
    KeInitializeSpinLock(&Dev->S.StopLock);
    Dev->S.Left = 2;
    Dev->S.Page = NewPage();
    if (Dev->S.Page == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = Connect(Dev, Isr, &Dev->Lock);
    if (NT_SUCCESS(status))
        Enable(Dev, 1);
    else
        ExFreePoolWithTag((PVOID)Dev->S.Page, TAG);
    return status;
}

static VOID Stop(PDEV Dev)
{
    KIRQL irql;

    Hush(Dev);
    Disconnect(Dev);
    KeFlushQueuedDpcs(); /* nothing else arms the timer from here on */
    KeAcquireSpinLock(&Dev->S.StopLock, &irql);
    Dev->S.Stopping = TRUE;
    KeReleaseSpinLock(&Dev->S.StopLock, irql);
    KeCancelTimer(&Dev->S.Timer);
    KeFlushQueuedDpcs();
    ExFreePoolWithTag((PVOID)Dev->S.Page, TAG);
}
