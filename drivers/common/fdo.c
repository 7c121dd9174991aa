/*
 * PnP, power and request dispatch of the sample drivers. See fdo.h.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "fdo.h"

#define FDO_TAG 0x6c717264 /* "drql" */

static volatile LONG Devices; /* devices ever added: gives each its number */

static NTSTATUS NTAPI Signal(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* Sends the IRP down and waits until the lower drivers have completed it; it is ours again afterwards. */
static NTSTATUS ForwardAndWait(PFDO Fdo, PIRP Irp)
{
    KEVENT done;
    NTSTATUS status;

    KeInitializeEvent(&done, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, Signal, &done, TRUE, TRUE, TRUE);
    status = IoCallDriver(Fdo->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&done, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

NTSTATUS FdoComplete(PFDO Fdo, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    /* The lock's tag is only compared, so the IRP may be gone by the time it is released. */
    Finish(Irp, Status, Information);
    InterlockedDecrement(&Fdo->Outstanding);
    IoReleaseRemoveLock(&Fdo->RemoveLock, Irp);
    return Status;
}

PCM_PARTIAL_RESOURCE_DESCRIPTOR FdoResource(PCM_RESOURCE_LIST List, UCHAR Type, ULONG Index)
{
    /* Through the partial list, not List->List[0]...PartialDescriptors[i]: both arrays are declared with one
     * element, and GCC takes an index beyond the first of nested ones for undefined. */
    PCM_PARTIAL_RESOURCE_LIST partial;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR at;
    ULONG i;

    if (List == NULL || List->Count == 0)
        return NULL;
    partial = &List->List[0].PartialResourceList;
    at = partial->PartialDescriptors;
    for (i = 0; i < partial->Count; i++, at++)
        if (at->Type == Type && Index-- == 0)
            return at;
    return NULL;
}

PUCHAR FdoMapRegisters(PCM_RESOURCE_LIST Translated, ULONG Least, PULONG Length)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = FdoResource(Translated, CmResourceTypeMemory, 0);

    if (memory == NULL || memory->u.Memory.Length < Least)
        return NULL;
    *Length = memory->u.Memory.Length;
    return MmMapIoSpace(memory->u.Memory.Start, memory->u.Memory.Length, MmNonCached);
}

/* Stops letting requests in. FALSE, and they are let in as before, when some are under way. */
static BOOLEAN Quiet(PFDO Fdo)
{
    LONG before = InterlockedExchange(&Fdo->Accepting, 0);

    if (Fdo->Outstanding == 0)
        return TRUE;
    InterlockedExchange(&Fdo->Accepting, before);
    return FALSE;
}

static VOID Leave(PFDO Fdo)
{
    if (InterlockedDecrement(&Fdo->Inside) == 0)
        KeSetEvent(&Fdo->Idle, IO_NO_INCREMENT, FALSE);
}

static VOID Open(PFDO Fdo)
{
    Fdo->Started = TRUE;
    KeClearEvent(&Fdo->Idle);
    InterlockedIncrement(&Fdo->Inside); /* until Halt */
    InterlockedExchange(&Fdo->Accepting, 1);
}

static VOID Halt(PFDO Fdo)
{
    InterlockedExchange(&Fdo->Accepting, 0);
    if (!Fdo->Started)
        return;
    /* Nobody is in Class.Control after this, so nothing joins a queue behind Drain or uses what Stop releases. */
    Leave(Fdo);
    KeWaitForSingleObject(&Fdo->Idle, Executive, KernelMode, FALSE, NULL);
    if (Class.Drain != NULL)
        Class.Drain(Fdo, NULL);
    Class.Stop(Fdo);
    Fdo->Started = FALSE;
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFDO fdo = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&fdo->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Finish(Irp, status, 0);

    switch (stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = ForwardAndWait(fdo, Irp);
        if (NT_SUCCESS(status))
            status = Class.Start(fdo, stack->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(status)) {
            Open(fdo);
            /* Fails harmlessly when it is enabled already: a restart after STOP. */
            IoSetDeviceInterfaceState(&fdo->Interface, TRUE);
        }
        Finish(Irp, status, 0);
        IoReleaseRemoveLock(&fdo->RemoveLock, Irp);
        return status;

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        if (!Quiet(fdo)) {
            Finish(Irp, STATUS_DEVICE_BUSY, 0);
            IoReleaseRemoveLock(&fdo->RemoveLock, Irp);
            return STATUS_DEVICE_BUSY;
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        status = ForwardAndWait(fdo, Irp);
        if (fdo->Started)
            InterlockedExchange(&fdo->Accepting, 1);
        Finish(Irp, STATUS_SUCCESS, 0);
        IoReleaseRemoveLock(&fdo->RemoveLock, Irp);
        return STATUS_SUCCESS;

    case IRP_MN_STOP_DEVICE:
        Halt(fdo);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        fdo->Gone = TRUE;
        IoSetDeviceInterfaceState(&fdo->Interface, FALSE);
        Halt(fdo);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        if (!fdo->Gone)
            IoSetDeviceInterfaceState(&fdo->Interface, FALSE);
        Halt(fdo);
        IoReleaseRemoveLockAndWait(&fdo->RemoveLock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(fdo->Lower, Irp);
        IoDetachDevice(fdo->Lower);
        IoDeleteSymbolicLink(&fdo->Link);
        RtlFreeUnicodeString(&fdo->Interface);
        IoDeleteDevice(Device);
        return status;

    default:
        break; /* not ours: passed on with its status untouched */
    }

    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(fdo->Lower, Irp);
    IoReleaseRemoveLock(&fdo->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI PoweredUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PFDO fdo = Context;

    UNREFERENCED_PARAMETER(Device);
    /* DispatchPower marked our stack location pending already. */
    if (NT_SUCCESS(Irp->IoStatus.Status) && fdo->Started)
        Class.Power(fdo, TRUE);
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&fdo->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFDO fdo = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&fdo->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return Finish(Irp, status, 0);
    }
    if (stack->MinorFunction == IRP_MN_SET_POWER && stack->Parameters.Power.Type == DevicePowerState &&
        Class.Power != NULL) {
        if (stack->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            /* The bus driver powers the device first; the hardware is touched on the IRP's way back. */
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, PoweredUp, fdo, TRUE, TRUE, TRUE);
            IoMarkIrpPending(Irp);
            PoCallDriver(fdo->Lower, Irp);
            return STATUS_PENDING;
        }
        if (fdo->Started)
            Class.Power(fdo, FALSE);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(fdo->Lower, Irp);
    IoReleaseRemoveLock(&fdo->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFDO fdo = Device->DeviceExtension;

    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(fdo->Lower, Irp);
}

static NTSTATUS NTAPI DispatchFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFDO fdo = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);

    if (stack->MajorFunction == IRP_MJ_CREATE && !fdo->Accepting)
        return Finish(Irp, STATUS_DEVICE_NOT_READY, 0);
    if (stack->MajorFunction == IRP_MJ_CLEANUP && Class.Drain != NULL)
        Class.Drain(fdo, stack->FileObject);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFDO fdo = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&fdo->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Finish(Irp, status, 0);
    /* Counted before Accepting is read: Quiet and Halt do the two in the other order, so one sees the other. */
    InterlockedIncrement(&fdo->Inside);
    InterlockedIncrement(&fdo->Outstanding);
    /* The request's own hold, until FdoComplete; the one above is this call's. */
    status = IoAcquireRemoveLock(&fdo->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        InterlockedDecrement(&fdo->Outstanding);
        Finish(Irp, status, 0);
    } else if (!fdo->Accepting) {
        status = FdoComplete(fdo, Irp, STATUS_DEVICE_NOT_READY, 0);
    } else {
        status = Class.Control(fdo, Irp, IoGetCurrentIrpStackLocation(Irp));
    }
    Leave(fdo);
    IoReleaseRemoveLock(&fdo->RemoveLock, Irp);
    return status;
}

/* Writes "<prefix><Class.Name><number>" and returns it as a counted string over the buffer. */
static UNICODE_STRING MakeName(WCHAR *Buffer, const WCHAR *Prefix, LONG Number)
{
    UNICODE_STRING name;
    ULONG n = 0;
    const WCHAR *from;

    for (from = Prefix; *from != 0; from++)
        Buffer[n++] = *from;
    for (from = Class.Name; *from != 0; from++)
        Buffer[n++] = *from;
    Buffer[n++] = (WCHAR)(L'0' + Number % 10);
    Buffer[n] = 0;
    name.Buffer = Buffer;
    name.Length = (USHORT)(n * sizeof(WCHAR));
    name.MaximumLength = (USHORT)(name.Length + sizeof(WCHAR));
    return name;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    LONG number = InterlockedIncrement(&Devices) - 1;
    WCHAR buffer[32];
    UNICODE_STRING name = MakeName(buffer, L"\\Device\\", number);
    PDEVICE_OBJECT device;
    NTSTATUS status;
    PFDO fdo;

    status = IoCreateDevice(Driver, Class.ExtensionSize, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE,
                            &device);
    if (!NT_SUCCESS(status))
        return status;
    /* The I/O manager has zeroed the extension. */
    fdo = device->DeviceExtension;
    fdo->Self = device;
    fdo->Pdo = Pdo;
    fdo->Link = MakeName(fdo->LinkBuffer, L"\\DosDevices\\", number);
    IoInitializeRemoveLock(&fdo->RemoveLock, FDO_TAG, 0, 0);
    KeInitializeEvent(&fdo->Idle, NotificationEvent, FALSE);
    status = Class.Init(fdo);
    if (!NT_SUCCESS(status))
        goto no_link;
    status = IoCreateSymbolicLink(&fdo->Link, &name);
    if (!NT_SUCCESS(status))
        goto no_link;
    status = IoRegisterDeviceInterface(Pdo, Class.Interface, NULL, &fdo->Interface);
    if (!NT_SUCCESS(status))
        goto no_interface;
    fdo->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (fdo->Lower == NULL) {
        status = STATUS_NO_SUCH_DEVICE;
        goto no_stack;
    }
    device->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;

no_stack:
    RtlFreeUnicodeString(&fdo->Interface);
no_interface:
    IoDeleteSymbolicLink(&fdo->Link);
no_link:
    IoDeleteDevice(device);
    return status;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    Driver->DriverStartIo = Class.StartIo;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    return STATUS_SUCCESS;
}
