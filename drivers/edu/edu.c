/*
 * edu: a driver for QEMU's edu device (PCI 1234:11e8; QEMU's docs/specs/edu).
 *
 * One operation at a time: requests wait in a cancel-safe queue, the hardware interrupts when it is done, the DPC
 * completes the request and starts the next. The interrupt, a message where the device was given one and else a line,
 * is connected CONNECT_FULLY_SPECIFIED from the translated descriptor, which reads the same for both.
 *
 * Control codes (all numbers ULONG, little-endian):
 *   IOCTL_OF(0) FACTORIAL  in: n      out: n! mod 2^32   computed by the device, completed by its interrupt
 *   IOCTL_OF(1) ROUND      in: bytes  out: bytes         by DMA to the device's buffer and by DMA back, compared;
 *                                                        STATUS_DATA_ERROR when they differ
 *   IOCTL_OF(2) LIVENESS   in: x      out: ~x, id        registers only
 *   IOCTL_OF(3) INFO       out: message (1) or line (0), interrupts taken
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "fdo.h"
#include "more.h"

#define EDU_ID 0x00
#define EDU_LIVENESS 0x04
#define EDU_FACTORIAL 0x08
#define EDU_STATUS 0x20
#define EDU_INTERRUPT_STATUS 0x24
#define EDU_ACKNOWLEDGE 0x64
#define EDU_DMA_SOURCE 0x80
#define EDU_DMA_DESTINATION 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_COMMAND 0x98
#define EDU_LENGTH 0x100000

#define EDU_ID_MASK 0xffff
#define EDU_ID_VALUE 0x00ed     /* id is 0xRRrr00ed: revision, then this */
#define EDU_STATUS_COMPUTING 0x01
#define EDU_STATUS_INTERRUPT 0x80 /* raise an interrupt when a factorial is done */
#define EDU_INTERRUPT_FACTORIAL 0x001
#define EDU_INTERRUPT_DMA 0x100
#define EDU_DMA_START 0x1
#define EDU_DMA_FROM_DEVICE 0x2
#define EDU_DMA_INTERRUPT 0x4

#define EDU_BUFFER 0x40000 /* the device's own buffer, in its DMA address space */
#define EDU_BUFFER_LENGTH 4096
#define EDU_DMA_LIMIT ((1u << 28) - 1) /* the highest address it can reach */

static const GUID EduInterface = {0xa5c3ee1d, 0x3a66, 0x4b9f, {0x9e, 0x11, 0x84, 0x52, 0x6c, 0x0e, 0xed, 0x01}};

typedef struct _EDU {
    FDO Fdo;
    PUCHAR Registers;
    ULONG Length;
    PKINTERRUPT Interrupt;
    BOOLEAN Message;
    PUCHAR Buffer; /* EDU_BUFFER_LENGTH bytes the device can reach */
    PHYSICAL_ADDRESS BufferAddress;
    KDPC Dpc;
    volatile LONG Pending; /* interrupt status bits the ISR took and the DPC has not seen */
    volatile LONG Taken;

    IO_CSQ Queue;
    KSPIN_LOCK QueueLock;
    LIST_ENTRY QueueList;

    /* Under OperationLock, which is taken before QueueLock. */
    KSPIN_LOCK OperationLock;
    BOOLEAN Awake; /* started and in D0: operations may begin */
    BOOLEAN Back;  /* of a ROUND: the second half is under way */
    PIRP Current;  /* the request the hardware works for */
    KEVENT Quiet;  /* Current is NULL */
} EDU, *PEDU;

static ULONG Read(PEDU Edu, ULONG At)
{
    return READ_REGISTER_ULONG((PULONG)(Edu->Registers + At));
}

static VOID Write(PEDU Edu, ULONG At, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Edu->Registers + At), Value);
}

/* The DMA registers are 64 bits wide. */
static VOID Write64(PEDU Edu, ULONG At, ULONG64 Value)
{
    *(volatile ULONG64 *)(Edu->Registers + At) = Value;
}

/* ---- The queue ---- */

