/*
 * What the drivers of this folder have in common: the shortest WDM frame over the pulse device that is still right.
 * A driver defines STATE, includes this, and defines Start, Stop and Control. Compiled with FIXED it is the corrected
 * twin; without, it has one defect. Requests and PnP are never sent at the same time by the labs, so there is no remove
 * lock here. One source is one message; `Isr` of a driver acknowledges its source's STATUS bit first.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef FRAME_H
#define FRAME_H

#include "more.h"
#include "pulse.h"

#define TAG 0x73677562 /* "bugs" */
#define CONTROL_OF(n) CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + (n), METHOD_BUFFERED, FILE_ANY_ACCESS)

/* The driver's own assertion: bug check 0xB06, the first parameter says which. */
#define BUG_CODE 0xB06
#define MUST(condition, which, got)                                                                                    \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            KeBugCheckEx(BUG_CODE, (which), (ULONG_PTR)(got), 0, 0);                                                   \
    } while (0)

#define MAYBE static inline __attribute__((unused))

typedef struct _DEV {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    PCM_RESOURCE_LIST Resources; /* translated; while Start runs */
    PUCHAR Registers;
    ULONG Length;
    ULONG Version; /* as the connect call returned it; 0: not connected */
    union {
        PVOID Generic;
        PKINTERRUPT Line;
        PIO_INTERRUPT_MESSAGE_INFO Messages;
    } Connection;
    KSPIN_LOCK Lock; /* of the interrupt routines, where the driver gives it to the connect call */
    BOOLEAN Started;
    BOOLEAN Gone;           /* surprise removal */
    volatile BOOLEAN Quiet; /* the interrupt routines are to start nothing new; written under their locks */
    STATE S;
} DEV, *PDEV;

static NTSTATUS Start(PDEV Dev);
static VOID Stop(PDEV Dev);
/* STATUS_PENDING: the driver marked the IRP and completes it. Otherwise the frame does. */
static NTSTATUS Control(PDEV Dev, PIRP Irp, ULONG Code);
#ifdef POWER
/* About to leave D0, or back in it; at PASSIVE_LEVEL. */
static VOID Power(PDEV Dev, BOOLEAN On);
#endif

/* ---- Interrupts ---- */

MAYBE VOID Ack(PDEV Dev, ULONG Source)
{
    PulseWrite(Dev->Registers, PULSE_STATUS, 1u << Source);
}

MAYBE VOID Enable(PDEV Dev, ULONG Mask)
{
    PulseWrite(Dev->Registers, PULSE_ENABLE, Mask);
}

/* Connects every message; Lock NULL gives each message a lock of its own (spec D-8). */
MAYBE NTSTATUS Connect(PDEV Dev, PKMESSAGE_SERVICE_ROUTINE Routine, PKSPIN_LOCK Lock)
{
    IO_CONNECT_INTERRUPT_PARAMETERS connect;
    NTSTATUS status;

    RtlZeroMemory(&connect, sizeof(connect));
    connect.Version = CONNECT_MESSAGE_BASED;
    connect.MessageBased.PhysicalDeviceObject = Dev->Pdo;
    connect.MessageBased.ConnectionContext.Generic = &Dev->Connection.Generic;
    connect.MessageBased.MessageServiceRoutine = Routine;
    connect.MessageBased.ServiceContext = Dev;
    connect.MessageBased.SpinLock = Lock;
    status = IoConnectInterruptEx(&connect);
    if (NT_SUCCESS(status))
        Dev->Version = connect.Version;
    return status;
}

MAYBE NTSTATUS ConnectLine(PDEV Dev, PKSERVICE_ROUTINE Routine)
{
    IO_CONNECT_INTERRUPT_PARAMETERS connect;
    NTSTATUS status;

    RtlZeroMemory(&connect, sizeof(connect));
    connect.Version = CONNECT_LINE_BASED;
    connect.LineBased.PhysicalDeviceObject = Dev->Pdo;
    connect.LineBased.InterruptObject = &Dev->Connection.Line;
    connect.LineBased.ServiceRoutine = Routine;
    connect.LineBased.ServiceContext = Dev;
    status = IoConnectInterruptEx(&connect);
    if (NT_SUCCESS(status))
        Dev->Version = connect.Version;
    return status;
}

/* Any interrupt object does where all share a lock. */
MAYBE PKINTERRUPT ObjectOf(PDEV Dev, ULONG Message)
{
    return Dev->Version == CONNECT_MESSAGE_BASED ? Dev->Connection.Messages->MessageInfo[Message].InterruptObject
                                                 : Dev->Connection.Line;
}

MAYBE BOOLEAN Sync(PDEV Dev, PKSYNCHRONIZE_ROUTINE Routine, PVOID Context)
{
    return KeSynchronizeExecution(ObjectOf(Dev, 0), Routine, Context);
}

MAYBE BOOLEAN NTAPI QuietRoutine(PVOID Context)
{
    PDEV dev = Context;

    dev->Quiet = TRUE;
    if (!dev->Gone)
        Enable(dev, 0);
    return TRUE;
}

/* No interrupt routine that begins after this starts anything new; those that had begun are over. */
MAYBE VOID Hush(PDEV Dev)
{
    ULONG i, count = Dev->Version == CONNECT_MESSAGE_BASED ? Dev->Connection.Messages->MessageCount : 1;

    for (i = 0; i < count; i++)
        KeSynchronizeExecution(ObjectOf(Dev, i), QuietRoutine, Dev);
}

MAYBE VOID Disconnect(PDEV Dev)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS disconnect;

    disconnect.Version = Dev->Version;
    disconnect.ConnectionContext.Generic = Dev->Connection.Generic;
    IoDisconnectInterruptEx(&disconnect);
    Dev->Connection.Generic = NULL;
    Dev->Version = 0;
}

