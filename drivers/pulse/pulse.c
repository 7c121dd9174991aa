/*
 * pulse: messages, with a line as fallback, for dirql's pulse device.
 *
 * Connects CONNECT_MESSAGE_BASED with a FallBackServiceRoutine and one lock for all messages, counts per message,
 * completes waiting requests from a DPC, and disconnects with the version that the connect call returned.
 *
 * Control codes (all numbers ULONG, little-endian):
 *   IOCTL_OF(0) RAISE   in: source               sets the source's STATUS bit
 *   IOCTL_OF(1) COUNTS  out: total, count[n]     interrupts taken: in all, and per message (line: all in count[0]);
 *                                                n = the device's number of sources
 *   IOCTL_OF(2) ENABLE  in: mask                 which sources may interrupt
 *   IOCTL_OF(3) WAIT    in: seen  out: total     completes once total > seen
 *   IOCTL_OF(4) INFO    out: version, messages   how it is connected: 3 and the messages, or 2 and 0
 *   IOCTL_OF(5) DEVICE  in: source  out: count   the device's own COUNT register
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "fdo.h"
#include "pulse.h"

static const GUID PulseInterface = {0x6b8ac4a1, 0x41a7, 0x4c5d, {0x9d, 0x0e, 0x21, 0x3f, 0x5a, 0x60, 0xd1, 0xa1}};

typedef struct _PULSE {
    FDO Fdo; /* first: the frame finds it there */
    PUCHAR Registers;
    ULONG Length;
    ULONG Sources;

    ULONG Version; /* as IoConnectInterruptEx returned it: says which member of Connection is meant */
    union {
        PVOID Generic;
        PKINTERRUPT Line;
        PIO_INTERRUPT_MESSAGE_INFO Messages;
    } Connection;
    KSPIN_LOCK InterruptLock; /* one for all messages: their routines exclude each other */
    KDPC Dpc;

    /* Written under InterruptLock. */
    ULONG Enabled;
    volatile ULONG Total;
    ULONG Count[PULSE_MAX_SOURCES];

    IO_CSQ Waiters;
    KSPIN_LOCK WaitersLock;
    LIST_ENTRY WaitersList;
} PULSE, *PPULSE;

/* ---- Interrupts ---- */

static VOID Took(PPULSE Pulse, ULONG Message)
{
    Pulse->Total++;
    Pulse->Count[Message]++;
    KeInsertQueueDpc(&Pulse->Dpc, NULL, NULL);
}

static BOOLEAN NTAPI OnMessage(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PPULSE pulse = Context;
    ULONG messages = pulse->Connection.Messages == NULL ? 0 : pulse->Connection.Messages->MessageCount;
    ULONG mine = 1u << (Message % PULSE_MAX_SOURCES);

    UNREFERENCED_PARAMETER(Interrupt);
    /* With fewer messages than sources message 0 speaks for several. The table's pointer is stored only after the
     * messages are live, so before that take message 0 for all; clearing too much loses nothing, it is counted here. */
    if (Message == 0 && messages < pulse->Sources)
        mine = ~0u;
    PulseWrite(pulse->Registers, PULSE_STATUS, PulseRead(pulse->Registers, PULSE_STATUS) & mine);
    if (Message < PULSE_MAX_SOURCES)
        Took(pulse, Message);
    return TRUE; /* a message belongs to one device */
}

