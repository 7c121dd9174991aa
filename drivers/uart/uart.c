/*
 * uart: a driver for a 16550 at I/O ports, on ISA or on a PCI card, by programmed I/O.
 *
 * Writes go through StartIo, one at a time: the transmitter's interrupt feeds the FIFO, and the DPC completes the
 * request when the last character has left the holding register. Received characters go into a buffer, and a read
 * takes what is there. The service routine loops until the chip has nothing more to say: on an edge, a cause left
 * behind would never interrupt again.
 *
 * Control codes:
 *   IOCTL_OF(0) WRITE   in: characters                    completes when they are sent; Information: how many
 *   IOCTL_OF(1) READ    out: characters                   those received and not read, as many as fit
 *   IOCTL_OF(2) COUNTS  out: interrupts, received, sent, overruns  (ULONGs, little-endian)
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "fdo.h"

#define DATA 0 /* RBR and THR; with DLAB the divisor, low */
#define IER 1  /* with DLAB the divisor, high */
#define IIR 2  /* FCR when written */
#define LCR 3
#define MCR 4
#define LSR 5
#define MSR 6
#define PORTS 8

#define IER_ALL 0x0f
#define IIR_NONE 0x01
#define IIR_CAUSE 0x0f
#define FCR_ON 0xc7 /* FIFOs on and empty, interrupt at 14 characters */
#define LCR_8N1 0x03
#define LCR_DLAB 0x80
#define MCR_ON 0x0b /* DTR, RTS, and OUT2, which lets the interrupt out */
#define LSR_DATA 0x01
#define LSR_OVERRUN 0x02
#define LSR_EMPTY 0x20
#define DIVISOR 1 /* 115200 baud */
#define FIFO 16
#define BUFFER 256

static const GUID UartInterface = {0x7b1f3a60, 0x55aa, 0x4d2e, {0x8c, 0x16, 0x55, 0x0a, 0x16, 0x55, 0xd1, 0xa3}};

typedef struct _UART {
    FDO Fdo;
    PUCHAR Ports;
    PKINTERRUPT Interrupt;

    /* Under the interrupt object's lock. */
    BOOLEAN Writing; /* the current request is being sent */
    PUCHAR Next;
    ULONG Left;
    UCHAR Buffer[BUFFER];
    ULONG First;
    ULONG Waiting;
    ULONG Interrupts;
    ULONG Received;
    ULONG Sent;
    ULONG Overruns;
} UART, *PUART;

static UCHAR In(PUART Uart, ULONG At)
{
    return READ_PORT_UCHAR(Uart->Ports + At);
}

static VOID Out(PUART Uart, ULONG At, UCHAR Value)
{
    WRITE_PORT_UCHAR(Uart->Ports + At, Value);
}

/* ---- At the device's IRQL, under the interrupt object's lock ---- */

/* The transmitter is empty: fills its FIFO, or ends the request. */
static VOID Feed(PUART Uart)
{
    ULONG i;

    if (!Uart->Writing)
        return;
    if (Uart->Left == 0) {
        Uart->Writing = FALSE;
        IoRequestDpc(Uart->Fdo.Self, Uart->Fdo.Self->CurrentIrp, NULL);
        return;
    }
    for (i = 0; i < FIFO && Uart->Left > 0; i++) {
        Out(Uart, DATA, *Uart->Next++);
        Uart->Left--;
        Uart->Sent++;
    }
}

static VOID Drain(PUART Uart)
{
    UCHAR status;

    while ((status = In(Uart, LSR)) != 0xff && (status & LSR_DATA) != 0) {
        UCHAR c = In(Uart, DATA);

        if ((status & LSR_OVERRUN) != 0)
            Uart->Overruns++;
        if (Uart->Waiting == BUFFER) {
            Uart->Overruns++;
            continue;
        }
        Uart->Buffer[(Uart->First + Uart->Waiting++) % BUFFER] = c;
        Uart->Received++;
    }
}

static BOOLEAN NTAPI OnInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    PUART uart = Context;
    BOOLEAN ours = FALSE;
    UCHAR cause;

    UNREFERENCED_PARAMETER(Interrupt);
    /* All ones: the device is gone. */
    while ((cause = In(uart, IIR)) != 0xff && (cause & IIR_NONE) == 0) {
        ours = TRUE;
        switch (cause & IIR_CAUSE) {
        case 0x06: /* line status: the read in Drain clears it */
        case 0x04: /* characters up to the trigger */
        case 0x0c: /* characters below it, for a while */
            Drain(uart);
            break;
        case 0x02: /* the transmitter is empty; reading IIR has acknowledged it */
            Feed(uart);
            break;
        default:
            (VOID)In(uart, MSR);
            break;
        }
    }
    if (ours)
        uart->Interrupts++;
    return ours;
}

