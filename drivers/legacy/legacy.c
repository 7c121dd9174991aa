/*
 * legacy: IoConnectInterrupt, the eleven-argument routine, with StartIo and the device object's own DPC, as drivers
 * for Windows 2000 are written. For dirql's pulse device on a line.
 *
 * Control codes (all numbers ULONG, little-endian):
 *   IOCTL_OF(0) PULSE  in: source  out: count   queued: StartIo raises the source, the interrupt completes the request
 *                                               with the number of interrupts taken so far
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "fdo.h"
#include "pulse.h"

static const GUID LegacyInterface = {0x51c2d8fe, 0x1b0b, 0x4f43, {0x8e, 0x61, 0x0a, 0x9c, 0x77, 0xd4, 0x12, 0x33}};

typedef struct _LEGACY {
    FDO Fdo;
    PUCHAR Registers;
    ULONG Length;
    ULONG Sources;
    PKINTERRUPT Interrupt;

    /* Under the interrupt object's lock. */
    BOOLEAN Busy; /* StartIo has raised a source for the current request */
    ULONG Taken;
} LEGACY, *PLEGACY;

static BOOLEAN NTAPI OnLine(PKINTERRUPT Interrupt, PVOID Context)
{
    PLEGACY legacy = Context;
    ULONG status = PulseRead(legacy->Registers, PULSE_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (status == ~0u || (status & PulseRead(legacy->Registers, PULSE_ENABLE)) == 0)
        return FALSE;
    PulseWrite(legacy->Registers, PULSE_STATUS, status);
    legacy->Taken++;
    if (legacy->Busy) {
        legacy->Busy = FALSE;
        IoRequestDpc(legacy->Fdo.Self, legacy->Fdo.Self->CurrentIrp, (PVOID)(ULONG_PTR)legacy->Taken);
    }
    return TRUE;
}

static VOID NTAPI DpcForIsr(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PLEGACY legacy = Device->DeviceExtension;

    UNREFERENCED_PARAMETER(Dpc);
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = (ULONG)(ULONG_PTR)Context;
    IoStartNextPacket(Device, TRUE);
    FdoComplete(&legacy->Fdo, Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static BOOLEAN NTAPI Begin(PVOID Context)
{
    PLEGACY legacy = Context;
    PULONG source = legacy->Fdo.Self->CurrentIrp->AssociatedIrp.SystemBuffer;

    legacy->Busy = TRUE;
    PulseWrite(legacy->Registers, PULSE_RAISE, 1u << *source);
    return TRUE;
}

/* Takes the current request back from the interrupt: FALSE when its DPC is on the way. */
static BOOLEAN NTAPI TakeBack(PVOID Context)
{
    PLEGACY legacy = Context;
    BOOLEAN busy = legacy->Busy;

    legacy->Busy = FALSE;
    return busy;
}

static VOID NTAPI Cancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLEGACY legacy = Device->DeviceExtension;

    if (Irp == Device->CurrentIrp) {
        /* StartIo is about to find it cancelled and leaves it to us. */
        IoReleaseCancelSpinLock(Irp->CancelIrql);
        IoStartNextPacket(Device, TRUE);
    } else {
        KeRemoveEntryDeviceQueue(&Device->DeviceQueue, &Irp->Tail.Overlay.DeviceQueueEntry);
        IoReleaseCancelSpinLock(Irp->CancelIrql);
    }
    FdoComplete(&legacy->Fdo, Irp, STATUS_CANCELLED, 0);
}

static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLEGACY legacy = Device->DeviceExtension;
    KIRQL irql;

    IoAcquireCancelSpinLock(&irql);
    if (Irp != Device->CurrentIrp || Irp->Cancel) {
        IoReleaseCancelSpinLock(irql);
        return; /* Cancel has it */
    }
    IoSetCancelRoutine(Irp, NULL);
    IoReleaseCancelSpinLock(irql);
    KeSynchronizeExecution(legacy->Interrupt, Begin, legacy);
}

static BOOLEAN NTAPI Enable(PVOID Context)
{
    PLEGACY legacy = Context;

    PulseWrite(legacy->Registers, PULSE_ENABLE, ~0u);
    return TRUE;
}

static BOOLEAN NTAPI Disable(PVOID Context)
{
    PLEGACY legacy = Context;

    PulseWrite(legacy->Registers, PULSE_ENABLE, 0);
    (VOID)PulseRead(legacy->Registers, PULSE_ENABLE);
    return TRUE;
}

static NTSTATUS LegacyInit(PFDO Fdo)
{
    IoInitializeDpcRequest(Fdo->Self, DpcForIsr);
    return STATUS_SUCCESS;
}

static NTSTATUS LegacyStart(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    PLEGACY legacy = CONTAINING_RECORD(Fdo, LEGACY, Fdo);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR line = FdoResource(Translated, CmResourceTypeInterrupt, 0);
    NTSTATUS status;

    if (line == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    legacy->Registers = FdoMapRegisters(Translated, PULSE_LENGTH, &legacy->Length);
    if (legacy->Registers == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    legacy->Sources = PulseRead(legacy->Registers, PULSE_SOURCES);
    status = IoConnectInterrupt(&legacy->Interrupt, OnLine, legacy, NULL, line->u.Interrupt.Vector,
                                (KIRQL)line->u.Interrupt.Level, (KIRQL)line->u.Interrupt.Level,
                                line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                                line->ShareDisposition == CmResourceShareShared, line->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(legacy->Registers, legacy->Length);
        return status;
    }
    KeSynchronizeExecution(legacy->Interrupt, Enable, legacy);
    return STATUS_SUCCESS;
}

/* Fails every request of the device: the queued ones through their cancel routine, the current one by taking it back. */
static VOID LegacyDrain(PFDO Fdo, PFILE_OBJECT File)
{
    PLEGACY legacy = CONTAINING_RECORD(Fdo, LEGACY, Fdo);
    PDEVICE_OBJECT device = Fdo->Self;
    PKDEVICE_QUEUE_ENTRY entry;
    KIRQL irql;

    if (File != NULL)
        return; /* a closing file's requests complete soon: the hardware answers each */
    IoAcquireCancelSpinLock(&irql);
    while ((entry = KeRemoveDeviceQueue(&device->DeviceQueue)) != NULL) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.DeviceQueueEntry);
        BOOLEAN ours = IoSetCancelRoutine(irp, NULL) != NULL;

        IoReleaseCancelSpinLock(irql);
        if (ours)
            FdoComplete(Fdo, irp, STATUS_CANCELLED, 0);
        IoAcquireCancelSpinLock(&irql);
    }
    IoReleaseCancelSpinLock(irql);
    if (legacy->Interrupt != NULL && KeSynchronizeExecution(legacy->Interrupt, TakeBack, legacy)) {
        PIRP irp = device->CurrentIrp;

        device->CurrentIrp = NULL;
        FdoComplete(Fdo, irp, STATUS_CANCELLED, 0);
    }
}

static VOID LegacyStop(PFDO Fdo)
{
    PLEGACY legacy = CONTAINING_RECORD(Fdo, LEGACY, Fdo);

    if (!Fdo->Gone)
        KeSynchronizeExecution(legacy->Interrupt, Disable, legacy);
    IoDisconnectInterrupt(legacy->Interrupt);
    /* A DPC that is queued holds the current request: let it complete it. */
    KeFlushQueuedDpcs();
    legacy->Interrupt = NULL;
    MmUnmapIoSpace(legacy->Registers, legacy->Length);
}

static VOID LegacyPower(PFDO Fdo, BOOLEAN On)
{
    PLEGACY legacy = CONTAINING_RECORD(Fdo, LEGACY, Fdo);

    KeSynchronizeExecution(legacy->Interrupt, On ? Enable : Disable, legacy);
}

static NTSTATUS LegacyControl(PFDO Fdo, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PLEGACY legacy = CONTAINING_RECORD(Fdo, LEGACY, Fdo);

    if (Stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_OF(0))
        return FdoComplete(Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ||
        Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG) ||
        *(PULONG)Irp->AssociatedIrp.SystemBuffer >= legacy->Sources)
        return FdoComplete(Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    IoMarkIrpPending(Irp);
    IoStartPacket(Fdo->Self, Irp, NULL, Cancel);
    return STATUS_PENDING;
}

const DRIVER_CLASS Class = {
    .Name = L"Legacy",
    .Interface = &LegacyInterface,
    .ExtensionSize = sizeof(LEGACY),
    .Init = LegacyInit,
    .Start = LegacyStart,
    .Stop = LegacyStop,
    .Control = LegacyControl,
    .Drain = LegacyDrain,
    .Power = LegacyPower,
    .StartIo = StartIo,
};