static BOOLEAN NTAPI OnLine(PKINTERRUPT Interrupt, PVOID Context)
{
    PPULSE pulse = Context;
    ULONG status = PulseRead(pulse->Registers, PULSE_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    /* All ones: the device is gone or asleep, and the interrupt is some other device's. */
    if (status == ~0u || (status & PulseRead(pulse->Registers, PULSE_ENABLE)) == 0)
        return FALSE;
    PulseWrite(pulse->Registers, PULSE_STATUS, status);
    Took(pulse, 0);
    return TRUE;
}

/* Any interrupt object of ours will do: they share InterruptLock and the IRQL. */
static PKINTERRUPT AnyInterrupt(PPULSE Pulse)
{
    if (Pulse->Version == CONNECT_MESSAGE_BASED)
        return Pulse->Connection.Messages->MessageInfo[0].InterruptObject;
    return Pulse->Connection.Line;
}

typedef struct _SNAPSHOT {
    PPULSE Pulse;
    ULONG Total;
    ULONG Count[PULSE_MAX_SOURCES];
} SNAPSHOT, *PSNAPSHOT;

static BOOLEAN NTAPI TakeSnapshot(PVOID Context)
{
    PSNAPSHOT snapshot = Context;
    ULONG i;

    snapshot->Total = snapshot->Pulse->Total;
    for (i = 0; i < PULSE_MAX_SOURCES; i++)
        snapshot->Count[i] = snapshot->Pulse->Count[i];
    return TRUE;
}

static BOOLEAN NTAPI WriteEnable(PVOID Context)
{
    PPULSE pulse = Context;

    PulseWrite(pulse->Registers, PULSE_ENABLE, pulse->Enabled);
    return TRUE;
}

static BOOLEAN NTAPI WriteDisable(PVOID Context)
{
    PPULSE pulse = Context;

    PulseWrite(pulse->Registers, PULSE_ENABLE, 0);
    /* Posted writes reach the device before a read of it returns. */
    (VOID)PulseRead(pulse->Registers, PULSE_ENABLE);
    return TRUE;
}

typedef struct _NEW_MASK {
    PPULSE Pulse;
    ULONG Mask;
} NEW_MASK, *PNEW_MASK;

static BOOLEAN NTAPI ChangeEnable(PVOID Context)
{
    PNEW_MASK change = Context;

    change->Pulse->Enabled = change->Mask;
    return WriteEnable(change->Pulse);
}

/* ---- Waiting requests: a cancel-safe queue, emptied from the DPC ---- */

static PULONG Seen(PIRP Irp)
{
    return Irp->AssociatedIrp.SystemBuffer;
}

static VOID NTAPI InsertWaiter(PIO_CSQ Csq, PIRP Irp)
{
    PPULSE pulse = CONTAINING_RECORD(Csq, PULSE, Waiters);

    InsertTailList(&pulse->WaitersList, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI RemoveWaiter(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

typedef struct _WANTED {
    BOOLEAN ByTotal; /* requests that have seen fewer than Total */
    ULONG Total;
    PFILE_OBJECT File; /* otherwise those of a file object, or all when NULL */
} WANTED, *PWANTED;

static PIRP NTAPI PeekWaiter(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PPULSE pulse = CONTAINING_RECORD(Csq, PULSE, Waiters);
    PWANTED wanted = Context;
    PLIST_ENTRY entry = Irp == NULL ? pulse->WaitersList.Flink : Irp->Tail.Overlay.ListEntry.Flink;

    for (; entry != &pulse->WaitersList; entry = entry->Flink) {
        PIRP next = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        if (wanted == NULL)
            return next;
        if (wanted->ByTotal ? *Seen(next) < wanted->Total
                            : wanted->File == NULL ||
                                  IoGetCurrentIrpStackLocation(next)->FileObject == wanted->File)
            return next;
    }
    return NULL;
}

static VOID NTAPI LockWaiters(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, PULSE, Waiters)->WaitersLock, Irql);
}

static VOID NTAPI UnlockWaiters(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, PULSE, Waiters)->WaitersLock, Irql);
}

static VOID NTAPI CancelWaiter(PIO_CSQ Csq, PIRP Irp)
{
    FdoComplete(&CONTAINING_RECORD(Csq, PULSE, Waiters)->Fdo, Irp, STATUS_CANCELLED, 0);
}