static BOOLEAN NTAPI Begin(PVOID Context)
{
    PUART uart = Context;
    PIRP irp = uart->Fdo.Self->CurrentIrp;

    uart->Next = irp->AssociatedIrp.SystemBuffer;
    uart->Left = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.InputBufferLength;
    uart->Writing = TRUE;
    /* An empty transmitter does not interrupt again by itself. */
    if ((In(uart, LSR) & LSR_EMPTY) != 0)
        Feed(uart);
    return TRUE;
}

/* Takes the current request back from the interrupt: FALSE when its DPC is on the way, or there is none. */
static BOOLEAN NTAPI TakeBack(PVOID Context)
{
    PUART uart = Context;
    BOOLEAN writing = uart->Writing;

    uart->Writing = FALSE;
    return writing;
}

typedef struct _FILL {
    PUART Uart;
    PUCHAR To;
    ULONG Length;
} FILL, *PFILL;

/* Takes the characters there are, at most Length, and says how many in Length. */
static BOOLEAN NTAPI TakeCharacters(PVOID Context)
{
    PFILL fill = Context;
    PUART uart = fill->Uart;
    ULONG i;

    if (fill->Length > uart->Waiting)
        fill->Length = uart->Waiting;
    for (i = 0; i < fill->Length; i++)
        fill->To[i] = uart->Buffer[(uart->First + i) % BUFFER];
    uart->First = (uart->First + fill->Length) % BUFFER;
    uart->Waiting -= fill->Length;
    return TRUE;
}

static BOOLEAN NTAPI Count(PVOID Context)
{
    PFILL fill = Context;
    PULONG out = (PULONG)fill->To;

    out[0] = fill->Uart->Interrupts;
    out[1] = fill->Uart->Received;
    out[2] = fill->Uart->Sent;
    out[3] = fill->Uart->Overruns;
    return TRUE;
}

static BOOLEAN NTAPI Enable(PVOID Context)
{
    PUART uart = Context;

    Out(uart, LCR, LCR_DLAB);
    Out(uart, DATA, DIVISOR);
    Out(uart, IER, 0);
    Out(uart, LCR, LCR_8N1);
    Out(uart, IIR, FCR_ON);
    Out(uart, MCR, MCR_ON);
    Out(uart, IER, IER_ALL);
    return TRUE;
}

static BOOLEAN NTAPI Disable(PVOID Context)
{
    PUART uart = Context;

    Out(uart, IER, 0);
    Out(uart, MCR, 0);
    (VOID)In(uart, LSR);
    return TRUE;
}

/* ---- Writes: StartIo and the device object's own DPC ---- */

static VOID NTAPI DpcForIsr(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PUART uart = Device->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.InputBufferLength;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    IoStartNextPacket(Device, TRUE);
    FdoComplete(&uart->Fdo, Irp, STATUS_SUCCESS, length);
}

static VOID NTAPI CancelWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PUART uart = Device->DeviceExtension;

    if (Irp == Device->CurrentIrp) {
        /* StartIo is about to find it cancelled and leaves it to us. */
        IoReleaseCancelSpinLock(Irp->CancelIrql);
        IoStartNextPacket(Device, TRUE);
    } else {
        KeRemoveEntryDeviceQueue(&Device->DeviceQueue, &Irp->Tail.Overlay.DeviceQueueEntry);
        IoReleaseCancelSpinLock(Irp->CancelIrql);
    }
    FdoComplete(&uart->Fdo, Irp, STATUS_CANCELLED, 0);
}

static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    PUART uart = Device->DeviceExtension;
    KIRQL irql;

    IoAcquireCancelSpinLock(&irql);
    if (Irp != Device->CurrentIrp || Irp->Cancel) {
        IoReleaseCancelSpinLock(irql);
        return; /* CancelWrite has it */
    }
    IoSetCancelRoutine(Irp, NULL);
    IoReleaseCancelSpinLock(irql);
    KeSynchronizeExecution(uart->Interrupt, Begin, uart);
}

/* ---- What the frame calls ---- */

static NTSTATUS UartInit(PFDO Fdo)
{
    IoInitializeDpcRequest(Fdo->Self, DpcForIsr);
    return STATUS_SUCCESS;
}

