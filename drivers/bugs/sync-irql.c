/*
 * Two interrupts of different IRQL share a lock, and SynchronizeIrql is each one's own (spec Z-02): the higher one
 * interrupts the lower one's routine on its processor, and waits for the lock that it holds.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

typedef struct _STATE {
    PKINTERRUPT Object[2];
    ULONG Count;
} STATE;

#include "frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PDEV dev = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    PulseWrite(dev->Registers, PULSE_STATUS, PulseRead(dev->Registers, PULSE_STATUS));
    dev->S.Count++;
    return TRUE;
}

static NTSTATUS Control(PDEV Dev, PIRP Irp, ULONG Code)
{
    UNREFERENCED_PARAMETER(Dev);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Code);
    return STATUS_INVALID_DEVICE_REQUEST;
}

static VOID Leave(PDEV Dev)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS disconnect;
    ULONG i;

    for (i = 0; i < 2; i++)
        if (Dev->S.Object[i] != NULL) {
            disconnect.Version = CONNECT_FULLY_SPECIFIED;
            disconnect.ConnectionContext.InterruptObject = Dev->S.Object[i];
            IoDisconnectInterruptEx(&disconnect);
            Dev->S.Object[i] = NULL;
        }
}

static NTSTATUS Start(PDEV Dev)
{
    PCM_PARTIAL_RESOURCE_LIST list = &Dev->Resources->List[0].PartialResourceList;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR from[2], at = list->PartialDescriptors;
    IO_CONNECT_INTERRUPT_PARAMETERS connect;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG i, n = 0;
    KIRQL highest;

    for (i = 0; i < list->Count && n < 2; i++, at++)
        if (at->Type == CmResourceTypeInterrupt)
            from[n++] = at;
    if (n < 2)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    highest = (KIRQL)max(from[0]->u.Interrupt.Level, from[1]->u.Interrupt.Level);
    for (i = 0; i < 2 && NT_SUCCESS(status); i++) {
        KIRQL own = (KIRQL)from[i]->u.Interrupt.Level;

        RtlZeroMemory(&connect, sizeof(connect));
        connect.Version = CONNECT_FULLY_SPECIFIED;
        connect.FullySpecified.PhysicalDeviceObject = Dev->Pdo;
        connect.FullySpecified.InterruptObject = &Dev->S.Object[i];
        connect.FullySpecified.ServiceRoutine = Isr;
        connect.FullySpecified.ServiceContext = Dev;
        connect.FullySpecified.SpinLock = &Dev->Lock;
#ifdef FIXED
        connect.FullySpecified.SynchronizeIrql = highest;
#else
        UNREFERENCED_PARAMETER(highest);
        connect.FullySpecified.SynchronizeIrql = own;
#endif
        connect.FullySpecified.FloatingSave = FALSE;
        connect.FullySpecified.ShareVector = FALSE;
        connect.FullySpecified.Vector = from[i]->u.Interrupt.Vector;
        connect.FullySpecified.Irql = own;
        connect.FullySpecified.InterruptMode = Latched;
        connect.FullySpecified.ProcessorEnableMask = from[i]->u.Interrupt.Affinity;
        status = IoConnectInterruptEx(&connect);
    }
    if (NT_SUCCESS(status))
        Enable(Dev, 3);
    else
        Leave(Dev);
    return status;
}

static VOID Stop(PDEV Dev)
{
    KeSynchronizeExecution(Dev->S.Object[0], QuietRoutine, Dev);
    Leave(Dev);
}