/* Completes every waiting request that has something new to hear. At IRQL <= DISPATCH_LEVEL. */
static VOID Wake(PPULSE Pulse)
{
    WANTED wanted;
    PIRP irp;

    /* One aligned number that only grows: no lock. KeSynchronizeExecution would be wrong in the DPC, which may run
     * while PulseStop disconnects the interrupt object. */
    wanted.ByTotal = TRUE;
    wanted.Total = Pulse->Total;
    wanted.File = NULL;
    while ((irp = IoCsqRemoveNextIrp(&Pulse->Waiters, &wanted)) != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = wanted.Total;
        FdoComplete(&Pulse->Fdo, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID NTAPI PulseDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    Wake(Context);
}

/* ---- What the frame calls ---- */

static NTSTATUS PulseInit(PFDO Fdo)
{
    PPULSE pulse = CONTAINING_RECORD(Fdo, PULSE, Fdo);

    KeInitializeSpinLock(&pulse->InterruptLock);
    KeInitializeSpinLock(&pulse->WaitersLock);
    InitializeListHead(&pulse->WaitersList);
    KeInitializeDpc(&pulse->Dpc, PulseDpc, pulse);
    return IoCsqInitialize(&pulse->Waiters, InsertWaiter, RemoveWaiter, PeekWaiter, LockWaiters, UnlockWaiters,
                           CancelWaiter);
}

static NTSTATUS PulseStart(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    PPULSE pulse = CONTAINING_RECORD(Fdo, PULSE, Fdo);
    IO_CONNECT_INTERRUPT_PARAMETERS connect;
    NTSTATUS status;

    pulse->Registers = FdoMapRegisters(Translated, PULSE_LENGTH, &pulse->Length);
    if (pulse->Registers == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    pulse->Sources = PulseRead(pulse->Registers, PULSE_SOURCES);
    if (PulseRead(pulse->Registers, PULSE_ID) != PULSE_ID_VALUE || pulse->Sources == 0 ||
        pulse->Sources > PULSE_MAX_SOURCES) {
        status = STATUS_DEVICE_CONFIGURATION_ERROR;
        goto failed;
    }

    RtlZeroMemory(&connect, sizeof(connect));
    connect.Version = CONNECT_MESSAGE_BASED;
    connect.MessageBased.PhysicalDeviceObject = Fdo->Pdo;
    connect.MessageBased.ConnectionContext.Generic = &pulse->Connection.Generic;
    connect.MessageBased.MessageServiceRoutine = OnMessage;
    connect.MessageBased.ServiceContext = pulse;
    connect.MessageBased.SpinLock = &pulse->InterruptLock;
    connect.MessageBased.FallBackServiceRoutine = OnLine;
    status = IoConnectInterruptEx(&connect);
    if (!NT_SUCCESS(status))
        goto failed;
    pulse->Version = connect.Version; /* LINE_BASED when the fallback was taken */

    pulse->Enabled = pulse->Sources == 32 ? ~0u : (1u << pulse->Sources) - 1;
    KeSynchronizeExecution(AnyInterrupt(pulse), WriteEnable, pulse);
    return STATUS_SUCCESS;

failed:
    pulse->Connection.Generic = NULL;
    MmUnmapIoSpace(pulse->Registers, pulse->Length);
    pulse->Registers = NULL;
    return status;
}

static VOID PulseStop(PFDO Fdo)
{
    PPULSE pulse = CONTAINING_RECORD(Fdo, PULSE, Fdo);
    IO_DISCONNECT_INTERRUPT_PARAMETERS disconnect;

    if (!Fdo->Gone)
        KeSynchronizeExecution(AnyInterrupt(pulse), WriteDisable, pulse);
    disconnect.Version = pulse->Version;
    disconnect.ConnectionContext.Generic = pulse->Connection.Generic;
    IoDisconnectInterruptEx(&disconnect);
    /* No ISR can queue it any more; wait for one that is queued or running, then nothing uses the registers. */
    KeRemoveQueueDpc(&pulse->Dpc);
    KeFlushQueuedDpcs();
    pulse->Connection.Generic = NULL;
    MmUnmapIoSpace(pulse->Registers, pulse->Length);
    pulse->Registers = NULL;
}

static VOID PulseDrain(PFDO Fdo, PFILE_OBJECT File)
{
    PPULSE pulse = CONTAINING_RECORD(Fdo, PULSE, Fdo);
    WANTED wanted;
    PIRP irp;

    wanted.ByTotal = FALSE;
    wanted.Total = 0;
    wanted.File = File;
    while ((irp = IoCsqRemoveNextIrp(&pulse->Waiters, &wanted)) != NULL)
        FdoComplete(Fdo, irp, STATUS_CANCELLED, 0);
}

static VOID PulsePower(PFDO Fdo, BOOLEAN On)
{
    PPULSE pulse = CONTAINING_RECORD(Fdo, PULSE, Fdo);

    /* The device forgets its mask in D3; what was asked for is in Enabled. */
    KeSynchronizeExecution(AnyInterrupt(pulse), On ? WriteEnable : WriteDisable, pulse);
}

static NTSTATUS PulseControl(PFDO Fdo, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PPULSE pulse = CONTAINING_RECORD(Fdo, PULSE, Fdo);
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    SNAPSHOT snapshot;
    NEW_MASK change;
    ULONG i;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_OF(0):
        if (in < sizeof(ULONG) || *buffer >= pulse->Sources)
            return FdoComplete(Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
        PulseWrite(pulse->Registers, PULSE_RAISE, 1u << *buffer);
        return FdoComplete(Fdo, Irp, STATUS_SUCCESS, 0);

    case IOCTL_OF(1):
        if (out < sizeof(ULONG) * (1 + pulse->Sources))
            return FdoComplete(Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        snapshot.Pulse = pulse;
        KeSynchronizeExecution(AnyInterrupt(pulse), TakeSnapshot, &snapshot);
        buffer[0] = snapshot.Total;
        for (i = 0; i < pulse->Sources; i++)
            buffer[1 + i] = snapshot.Count[i];
        return FdoComplete(Fdo, Irp, STATUS_SUCCESS, sizeof(ULONG) * (1 + pulse->Sources));

    case IOCTL_OF(2):
        if (in < sizeof(ULONG))
            return FdoComplete(Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
        change.Pulse = pulse;
        change.Mask = *buffer;
        KeSynchronizeExecution(AnyInterrupt(pulse), ChangeEnable, &change);
        return FdoComplete(Fdo, Irp, STATUS_SUCCESS, 0);

    case IOCTL_OF(3):
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return FdoComplete(Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
        /* Marks the IRP pending. An interrupt before the insertion would find nobody: look once more after it. */
        IoCsqInsertIrp(&pulse->Waiters, Irp, NULL);
        Wake(pulse);
        return STATUS_PENDING;

    case IOCTL_OF(4):
        if (out < 2 * sizeof(ULONG))
            return FdoComplete(Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        buffer[0] = pulse->Version;
        buffer[1] = pulse->Version == CONNECT_MESSAGE_BASED ? pulse->Connection.Messages->MessageCount : 0;
        return FdoComplete(Fdo, Irp, STATUS_SUCCESS, 2 * sizeof(ULONG));

    case IOCTL_OF(5):
        if (in < sizeof(ULONG) || out < sizeof(ULONG) || *buffer >= pulse->Sources)
            return FdoComplete(Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
        *buffer = PulseRead(pulse->Registers, PULSE_COUNT(*buffer));
        return FdoComplete(Fdo, Irp, STATUS_SUCCESS, sizeof(ULONG));

    default:
        return FdoComplete(Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

const DRIVER_CLASS Class = {
    .Name = L"Pulse",
    .Interface = &PulseInterface,
    .ExtensionSize = sizeof(PULSE),
    .Init = PulseInit,
    .Start = PulseStart,
    .Stop = PulseStop,
    .Control = PulseControl,
    .Drain = PulseDrain,
    .Power = PulsePower,
};
