/*
 * ring: a driver for dirql's ring device (docs/devices/ring.md), as drivers of network cards and NVMe are built: one
 * queue pair, one message, one DPC and one lock a queue, and nothing shared between them.
 *
 * The ISR of a message acknowledges its queue's cause and queues the queue's DPC; the DPC takes the completions that
 * the phase bit shows and completes their requests. Acknowledging before looking loses nothing: what completes after
 * the look raises again.
 *
 * Control codes (all numbers ULONG, little-endian):
 *   IOCTL_OF(0) INFO    out: version, messages, queues   how it is connected: 3 and the messages, or 2 and 0
 *   IOCTL_OF(1) RUN     in: queue, operation, length, pattern  out: result, sum
 *                                                        2 fills a buffer by DMA, 3 sums one that is filled; length at
 *                                                        most 128. sum is the buffer's, as the processor sees it
 *                                                        when the completion is there. STATUS_DEVICE_BUSY: queue full
 *   IOCTL_OF(2) COUNTS  out: interrupts taken, one a queue
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "fdo.h"
#include "more.h"

#define RING_ID 0x00
#define RING_CAPS 0x04
#define RING_CTRL 0x08
#define RING_CAUSE 0x10
#define RING_MASK_SET 0x14
#define RING_MASK_CLEAR 0x18
#define RING_QUEUE(q) (0x1000 + 0x100 * (q))
#define RING_LENGTH 0x4000
#define RING_ID_VALUE 0x52494e47
#define RING_MAX_QUEUES 32
#define CTRL_ENABLE 1
#define CTRL_RESET 2

#define SQ_BASE 0x00
#define CQ_BASE 0x08
#define SIZE 0x10
#define QCTRL 0x14
#define QSTATUS 0x18
#define SQ_TAIL 0x20
#define CQ_HEAD 0x28

#define OPERATION_FILL 2
#define OPERATION_SUM 3

#define ENTRIES 16
#define SLOT 128
/* Of a queue's page: the submission ring, the completion ring, a buffer for each entry. */
#define COMPLETIONS_AT 1024
#define SLOTS_AT 2048

typedef struct _SUBMISSION {
    ULONG64 Source;
    ULONG64 Destination;
    ULONG Length;
    USHORT Operation;
    USHORT Flags;
    ULONG Cookie;
    ULONG Reserved;
} SUBMISSION, *PSUBMISSION;

typedef struct _COMPLETION {
    ULONG Cookie;
    ULONG Result;
    ULONG Head;
    ULONG Status; /* bit 0: phase */
} COMPLETION;

typedef struct _QUEUE {
    struct _RING *Ring;
    ULONG Index;
    PUCHAR Page;
    PHYSICAL_ADDRESS Address;
    KDPC Dpc;
    volatile LONG Taken;

    KSPIN_LOCK Lock; /* what follows */
    BOOLEAN Open;
    ULONG Tail;
    ULONG Head;
    ULONG Phase;
    ULONG Used;          /* entries in hand */
    PIRP Irps[ENTRIES];  /* by cookie */
} QUEUE, *PQUEUE;

typedef struct _RING {
    FDO Fdo;
    PUCHAR Registers;
    ULONG Length;
    ULONG Queues;

    ULONG Version;
    union {
        PVOID Generic;
        PKINTERRUPT Line;
        PIO_INTERRUPT_MESSAGE_INFO Messages;
    } Connection;
    volatile ULONG Messages; /* stored before the first queue is unmasked */

    QUEUE Queue[RING_MAX_QUEUES];
} RING, *PRING;

static ULONG Read(PRING Ring, ULONG At)
{
    return READ_REGISTER_ULONG((PULONG)(Ring->Registers + At));
}

static VOID Write(PRING Ring, ULONG At, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Ring->Registers + At), Value);
}

/* ---- Interrupts ---- */

static BOOLEAN Service(PRING Ring, ULONG Mine)
{
    ULONG cause = Read(Ring, RING_CAUSE);
    ULONG i;

    /* All ones: the device is gone or asleep. */
    if (cause == ~0u)
        return FALSE;
    cause &= Mine;
    if (cause == 0)
        return FALSE;
    Write(Ring, RING_CAUSE, cause);
    for (i = 0; i < Ring->Queues; i++) {
        if ((cause & (1u << i)) != 0) {
            InterlockedIncrement(&Ring->Queue[i].Taken);
            KeInsertQueueDpc(&Ring->Queue[i].Dpc, NULL, NULL);
        }
    }
    return TRUE;
}