static VOID NTAPI InsertQueue(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&CONTAINING_RECORD(Csq, EDU, Queue)->QueueList, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI RemoveQueue(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

/* Context: a file object whose requests are wanted, or NULL for any. */
static PIRP NTAPI PeekQueue(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PLIST_ENTRY head = &CONTAINING_RECORD(Csq, EDU, Queue)->QueueList;
    PLIST_ENTRY entry = Irp == NULL ? head->Flink : Irp->Tail.Overlay.ListEntry.Flink;

    for (; entry != head; entry = entry->Flink) {
        PIRP next = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        if (Context == NULL || IoGetCurrentIrpStackLocation(next)->FileObject == Context)
            return next;
    }
    return NULL;
}

static VOID NTAPI LockQueue(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, EDU, Queue)->QueueLock, Irql);
}

static VOID NTAPI UnlockQueue(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, EDU, Queue)->QueueLock, Irql);
}

static VOID NTAPI CancelQueued(PIO_CSQ Csq, PIRP Irp)
{
    FdoComplete(&CONTAINING_RECORD(Csq, EDU, Queue)->Fdo, Irp, STATUS_CANCELLED, 0);
}

/* ---- Operations ---- */

static BOOLEAN IsRound(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode == IOCTL_OF(1);
}

static ULONG InputLength(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.InputBufferLength;
}

static VOID Transfer(PEDU Edu, ULONG Length, BOOLEAN FromDevice)
{
    ULONG64 memory = (ULONG64)Edu->BufferAddress.QuadPart;

    Write64(Edu, EDU_DMA_SOURCE, FromDevice ? EDU_BUFFER : memory);
    Write64(Edu, EDU_DMA_DESTINATION, FromDevice ? memory : EDU_BUFFER);
    Write64(Edu, EDU_DMA_COUNT, Length);
    Write64(Edu, EDU_DMA_COMMAND,
            EDU_DMA_START | EDU_DMA_INTERRUPT | (FromDevice ? EDU_DMA_FROM_DEVICE : 0));
}

/* Gives the hardware the next request, if it is free and awake. At IRQL <= DISPATCH_LEVEL. */
static VOID StartNext(PEDU Edu)
{
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&Edu->OperationLock, &irql);
    if (Edu->Awake && Edu->Current == NULL && (irp = IoCsqRemoveNextIrp(&Edu->Queue, NULL)) != NULL) {
        Edu->Current = irp;
        KeClearEvent(&Edu->Quiet);
        if (IsRound(irp)) {
            Edu->Back = FALSE;
            RtlCopyMemory(Edu->Buffer, irp->AssociatedIrp.SystemBuffer, InputLength(irp));
            Transfer(Edu, InputLength(irp), FALSE);
        } else {
            Write(Edu, EDU_FACTORIAL, *(PULONG)irp->AssociatedIrp.SystemBuffer);
        }
    }
    KeReleaseSpinLock(&Edu->OperationLock, irql);
}

/* Takes the current request from the hardware; the caller holds OperationLock and completes it after. */
static PIRP TakeCurrent(PEDU Edu)
{
    PIRP irp = Edu->Current;

    Edu->Current = NULL;
    KeSetEvent(&Edu->Quiet, IO_NO_INCREMENT, FALSE);
    return irp;
}

static VOID NTAPI EduDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PEDU edu = Context;
    LONG bits = InterlockedExchange(&edu->Pending, 0);
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR information = 0;
    PIRP done = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&edu->OperationLock);
    if (edu->Current != NULL && IsRound(edu->Current) && (bits & EDU_INTERRUPT_DMA)) {
        ULONG length = InputLength(edu->Current);

        if (!edu->Back) {
            edu->Back = TRUE;
            RtlZeroMemory(edu->Buffer, EDU_BUFFER_LENGTH);
            Transfer(edu, length, TRUE);
        } else {
            done = TakeCurrent(edu);
            if (RtlCompareMemory(edu->Buffer, done->AssociatedIrp.SystemBuffer, length) != length)
                status = STATUS_DATA_ERROR;
            RtlCopyMemory(done->AssociatedIrp.SystemBuffer, edu->Buffer, length);
            information = NT_SUCCESS(status) ? length : 0;
        }
    } else if (edu->Current != NULL && !IsRound(edu->Current) && (bits & EDU_INTERRUPT_FACTORIAL)) {
        done = TakeCurrent(edu);
        *(PULONG)done->AssociatedIrp.SystemBuffer = Read(edu, EDU_FACTORIAL);
        information = sizeof(ULONG);
    }
    KeReleaseSpinLockFromDpcLevel(&edu->OperationLock);
    if (done != NULL) {
        StartNext(edu); /* before the completion: that may be the last thing that keeps the device */
        FdoComplete(&edu->Fdo, done, status, information);
    }
}

