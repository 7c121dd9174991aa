/*
 * shared: several pulse devices on one level-triggered line.
 *
 * Connects CONNECT_FULLY_SPECIFIED with what the translated line descriptor says, ShareVector included. The interrupt
 * routine must tell whether its own device asserts the line: it returns FALSE otherwise, so that the next one is asked.
 *
 * Control codes (all numbers ULONG, little-endian):
 *   IOCTL_OF(0) RAISE   in: source                  sets the source's STATUS bit and returns once it is taken
 *   IOCTL_OF(1) CLAIMS  out: claimed                interrupts that were this device's
 *   IOCTL_OF(2) ASKED   out: whether the routine was called at least as often as it claimed (1), and shared (1) or not
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "fdo.h"
#include "pulse.h"

static const GUID SharedInterface = {0x0f6a3c52, 0x7a52, 0x4a0e, {0xb0, 0x55, 0x3d, 0x17, 0xe9, 0x40, 0x5b, 0x02}};

typedef struct _SHARED {
    FDO Fdo;
    PUCHAR Registers;
    ULONG Length;
    ULONG Sources;
    PKINTERRUPT Interrupt;
    BOOLEAN ShareVector;
    KEVENT Taken; /* set by the DPC */
    KDPC Dpc;

    /* Under the interrupt object's lock. */
    ULONG Asked;
    ULONG Claimed;
} SHARED, *PSHARED;

typedef struct _TALLY {
    PSHARED Shared;
    ULONG Asked;
    ULONG Claimed;
} TALLY, *PTALLY;