static BOOLEAN NTAPI OnMessage(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    PRING ring = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    /* With fewer messages than queues message 0 speaks for several: then any routine takes whatever is there. */
    Service(ring, ring->Messages >= ring->Queues ? 1u << Message : ~0u);
    return TRUE; /* a message belongs to one device */
}

static BOOLEAN NTAPI OnLine(PKINTERRUPT Interrupt, PVOID Context)
{
    PRING ring = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    /* A masked cause does not hold the line: the interrupt is then another device's. */
    return Service(ring, ~Read(ring, RING_MASK_SET));
}

/* ---- Requests ---- */

static ULONG Sum(PUCHAR Data, ULONG Length)
{
    ULONG sum = 0;

    while (Length-- > 0)
        sum += *Data++;
    return sum;
}

/* Gives the IRP of the next completion and fills its output, or NULL. Under the lock. */
static PIRP Take(PQUEUE Queue, NTSTATUS *Status)
{
    volatile COMPLETION *at = (volatile COMPLETION *)(Queue->Page + COMPLETIONS_AT) + Queue->Head;
    ULONG status = at->Status;
    ULONG cookie;
    PULONG buffer;
    PIRP irp;

    if ((status & 1) != Queue->Phase)
        return NULL;
    /* The phase is read before the rest. */
    KeMemoryBarrier();
    cookie = at->Cookie;
    if (cookie >= ENTRIES || (irp = Queue->Irps[cookie]) == NULL)
        return NULL; /* the device answered what nobody asked: leave it to be seen */
    Queue->Irps[cookie] = NULL;
    Queue->Used--;
    buffer = irp->AssociatedIrp.SystemBuffer;
    *Status = status >> 1 == 0 ? STATUS_SUCCESS : STATUS_IO_DEVICE_ERROR;
    buffer[1] = Sum(Queue->Page + SLOTS_AT + SLOT * cookie, buffer[2]);
    buffer[0] = at->Result;
    Queue->Head = (Queue->Head + 1) % ENTRIES;
    if (Queue->Head == 0)
        Queue->Phase ^= 1;
    Write(Queue->Ring, RING_QUEUE(Queue->Index) + CQ_HEAD, Queue->Head);
    return irp;
}

static VOID NTAPI QueueDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PQUEUE queue = Context;
    NTSTATUS status = STATUS_SUCCESS;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    for (;;) {
        KeAcquireSpinLockAtDpcLevel(&queue->Lock);
        irp = queue->Open ? Take(queue, &status) : NULL;
        KeReleaseSpinLockFromDpcLevel(&queue->Lock);
        if (irp == NULL)
            return;
        FdoComplete(&queue->Ring->Fdo, irp, status, NT_SUCCESS(status) ? 2 * sizeof(ULONG) : 0);
    }
}

static NTSTATUS Submit(PRING Ring, PIRP Irp, PULONG In)
{
    PQUEUE queue = &Ring->Queue[In[0]];
    PSUBMISSION entry;
    ULONG slot;
    KIRQL irql;

    KeAcquireSpinLock(&queue->Lock, &irql);
    if (!queue->Open || queue->Used == ENTRIES - 1) {
        KeReleaseSpinLock(&queue->Lock, irql);
        return FdoComplete(&Ring->Fdo, Irp, STATUS_DEVICE_BUSY, 0);
    }
    for (slot = 0; queue->Irps[slot] != NULL; slot++)
        ;
    IoMarkIrpPending(Irp);
    queue->Irps[slot] = Irp;
    queue->Used++;
    entry = (PSUBMISSION)queue->Page + queue->Tail;
    RtlZeroMemory(entry, sizeof(*entry));
    entry->Operation = (USHORT)In[1];
    entry->Length = In[2];
    entry->Cookie = slot;
    if (In[1] == OPERATION_FILL) {
        entry->Source = In[3];
        entry->Destination = queue->Address.QuadPart + SLOTS_AT + SLOT * slot;
        RtlZeroMemory(queue->Page + SLOTS_AT + SLOT * slot, SLOT);
    } else {
        entry->Source = queue->Address.QuadPart + SLOTS_AT + SLOT * slot;
        RtlFillMemory(queue->Page + SLOTS_AT + SLOT * slot, SLOT, (UCHAR)In[3]);
    }
    queue->Tail = (queue->Tail + 1) % ENTRIES;
    /* The descriptor is in memory before the doorbell rings. */
    KeMemoryBarrier();
    Write(Ring, RING_QUEUE(queue->Index) + SQ_TAIL, queue->Tail);
    KeReleaseSpinLock(&queue->Lock, irql);
    return STATUS_PENDING;
}