static BOOLEAN NTAPI OnInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    PEDU edu = Context;
    ULONG status = Read(edu, EDU_INTERRUPT_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (status == 0 || status == ~0u)
        return FALSE;
    Write(edu, EDU_ACKNOWLEDGE, status);
    InterlockedIncrement(&edu->Taken);
    InterlockedOr(&edu->Pending, (LONG)status);
    KeInsertQueueDpc(&edu->Dpc, NULL, NULL);
    return TRUE;
}

/* ---- What the frame calls ---- */

static NTSTATUS EduInit(PFDO Fdo)
{
    PEDU edu = CONTAINING_RECORD(Fdo, EDU, Fdo);

    KeInitializeSpinLock(&edu->QueueLock);
    KeInitializeSpinLock(&edu->OperationLock);
    InitializeListHead(&edu->QueueList);
    KeInitializeEvent(&edu->Quiet, NotificationEvent, TRUE);
    KeInitializeDpc(&edu->Dpc, EduDpc, edu);
    return IoCsqInitialize(&edu->Queue, InsertQueue, RemoveQueue, PeekQueue, LockQueue, UnlockQueue, CancelQueued);
}

static VOID SetAwake(PEDU Edu, BOOLEAN Awake)
{
    KIRQL irql;

    KeAcquireSpinLock(&Edu->OperationLock, &irql);
    Edu->Awake = Awake;
    if (Awake)
        Write(Edu, EDU_STATUS, EDU_STATUS_INTERRUPT);
    KeReleaseSpinLock(&Edu->OperationLock, irql);
}

static NTSTATUS EduStart(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    PEDU edu = CONTAINING_RECORD(Fdo, EDU, Fdo);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR interrupt = FdoResource(Translated, CmResourceTypeInterrupt, 0);
    IO_CONNECT_INTERRUPT_PARAMETERS connect;
    PHYSICAL_ADDRESS low, high, boundary;
    NTSTATUS status;

    if (interrupt == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    edu->Registers = FdoMapRegisters(Translated, EDU_LENGTH, &edu->Length);
    if (edu->Registers == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if ((Read(edu, EDU_ID) & EDU_ID_MASK) != EDU_ID_VALUE) {
        status = STATUS_DEVICE_CONFIGURATION_ERROR;
        goto no_buffer;
    }

    low.QuadPart = 0;
    high.QuadPart = EDU_DMA_LIMIT;
    boundary.QuadPart = 0;
    edu->Buffer = MmAllocateContiguousMemorySpecifyCache(EDU_BUFFER_LENGTH, low, high, boundary, MmCached);
    if (edu->Buffer == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto no_buffer;
    }
    edu->BufferAddress = MmGetPhysicalAddress(edu->Buffer);

    edu->Message = (interrupt->Flags & CM_RESOURCE_INTERRUPT_MESSAGE) != 0;
    RtlZeroMemory(&connect, sizeof(connect));
    connect.Version = CONNECT_FULLY_SPECIFIED;
    connect.FullySpecified.PhysicalDeviceObject = Fdo->Pdo;
    connect.FullySpecified.InterruptObject = &edu->Interrupt;
    connect.FullySpecified.ServiceRoutine = OnInterrupt;
    connect.FullySpecified.ServiceContext = edu;
    connect.FullySpecified.SynchronizeIrql = (KIRQL)interrupt->u.Interrupt.Level;
    connect.FullySpecified.Irql = (KIRQL)interrupt->u.Interrupt.Level;
    connect.FullySpecified.Vector = interrupt->u.Interrupt.Vector;
    connect.FullySpecified.ProcessorEnableMask = interrupt->u.Interrupt.Affinity;
    connect.FullySpecified.InterruptMode =
        interrupt->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive;
    connect.FullySpecified.ShareVector = interrupt->ShareDisposition == CmResourceShareShared;
    status = IoConnectInterruptEx(&connect);
    if (!NT_SUCCESS(status))
        goto no_interrupt;
    SetAwake(edu, TRUE);
    return STATUS_SUCCESS;

no_interrupt:
    MmFreeContiguousMemory(edu->Buffer);
    edu->Buffer = NULL;
no_buffer:
    MmUnmapIoSpace(edu->Registers, edu->Length);
    edu->Registers = NULL;
    return status;
}

/* Cancels the waiting requests of a file object, or all; the current one is left to the hardware. */
static VOID EduDrain(PFDO Fdo, PFILE_OBJECT File)
{
    PEDU edu = CONTAINING_RECORD(Fdo, EDU, Fdo);
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&edu->Queue, File)) != NULL)
        FdoComplete(Fdo, irp, STATUS_CANCELLED, 0);
}