static BOOLEAN NTAPI OnLine(PKINTERRUPT Interrupt, PVOID Context)
{
    PSHARED shared = Context;
    ULONG status = PulseRead(shared->Registers, PULSE_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    shared->Asked++;
    if (status == ~0u || (status & PulseRead(shared->Registers, PULSE_ENABLE)) == 0)
        return FALSE; /* another device's, or ours is gone */
    PulseWrite(shared->Registers, PULSE_STATUS, status);
    shared->Claimed++;
    KeInsertQueueDpc(&shared->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI SharedDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PSHARED shared = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeSetEvent(&shared->Taken, IO_NO_INCREMENT, FALSE);
}

static BOOLEAN NTAPI TakeTally(PVOID Context)
{
    PTALLY tally = Context;

    tally->Asked = tally->Shared->Asked;
    tally->Claimed = tally->Shared->Claimed;
    return TRUE;
}

static BOOLEAN NTAPI SetEnable(PSHARED Shared, ULONG Mask)
{
    PulseWrite(Shared->Registers, PULSE_ENABLE, Mask);
    (VOID)PulseRead(Shared->Registers, PULSE_ENABLE);
    return TRUE;
}

static BOOLEAN NTAPI Enable(PVOID Context)
{
    return SetEnable(Context, ~0u);
}

static BOOLEAN NTAPI Disable(PVOID Context)
{
    return SetEnable(Context, 0);
}

static NTSTATUS SharedInit(PFDO Fdo)
{
    PSHARED shared = CONTAINING_RECORD(Fdo, SHARED, Fdo);

    KeInitializeEvent(&shared->Taken, SynchronizationEvent, FALSE);
    KeInitializeDpc(&shared->Dpc, SharedDpc, shared);
    return STATUS_SUCCESS;
}

static NTSTATUS SharedStart(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    PSHARED shared = CONTAINING_RECORD(Fdo, SHARED, Fdo);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR line = FdoResource(Translated, CmResourceTypeInterrupt, 0);
    IO_CONNECT_INTERRUPT_PARAMETERS connect;
    NTSTATUS status;

    if (line == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    shared->Registers = FdoMapRegisters(Translated, PULSE_LENGTH, &shared->Length);
    if (shared->Registers == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    shared->Sources = PulseRead(shared->Registers, PULSE_SOURCES);
    shared->ShareVector = line->ShareDisposition == CmResourceShareShared;

    RtlZeroMemory(&connect, sizeof(connect));
    connect.Version = CONNECT_FULLY_SPECIFIED;
    connect.FullySpecified.PhysicalDeviceObject = Fdo->Pdo;
    connect.FullySpecified.InterruptObject = &shared->Interrupt;
    connect.FullySpecified.ServiceRoutine = OnLine;
    connect.FullySpecified.ServiceContext = shared;
    connect.FullySpecified.SynchronizeIrql = (KIRQL)line->u.Interrupt.Level;
    connect.FullySpecified.Irql = (KIRQL)line->u.Interrupt.Level;
    connect.FullySpecified.Vector = line->u.Interrupt.Vector;
    connect.FullySpecified.ProcessorEnableMask = line->u.Interrupt.Affinity;
    connect.FullySpecified.InterruptMode = line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive;
    connect.FullySpecified.ShareVector = shared->ShareVector;
    status = IoConnectInterruptEx(&connect);
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(shared->Registers, shared->Length);
        return status;
    }
    KeSynchronizeExecution(shared->Interrupt, Enable, shared);
    return STATUS_SUCCESS;
}

static VOID SharedStop(PFDO Fdo)
{
    PSHARED shared = CONTAINING_RECORD(Fdo, SHARED, Fdo);
    IO_DISCONNECT_INTERRUPT_PARAMETERS disconnect;

    if (!Fdo->Gone)
        KeSynchronizeExecution(shared->Interrupt, Disable, shared);
    disconnect.Version = CONNECT_FULLY_SPECIFIED;
    disconnect.ConnectionContext.InterruptObject = shared->Interrupt;
    IoDisconnectInterruptEx(&disconnect);
    KeRemoveQueueDpc(&shared->Dpc);
    KeFlushQueuedDpcs();
    shared->Interrupt = NULL;
    MmUnmapIoSpace(shared->Registers, shared->Length);
}

static VOID SharedPower(PFDO Fdo, BOOLEAN On)
{
    PSHARED shared = CONTAINING_RECORD(Fdo, SHARED, Fdo);

    KeSynchronizeExecution(shared->Interrupt, On ? Enable : Disable, shared);
}

static NTSTATUS SharedControl(PFDO Fdo, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PSHARED shared = CONTAINING_RECORD(Fdo, SHARED, Fdo);
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    TALLY tally;
    LARGE_INTEGER limit;

    tally.Shared = shared;
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_OF(0):
        if (in < sizeof(ULONG) || *buffer >= shared->Sources)
            return FdoComplete(Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
        KeClearEvent(&shared->Taken);
        PulseWrite(shared->Registers, PULSE_RAISE, 1u << *buffer);
        limit.QuadPart = -1000000; /* 100 ms, relative */
        if (KeWaitForSingleObject(&shared->Taken, Executive, KernelMode, FALSE, &limit) == STATUS_TIMEOUT)
            return FdoComplete(Fdo, Irp, STATUS_IO_TIMEOUT, 0);
        return FdoComplete(Fdo, Irp, STATUS_SUCCESS, 0);

    case IOCTL_OF(1):
        if (out < sizeof(ULONG))
            return FdoComplete(Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeSynchronizeExecution(shared->Interrupt, TakeTally, &tally);
        *buffer = tally.Claimed;
        return FdoComplete(Fdo, Irp, STATUS_SUCCESS, sizeof(ULONG));

    case IOCTL_OF(2):
        if (out < 2 * sizeof(ULONG))
            return FdoComplete(Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeSynchronizeExecution(shared->Interrupt, TakeTally, &tally);
        buffer[0] = tally.Asked >= tally.Claimed;
        buffer[1] = shared->ShareVector;
        return FdoComplete(Fdo, Irp, STATUS_SUCCESS, 2 * sizeof(ULONG));

    default:
        return FdoComplete(Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

const DRIVER_CLASS Class = {
    .Name = L"Shared",
    .Interface = &SharedInterface,
    .ExtensionSize = sizeof(SHARED),
    .Init = SharedInit,
    .Start = SharedStart,
    .Stop = SharedStop,
    .Control = SharedControl,
    .Power = SharedPower,
};