/* ---- What the frame calls ---- */

static NTSTATUS RingInit(PFDO Fdo)
{
    PRING ring = CONTAINING_RECORD(Fdo, RING, Fdo);
    ULONG i;

    for (i = 0; i < RING_MAX_QUEUES; i++) {
        ring->Queue[i].Ring = ring;
        ring->Queue[i].Index = i;
        KeInitializeSpinLock(&ring->Queue[i].Lock);
        KeInitializeDpc(&ring->Queue[i].Dpc, QueueDpc, &ring->Queue[i]);
    }
    return STATUS_SUCCESS;
}

static VOID FreePages(PRING Ring)
{
    ULONG i;

    for (i = 0; i < Ring->Queues; i++) {
        if (Ring->Queue[i].Page != NULL)
            MmFreeContiguousMemory(Ring->Queue[i].Page);
        Ring->Queue[i].Page = NULL;
    }
}

static BOOLEAN OpenQueue(PQUEUE Queue)
{
    PHYSICAL_ADDRESS low, high, boundary;
    ULONG at = RING_QUEUE(Queue->Index);

    low.QuadPart = 0;
    high.QuadPart = -1;
    boundary.QuadPart = 0;
    Queue->Page = MmAllocateContiguousMemorySpecifyCache(PAGE_SIZE, low, high, boundary, MmCached);
    if (Queue->Page == NULL)
        return FALSE;
    RtlZeroMemory(Queue->Page, PAGE_SIZE);
    Queue->Address = MmGetPhysicalAddress(Queue->Page);
    Write(Queue->Ring, at + SQ_BASE, Queue->Address.LowPart);
    Write(Queue->Ring, at + SQ_BASE + 4, (ULONG)Queue->Address.HighPart);
    Write(Queue->Ring, at + CQ_BASE, Queue->Address.LowPart + COMPLETIONS_AT);
    Write(Queue->Ring, at + CQ_BASE + 4, (ULONG)Queue->Address.HighPart);
    Write(Queue->Ring, at + SIZE, ENTRIES);
    Write(Queue->Ring, at + QCTRL, 1);
    if (Read(Queue->Ring, at + QSTATUS) != 1)
        return FALSE;
    Queue->Tail = Queue->Head = Queue->Used = 0;
    Queue->Phase = 1;
    Queue->Open = TRUE;
    return TRUE;
}

static NTSTATUS RingStart(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    PRING ring = CONTAINING_RECORD(Fdo, RING, Fdo);
    IO_CONNECT_INTERRUPT_PARAMETERS connect;
    NTSTATUS status = STATUS_DEVICE_CONFIGURATION_ERROR;
    ULONG i;

    ring->Registers = FdoMapRegisters(Translated, RING_LENGTH, &ring->Length);
    if (ring->Registers == NULL)
        return status;
    ring->Queues = Read(ring, RING_CAPS) & 0xff;
    if (Read(ring, RING_ID) != RING_ID_VALUE || ring->Queues == 0 || ring->Queues > RING_MAX_QUEUES) {
        ring->Queues = 0;
        goto failed;
    }
    Write(ring, RING_CTRL, CTRL_RESET); /* masks every queue */
    Write(ring, RING_CTRL, CTRL_ENABLE);
    for (i = 0; i < ring->Queues; i++) {
        if (!OpenQueue(&ring->Queue[i])) {
            status = STATUS_INSUFFICIENT_RESOURCES;
            goto failed;
        }
    }

    ring->Messages = 0;
    RtlZeroMemory(&connect, sizeof(connect));
    connect.Version = CONNECT_MESSAGE_BASED;
    connect.MessageBased.PhysicalDeviceObject = Fdo->Pdo;
    connect.MessageBased.ConnectionContext.Generic = &ring->Connection.Generic;
    connect.MessageBased.MessageServiceRoutine = OnMessage;
    connect.MessageBased.ServiceContext = ring;
    connect.MessageBased.FallBackServiceRoutine = OnLine;
    status = IoConnectInterruptEx(&connect);
    if (!NT_SUCCESS(status))
        goto failed;
    ring->Version = connect.Version;
    if (ring->Version == CONNECT_MESSAGE_BASED)
        ring->Messages = ring->Connection.Messages->MessageCount;
    Write(ring, RING_MASK_CLEAR, ~0u);
    return STATUS_SUCCESS;

failed:
    if (ring->Queues != 0)
        Write(ring, RING_CTRL, CTRL_RESET);
    for (i = 0; i < ring->Queues; i++)
        ring->Queue[i].Open = FALSE;
    FreePages(ring);
    MmUnmapIoSpace(ring->Registers, ring->Length);
    ring->Registers = NULL;
    return status;
}