/* Lets no operation begin, and waits for the one under way: a transfer of the device can't be called back. */
static VOID Rest(PEDU Edu)
{
    SetAwake(Edu, FALSE);
    if (!Edu->Fdo.Gone)
        KeWaitForSingleObject(&Edu->Quiet, Executive, KernelMode, FALSE, NULL);
}

static VOID EduStop(PFDO Fdo)
{
    PEDU edu = CONTAINING_RECORD(Fdo, EDU, Fdo);
    IO_DISCONNECT_INTERRUPT_PARAMETERS disconnect;
    PIRP irp = NULL;
    KIRQL irql;

    Rest(edu);
    if (!Fdo->Gone)
        Write(edu, EDU_STATUS, 0);
    disconnect.Version = CONNECT_FULLY_SPECIFIED;
    disconnect.ConnectionContext.InterruptObject = edu->Interrupt;
    IoDisconnectInterruptEx(&disconnect);
    KeFlushQueuedDpcs();
    edu->Interrupt = NULL;

    /* Gone in the middle of an operation: no interrupt will complete it. */
    KeAcquireSpinLock(&edu->OperationLock, &irql);
    if (edu->Current != NULL)
        irp = TakeCurrent(edu);
    KeReleaseSpinLock(&edu->OperationLock, irql);
    if (irp != NULL)
        FdoComplete(Fdo, irp, STATUS_DEVICE_DOES_NOT_EXIST, 0);

    InterlockedExchange(&edu->Pending, 0);
    MmFreeContiguousMemory(edu->Buffer);
    MmUnmapIoSpace(edu->Registers, edu->Length);
    edu->Buffer = NULL;
    edu->Registers = NULL;
}

static VOID EduPower(PFDO Fdo, BOOLEAN On)
{
    PEDU edu = CONTAINING_RECORD(Fdo, EDU, Fdo);

    if (On) {
        SetAwake(edu, TRUE);
        StartNext(edu);
    } else {
        Rest(edu); /* DO_POWER_PAGABLE: at PASSIVE_LEVEL */
    }
}

static NTSTATUS EduControl(PFDO Fdo, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PEDU edu = CONTAINING_RECORD(Fdo, EDU, Fdo);
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Stack->Parameters.DeviceIoControl.OutputBufferLength;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_OF(0):
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return FdoComplete(Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
        break;

    case IOCTL_OF(1):
        if (in == 0 || in > EDU_BUFFER_LENGTH || out < in)
            return FdoComplete(Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
        break;

    case IOCTL_OF(2):
        if (in < sizeof(ULONG) || out < 2 * sizeof(ULONG))
            return FdoComplete(Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
        Write(edu, EDU_LIVENESS, buffer[0]);
        buffer[0] = Read(edu, EDU_LIVENESS);
        buffer[1] = Read(edu, EDU_ID);
        return FdoComplete(Fdo, Irp, STATUS_SUCCESS, 2 * sizeof(ULONG));

    case IOCTL_OF(3):
        if (out < 2 * sizeof(ULONG))
            return FdoComplete(Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        buffer[0] = edu->Message;
        buffer[1] = (ULONG)edu->Taken;
        return FdoComplete(Fdo, Irp, STATUS_SUCCESS, 2 * sizeof(ULONG));

    default:
        return FdoComplete(Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }

    IoCsqInsertIrp(&edu->Queue, Irp, NULL); /* marks it pending */
    StartNext(edu);
    return STATUS_PENDING;
}

const DRIVER_CLASS Class = {
    .Name = L"Edu",
    .Interface = &EduInterface,
    .ExtensionSize = sizeof(EDU),
    .Init = EduInit,
    .Start = EduStart,
    .Stop = EduStop,
    .Control = EduControl,
    .Drain = EduDrain,
    .Power = EduPower,
};
