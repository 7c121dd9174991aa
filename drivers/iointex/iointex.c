/*
 * iointex: one binary for every Windows since 2000. By messages where the kernel has IoConnectInterruptEx, by the line
 * and the old IoConnectInterrupt where it has not.
 *
 * Linked with the Iointex library, whose iointex.h makes IoConnectInterruptEx a routine of this driver: the image
 * imports nothing that Windows 2000 lacks. Asks for CONNECT_MESSAGE_BASED; an error with Version =
 * CONNECT_FULLY_SPECIFIED says that only that can be had, and it asks again with what the translated descriptor says.
 *
 * Control codes (all numbers ULONG, little-endian):
 *   IOCTL_OF(0) RAISE   in: source               sets the source's STATUS bit
 *   IOCTL_OF(1) COUNTS  out: total, by message   interrupts taken: in all, and through the message routine
 *   IOCTL_OF(2) INFO    out: version, messages   how it is connected: 3 and the messages; 2 and 0; or 1 and 0
 *   IOCTL_OF(3) WHERE   out: status, processors  IoGetAffinityInterrupt's answer, and how many processors it names
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "fdo.h"
#include "iointex.h"
#include "pulse.h"

static const GUID IointexInterface = {0x9c1e0b57, 0x2d5e, 0x4f3a, {0x8a, 0x41, 0x6e, 0x02, 0xbb, 0x93, 0x51, 0x04}};

typedef struct _CARD {
    FDO Fdo;
    PUCHAR Registers;
    ULONG Length;
    ULONG Sources;

    ULONG Version; /* as the connect call returned it: says which member of Connection is meant */
    union {
        PVOID Generic;
        PKINTERRUPT Line;
        PIO_INTERRUPT_MESSAGE_INFO Messages;
    } Connection;
    KSPIN_LOCK InterruptLock;

    /* Under InterruptLock. */
    ULONG Total;
    ULONG ByMessage;
} CARD, *PCARD;

/* Takes what the device asserts, or says that it asserts nothing. */
static BOOLEAN Take(PCARD Card)
{
    ULONG status = PulseRead(Card->Registers, PULSE_STATUS);

    if (status == ~0u || (status & PulseRead(Card->Registers, PULSE_ENABLE)) == 0)
        return FALSE;
    PulseWrite(Card->Registers, PULSE_STATUS, status);
    Card->Total++;
    return TRUE;
}

static BOOLEAN NTAPI OnLine(PKINTERRUPT Interrupt, PVOID Context)
{
    UNREFERENCED_PARAMETER(Interrupt);
    return Take(Context);
}

static BOOLEAN NTAPI OnMessage(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PCARD card = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    UNREFERENCED_PARAMETER(Message);
    if (Take(card))
        card->ByMessage++;
    return TRUE; /* a message belongs to one device */
}

static PKINTERRUPT AnyInterrupt(PCARD Card)
{
    if (Card->Version == CONNECT_MESSAGE_BASED)
        return Card->Connection.Messages->MessageInfo[0].InterruptObject;
    return Card->Connection.Line;
}