static NTSTATUS UartStart(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    PUART uart = CONTAINING_RECORD(Fdo, UART, Fdo);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR ports = FdoResource(Translated, CmResourceTypePort, 0);
    IO_CONNECT_INTERRUPT_PARAMETERS connect;
    NTSTATUS status;

    if (ports == NULL || ports->u.Port.Length < PORTS)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    uart->Ports = (PUCHAR)(ULONG_PTR)ports->u.Port.Start.QuadPart;
    RtlZeroMemory(&connect, sizeof(connect));
    connect.Version = CONNECT_LINE_BASED;
    connect.LineBased.PhysicalDeviceObject = Fdo->Pdo;
    connect.LineBased.InterruptObject = &uart->Interrupt;
    connect.LineBased.ServiceRoutine = OnInterrupt;
    connect.LineBased.ServiceContext = uart;
    status = IoConnectInterruptEx(&connect);
    if (!NT_SUCCESS(status))
        return status;
    uart->First = uart->Waiting = 0;
    KeSynchronizeExecution(uart->Interrupt, Enable, uart);
    return STATUS_SUCCESS;
}

/* Fails every write: the queued ones through their cancel routine, the current one by taking it back. */
static VOID UartDrain(PFDO Fdo, PFILE_OBJECT File)
{
    PUART uart = CONTAINING_RECORD(Fdo, UART, Fdo);
    PDEVICE_OBJECT device = Fdo->Self;
    PKDEVICE_QUEUE_ENTRY entry;
    KIRQL irql;

    if (File != NULL)
        return; /* a closing file's writes end soon: the line does not wait for anybody */
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
    if (uart->Interrupt != NULL && KeSynchronizeExecution(uart->Interrupt, TakeBack, uart)) {
        PIRP irp = device->CurrentIrp;

        device->CurrentIrp = NULL;
        FdoComplete(Fdo, irp, STATUS_CANCELLED, 0);
    }
}

static VOID UartStop(PFDO Fdo)
{
    PUART uart = CONTAINING_RECORD(Fdo, UART, Fdo);
    IO_DISCONNECT_INTERRUPT_PARAMETERS disconnect;

    if (!Fdo->Gone)
        KeSynchronizeExecution(uart->Interrupt, Disable, uart);
    disconnect.Version = CONNECT_LINE_BASED;
    disconnect.ConnectionContext.InterruptObject = uart->Interrupt;
    IoDisconnectInterruptEx(&disconnect);
    /* A DPC that is queued holds the current request: let it complete it. */
    KeFlushQueuedDpcs();
    uart->Interrupt = NULL;
}

static VOID UartPower(PFDO Fdo, BOOLEAN On)
{
    PUART uart = CONTAINING_RECORD(Fdo, UART, Fdo);

    KeSynchronizeExecution(uart->Interrupt, On ? Enable : Disable, uart);
}

static NTSTATUS UartControl(PFDO Fdo, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PUART uart = CONTAINING_RECORD(Fdo, UART, Fdo);
    ULONG in = Stack->Parameters.DeviceIoControl.InputBufferLength;
    FILL fill;

    fill.Uart = uart;
    fill.To = Irp->AssociatedIrp.SystemBuffer;
    fill.Length = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_OF(0):
        if (in == 0)
            return FdoComplete(Fdo, Irp, STATUS_SUCCESS, 0);
        IoMarkIrpPending(Irp);
        IoStartPacket(Fdo->Self, Irp, NULL, CancelWrite);
        return STATUS_PENDING;

    case IOCTL_OF(1):
        KeSynchronizeExecution(uart->Interrupt, TakeCharacters, &fill);
        return FdoComplete(Fdo, Irp, STATUS_SUCCESS, fill.Length);

    case IOCTL_OF(2):
        if (fill.Length < 4 * sizeof(ULONG))
            return FdoComplete(Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeSynchronizeExecution(uart->Interrupt, Count, &fill);
        return FdoComplete(Fdo, Irp, STATUS_SUCCESS, 4 * sizeof(ULONG));

    default:
        return FdoComplete(Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

const DRIVER_CLASS Class = {
    .Name = L"Uart",
    .Interface = &UartInterface,
    .ExtensionSize = sizeof(UART),
    .Init = UartInit,
    .Start = UartStart,
    .Stop = UartStop,
    .Control = UartControl,
    .Drain = UartDrain,
    .Power = UartPower,
    .StartIo = StartIo,
};
