/*
 * A worker thread looks at the stop flag and then uses the page; Stop sets the flag and frees the page without waiting for
 * the worker to have looked.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    KDPC Dpc;
    KEVENT Work;
    volatile BOOLEAN Stopping;
    volatile LONG *Page;
    PVOID Thread;
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

static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeSetEvent(&dev->S.Work, IO_NO_INCREMENT, FALSE);
}

static VOID NTAPI Worker(PVOID Context)
{
    PDEV dev = Context;

    for (;;) {
        WaitFor(&dev->S.Work);
        if (dev->S.Stopping)
            break;
        InterlockedIncrement(dev->S.Page);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID StopWorker(PDEV Dev)
{
    Dev->S.Stopping = TRUE;
    KeSetEvent(&Dev->S.Work, IO_NO_INCREMENT, FALSE);
#ifndef FIXED
    ExFreePoolWithTag((PVOID)Dev->S.Page, TAG);
#endif
    KeWaitForSingleObject(Dev->S.Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Dev->S.Thread);
#ifdef FIXED
    ExFreePoolWithTag((PVOID)Dev->S.Page, TAG);
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
    HANDLE handle;
    NTSTATUS status;

    KeInitializeDpc(&Dev->S.Dpc, Deferred, Dev);
    KeInitializeEvent(&Dev->S.Work, SynchronizationEvent, FALSE);
    Dev->S.Stopping = FALSE;
    Dev->S.Page = NewPage();
    if (Dev->S.Page == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, Worker, Dev);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag((PVOID)Dev->S.Page, TAG);
        return status;
    }
    /* Of a handle that was just made, in the system process: it can't fail. */
    ObReferenceObjectByHandle(handle, THREAD_ALL_ACCESS, NULL, KernelMode, &Dev->S.Thread, NULL);
    ZwClose(handle);
    status = Connect(Dev, Isr, &Dev->Lock);
    if (NT_SUCCESS(status))
        Enable(Dev, 1);
    else
        StopWorker(Dev);
    return status;
}

static VOID Stop(PDEV Dev)
{
    Hush(Dev);
    Disconnect(Dev);
    KeFlushQueuedDpcs();
    StopWorker(Dev);
}