static BOOLEAN SetEnable(PCARD Card, ULONG Mask)
{
    PulseWrite(Card->Registers, PULSE_ENABLE, Mask);
    (VOID)PulseRead(Card->Registers, PULSE_ENABLE);
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

typedef struct _COUNTS {
    PCARD Card;
    ULONG Total;
    ULONG ByMessage;
} COUNTS, *PCOUNTS;

static BOOLEAN NTAPI TakeCounts(PVOID Context)
{
    PCOUNTS counts = Context;

    counts->Total = counts->Card->Total;
    counts->ByMessage = counts->Card->ByMessage;
    return TRUE;
}

static NTSTATUS Connect(PCARD Card, PCM_RESOURCE_LIST Translated)
{
    IO_CONNECT_INTERRUPT_PARAMETERS connect;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR line;
    NTSTATUS status;

    RtlZeroMemory(&connect, sizeof(connect));
    connect.Version = CONNECT_MESSAGE_BASED;
    connect.MessageBased.PhysicalDeviceObject = Card->Fdo.Pdo;
    connect.MessageBased.ConnectionContext.Generic = &Card->Connection.Generic;
    connect.MessageBased.MessageServiceRoutine = OnMessage;
    connect.MessageBased.ServiceContext = Card;
    connect.MessageBased.SpinLock = &Card->InterruptLock;
    connect.MessageBased.FallBackServiceRoutine = OnLine;
    status = IoConnectInterruptEx(&connect);
    Card->Version = connect.Version;
    if (NT_SUCCESS(status) || connect.Version != CONNECT_FULLY_SPECIFIED)
        return status;

    line = FdoResource(Translated, CmResourceTypeInterrupt, 0);
    if (line == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    RtlZeroMemory(&connect, sizeof(connect));
    connect.Version = CONNECT_FULLY_SPECIFIED;
    connect.FullySpecified.PhysicalDeviceObject = Card->Fdo.Pdo;
    connect.FullySpecified.InterruptObject = &Card->Connection.Line;
    connect.FullySpecified.ServiceRoutine = OnLine;
    connect.FullySpecified.ServiceContext = Card;
    connect.FullySpecified.SpinLock = &Card->InterruptLock;
    connect.FullySpecified.SynchronizeIrql = (KIRQL)line->u.Interrupt.Level;
    connect.FullySpecified.Irql = (KIRQL)line->u.Interrupt.Level;
    connect.FullySpecified.Vector = line->u.Interrupt.Vector;
    connect.FullySpecified.ProcessorEnableMask = line->u.Interrupt.Affinity;
    connect.FullySpecified.InterruptMode = line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive;
    connect.FullySpecified.ShareVector = line->ShareDisposition == CmResourceShareShared;
    return IoConnectInterruptEx(&connect);
}

static NTSTATUS CardInit(PFDO Fdo)
{
    KeInitializeSpinLock(&CONTAINING_RECORD(Fdo, CARD, Fdo)->InterruptLock);
    return STATUS_SUCCESS;
}

static NTSTATUS CardStart(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    PCARD card = CONTAINING_RECORD(Fdo, CARD, Fdo);
    NTSTATUS status;

    card->Registers = FdoMapRegisters(Translated, PULSE_LENGTH, &card->Length);
    if (card->Registers == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    card->Sources = PulseRead(card->Registers, PULSE_SOURCES);
    status = PulseRead(card->Registers, PULSE_ID) == PULSE_ID_VALUE && card->Sources <= PULSE_MAX_SOURCES
                 ? Connect(card, Translated)
                 : STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(card->Registers, card->Length);
        return status;
    }
    KeSynchronizeExecution(AnyInterrupt(card), Enable, card);
    return STATUS_SUCCESS;
}

static VOID CardStop(PFDO Fdo)
{
    PCARD card = CONTAINING_RECORD(Fdo, CARD, Fdo);
    IO_DISCONNECT_INTERRUPT_PARAMETERS disconnect;

    if (!Fdo->Gone)
        KeSynchronizeExecution(AnyInterrupt(card), Disable, card);
    disconnect.Version = card->Version;
    disconnect.ConnectionContext.Generic = card->Connection.Generic;
    IoDisconnectInterruptEx(&disconnect);
    MmUnmapIoSpace(card->Registers, card->Length);
}

static NTSTATUS CardControl(PFDO Fdo, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PCARD card = CONTAINING_RECORD(Fdo, CARD, Fdo);
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG code = Stack->Parameters.DeviceIoControl.IoControlCode;
    GROUP_AFFINITY where;
    COUNTS counts;

    if (code == IOCTL_OF(0)) {
        if (in < sizeof(ULONG) || *buffer >= card->Sources)
            return FdoComplete(Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
        PulseWrite(card->Registers, PULSE_RAISE, 1u << *buffer);
        return FdoComplete(Fdo, Irp, STATUS_SUCCESS, 0);
    }
    if (code != IOCTL_OF(1) && code != IOCTL_OF(2) && code != IOCTL_OF(3))
        return FdoComplete(Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (out < 2 * sizeof(ULONG))
        return FdoComplete(Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    if (code == IOCTL_OF(1)) {
        counts.Card = card;
        KeSynchronizeExecution(AnyInterrupt(card), TakeCounts, &counts);
        buffer[0] = counts.Total;
        buffer[1] = counts.ByMessage;
    } else if (code == IOCTL_OF(2)) {
        buffer[0] = card->Version;
        buffer[1] = card->Version == CONNECT_MESSAGE_BASED ? card->Connection.Messages->MessageCount : 0;
    } else {
        where.Mask = 0;
        buffer[0] = IoGetAffinityInterrupt(AnyInterrupt(card), &where);
        for (buffer[1] = 0; where.Mask != 0; where.Mask &= where.Mask - 1)
            buffer[1]++;
    }
    return FdoComplete(Fdo, Irp, STATUS_SUCCESS, 2 * sizeof(ULONG));
}

const DRIVER_CLASS Class = {
    .Name = L"Iointex",
    .Interface = &IointexInterface,
    .ExtensionSize = sizeof(CARD),
    .Init = CardInit,
    .Start = CardStart,
    .Stop = CardStop,
    .Control = CardControl,
};