static VOID RingStop(PFDO Fdo)
{
    PRING ring = CONTAINING_RECORD(Fdo, RING, Fdo);
    IO_DISCONNECT_INTERRUPT_PARAMETERS disconnect;
    PIRP irp;
    KIRQL irql;
    ULONG i, slot;

    if (!Fdo->Gone) {
        Write(ring, RING_CTRL, CTRL_RESET);
        /* Posted writes reach the device before a read of it returns: no DMA after this. */
        (VOID)Read(ring, RING_CTRL);
    }
    disconnect.Version = ring->Version;
    disconnect.ConnectionContext.Generic = ring->Connection.Generic;
    IoDisconnectInterruptEx(&disconnect);
    for (i = 0; i < ring->Queues; i++) {
        PQUEUE queue = &ring->Queue[i];

        KeAcquireSpinLock(&queue->Lock, &irql);
        queue->Open = FALSE;
        KeReleaseSpinLock(&queue->Lock, irql);
        KeRemoveQueueDpc(&queue->Dpc);
    }
    KeFlushQueuedDpcs();
    /* Nobody else is left: what the device will not answer is failed. */
    for (i = 0; i < ring->Queues; i++) {
        for (slot = 0; slot < ENTRIES; slot++) {
            irp = ring->Queue[i].Irps[slot];
            ring->Queue[i].Irps[slot] = NULL;
            if (irp != NULL)
                FdoComplete(Fdo, irp, STATUS_CANCELLED, 0);
        }
    }
    FreePages(ring);
    ring->Connection.Generic = NULL;
    MmUnmapIoSpace(ring->Registers, ring->Length);
    ring->Registers = NULL;
}

static VOID RingPower(PFDO Fdo, BOOLEAN On)
{
    PRING ring = CONTAINING_RECORD(Fdo, RING, Fdo);

    /* Registers and work in hand survive D3; only its interrupts are held off. */
    Write(ring, On ? RING_MASK_CLEAR : RING_MASK_SET, ~0u);
    if (!On)
        (VOID)Read(ring, RING_MASK_SET);
}

static NTSTATUS RingControl(PFDO Fdo, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PRING ring = CONTAINING_RECORD(Fdo, RING, Fdo);
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG i;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_OF(0):
        if (out < 3 * sizeof(ULONG))
            return FdoComplete(Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        buffer[0] = ring->Version;
        buffer[1] = ring->Messages;
        buffer[2] = ring->Queues;
        return FdoComplete(Fdo, Irp, STATUS_SUCCESS, 3 * sizeof(ULONG));

    case IOCTL_OF(1):
        if (in < 4 * sizeof(ULONG) || out < 2 * sizeof(ULONG) || buffer[0] >= ring->Queues || buffer[2] > SLOT ||
            (buffer[1] != OPERATION_FILL && buffer[1] != OPERATION_SUM))
            return FdoComplete(Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
        return Submit(ring, Irp, buffer);

    case IOCTL_OF(2):
        if (out < ring->Queues * sizeof(ULONG))
            return FdoComplete(Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        for (i = 0; i < ring->Queues; i++)
            buffer[i] = (ULONG)ring->Queue[i].Taken;
        return FdoComplete(Fdo, Irp, STATUS_SUCCESS, ring->Queues * sizeof(ULONG));

    default:
        return FdoComplete(Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static const GUID RingInterface = {0x0e3cbd5f, 0x7f0b, 0x4a64, {0xb1, 0x77, 0x52, 0x49, 0x4e, 0x47, 0xd1, 0xa2}};

const DRIVER_CLASS Class = {
    .Name = L"Ring",
    .Interface = &RingInterface,
    .ExtensionSize = sizeof(RING),
    .Init = RingInit,
    .Start = RingStart,
    .Stop = RingStop,
    .Control = RingControl,
    .Power = RingPower,
};
