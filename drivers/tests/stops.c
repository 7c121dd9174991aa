/*
 * stops: each control code IOCTL_OF(n) misuses an interrupt routine in one way that ends in a documented bug check.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "fdo.h"
#include "pulse.h"

typedef struct _STOPS {
    FDO Fdo;
    CM_PARTIAL_RESOURCE_DESCRIPTOR Line;
    KIRQL Level;
    PKINTERRUPT Interrupt;
} STOPS, *PSTOPS;

static const GUID StopsInterface = {0x2b9a4f31, 0x0c58, 0x47a6, {0xb2, 0x1d, 0x35, 0x77, 0x90, 0x1e, 0xc8, 0x4d}};

static BOOLEAN NTAPI OnLine(PKINTERRUPT Interrupt, PVOID Context)
{
    UNREFERENCED_PARAMETER(Interrupt);
    UNREFERENCED_PARAMETER(Context);
    return FALSE;
}

static BOOLEAN NTAPI Again(PVOID Context)
{
    return KeSynchronizeExecution(((PSTOPS)Context)->Interrupt, Again, Context);
}

static VOID Connect(PSTOPS Stops, BOOLEAN Passive)
{
    IO_CONNECT_INTERRUPT_PARAMETERS p;

    RtlZeroMemory(&p, sizeof(p));
    p.Version = CONNECT_FULLY_SPECIFIED;
    p.FullySpecified.PhysicalDeviceObject = Stops->Fdo.Pdo;
    p.FullySpecified.InterruptObject = &Stops->Interrupt;
    p.FullySpecified.ServiceRoutine = OnLine;
    p.FullySpecified.ServiceContext = Stops;
    p.FullySpecified.ShareVector = TRUE;
    p.FullySpecified.Vector = Stops->Line.u.Interrupt.Vector;
    p.FullySpecified.Irql = p.FullySpecified.SynchronizeIrql = Passive ? PASSIVE_LEVEL : Stops->Level;
    p.FullySpecified.InterruptMode = LevelSensitive;
    p.FullySpecified.ProcessorEnableMask = Stops->Line.u.Interrupt.Affinity;
    IoConnectInterruptEx(&p);
}

static VOID Disconnect(PSTOPS Stops, ULONG Version)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS p;

    RtlZeroMemory(&p, sizeof(p));
    p.Version = Version;
    p.ConnectionContext.InterruptObject = Stops->Interrupt;
    IoDisconnectInterruptEx(&p);
}

static NTSTATUS Init(PFDO Fdo)
{
    UNREFERENCED_PARAMETER(Fdo);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    PSTOPS stops = CONTAINING_RECORD(Fdo, STOPS, Fdo);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR line = FdoResource(Translated, CmResourceTypeInterrupt, 0);

    if (line == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    stops->Line = *line;
    stops->Level = (KIRQL)line->u.Interrupt.Level;
    return STATUS_SUCCESS;
}

static VOID Stop(PFDO Fdo)
{
    UNREFERENCED_PARAMETER(Fdo);
}

static NTSTATUS Control(PFDO Fdo, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PSTOPS stops = CONTAINING_RECORD(Fdo, STOPS, Fdo);
    KIRQL old;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_OF(0): /* connects above PASSIVE_LEVEL */
        KeRaiseIrql(DISPATCH_LEVEL, &old);
        Connect(stops, FALSE);
        break;
    case IOCTL_OF(1): /* disconnects with a version that there is none of */
        Connect(stops, FALSE);
        Disconnect(stops, 77);
        break;
    case IOCTL_OF(2): /* disconnects with another version than connect returned */
        Connect(stops, FALSE);
        Disconnect(stops, CONNECT_MESSAGE_BASED);
        break;
    case IOCTL_OF(3): /* disconnects above PASSIVE_LEVEL */
        Connect(stops, FALSE);
        KeRaiseIrql(DISPATCH_LEVEL, &old);
        Disconnect(stops, CONNECT_FULLY_SPECIFIED);
        break;
    case IOCTL_OF(4): /* takes the spin lock of a passive-level interrupt */
        Connect(stops, TRUE);
        KeAcquireInterruptSpinLock(stops->Interrupt);
        break;
    case IOCTL_OF(5): /* synchronises from above SynchronizeIrql */
        Connect(stops, FALSE);
        KeRaiseIrql(HIGH_LEVEL, &old);
        KeSynchronizeExecution(stops->Interrupt, Again, stops);
        break;
    case IOCTL_OF(6): /* synchronises twice over */
        Connect(stops, FALSE);
        KeSynchronizeExecution(stops->Interrupt, Again, stops);
        break;
    case IOCTL_OF(7): /* synchronises with an object that it has disconnected */
        Connect(stops, FALSE);
        Disconnect(stops, CONNECT_FULLY_SPECIFIED);
        KeSynchronizeExecution(stops->Interrupt, Again, stops);
        break;
    case IOCTL_OF(8): /* undoes the one routine's connection by the other */
        Connect(stops, FALSE);
        IoDisconnectInterrupt(stops->Interrupt);
        break;
    }
    return FdoComplete(Fdo, Irp, STATUS_SUCCESS, 0);
}

const DRIVER_CLASS Class = {
    .Name = L"Stops",
    .Interface = &StopsInterface,
    .ExtensionSize = sizeof(STOPS),
    .Init = Init,
    .Start = Start,
    .Stop = Stop,
    .Control = Control,
};