/* ---- Small things the drivers share ---- */

/* A page: once freed it is not there, so a late access shows at once. */
MAYBE PVOID NewPage(VOID)
{
    PVOID page = ExAllocatePoolWithTag(NonPagedPool, PAGE_SIZE, TAG);

    if (page != NULL)
        RtlZeroMemory(page, sizeof(LONG));
    return page;
}

MAYBE VOID WaitFor(PKEVENT Event)
{
    KeWaitForSingleObject(Event, Executive, KernelMode, FALSE, NULL);
}

MAYBE VOID Finish(PIRP Irp, NTSTATUS Status)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
}

/* ---- PnP, power, requests ---- */

static NTSTATUS NTAPI FrameSignal(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* Sends the IRP down; it is ours again afterwards. */
static NTSTATUS FrameForward(PDEV Dev, PIRP Irp)
{
    KEVENT done;

    KeInitializeEvent(&done, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, FrameSignal, &done, TRUE, TRUE, TRUE);
    IoCallDriver(Dev->Lower, Irp);
    WaitFor(&done);
    return Irp->IoStatus.Status;
}

static NTSTATUS FrameMap(PDEV Dev)
{
    PCM_PARTIAL_RESOURCE_LIST list = &Dev->Resources->List[0].PartialResourceList;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR at = list->PartialDescriptors;
    ULONG i;

    for (i = 0; i < list->Count; i++, at++)
        if (at->Type == CmResourceTypeMemory && at->u.Memory.Length >= PULSE_LENGTH) {
            Dev->Length = at->u.Memory.Length;
            Dev->Registers = MmMapIoSpace(at->u.Memory.Start, Dev->Length, MmNonCached);
            return Dev->Registers == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
        }
    return STATUS_DEVICE_CONFIGURATION_ERROR;
}

static VOID FrameHalt(PDEV Dev)
{
    if (!Dev->Started)
        return;
    Dev->Started = FALSE;
    Stop(Dev);
    MmUnmapIoSpace(Dev->Registers, Dev->Length);
}

static NTSTATUS NTAPI FramePnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV dev = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    switch (stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = FrameForward(dev, Irp);
        dev->Resources = stack->Parameters.StartDevice.AllocatedResourcesTranslated;
        if (NT_SUCCESS(status))
            status = FrameMap(dev);
        if (NT_SUCCESS(status)) {
            status = Start(dev);
            dev->Started = NT_SUCCESS(status);
            if (!dev->Started)
                MmUnmapIoSpace(dev->Registers, dev->Length);
        }
        dev->Resources = NULL;
        Finish(Irp, status);
        return status;
    case IRP_MN_SURPRISE_REMOVAL:
        dev->Gone = TRUE;
        FrameHalt(dev);
        break;
    case IRP_MN_STOP_DEVICE:
        FrameHalt(dev);
        break;
    case IRP_MN_REMOVE_DEVICE:
        FrameHalt(dev);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(dev->Lower, Irp);
        IoDetachDevice(dev->Lower);
        IoDeleteDevice(Device);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        break;
    default:
        IoSkipCurrentIrpStackLocation(Irp);
        return IoCallDriver(dev->Lower, Irp);
    }
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(dev->Lower, Irp);
}

static NTSTATUS NTAPI FramePower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV dev = Device->DeviceExtension;

#ifdef POWER
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);

    if (stack->MinorFunction == IRP_MN_SET_POWER && stack->Parameters.Power.Type == DevicePowerState && dev->Started) {
        NTSTATUS status;
        BOOLEAN on = stack->Parameters.Power.State.DeviceState == PowerDeviceD0;

        if (!on)
            Power(dev, FALSE);
        /* The bus driver changes the state on the way down. */
        status = FrameForward(dev, Irp);
        if (on && NT_SUCCESS(status))
            Power(dev, TRUE);
        PoStartNextPowerIrp(Irp);
        Finish(Irp, status);
        return status;
    }
#endif
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    return PoCallDriver(dev->Lower, Irp);
}

static NTSTATUS NTAPI FrameFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    Finish(Irp, STATUS_SUCCESS);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI FrameControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV dev = Device->DeviceExtension;
    NTSTATUS status = STATUS_DEVICE_NOT_READY;

    if (dev->Started)
        status = Control(dev, Irp, IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode);
    if (status != STATUS_PENDING)
        Finish(Irp, status);
    return status;
}

static NTSTATUS NTAPI FrameSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(((PDEV)Device->DeviceExtension)->Lower, Irp);
}

static NTSTATUS NTAPI FrameAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    static WCHAR buffer[] = L"\\Device\\Bug0"; /* the next device's digit is one more */
    UNICODE_STRING name = {sizeof(buffer) - sizeof(WCHAR), sizeof(buffer), buffer};
    PDEVICE_OBJECT device;
    PDEV dev;
    NTSTATUS status =
        IoCreateDevice(Driver, sizeof(DEV), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);

    if (!NT_SUCCESS(status))
        return status;
    buffer[sizeof(buffer) / sizeof(WCHAR) - 2]++;
    dev = device->DeviceExtension; /* zeroed */
    dev->Self = device;
    dev->Pdo = Pdo;
    KeInitializeSpinLock(&dev->Lock);
    dev->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (dev->Lower == NULL) {
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI FrameUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = FrameAddDevice;
    Driver->DriverUnload = FrameUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = FrameFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FrameFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrameFile;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = FrameControl;
    Driver->MajorFunction[IRP_MJ_PNP] = FramePnp;
    Driver->MajorFunction[IRP_MJ_POWER] = FramePower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = FrameSystemControl;
    return STATUS_SUCCESS;
}

#endif
