/*
 * exports_io: device properties, device timers, events with handles, callback objects, push locks, the error log.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "exports.h"
#include "more.h"

static ULONG Ticks, Notified;

static VOID NTAPI OnTimer(PDEVICE_OBJECT Device, PVOID Context)
{
    CHECK(KeGetCurrentIrql() == DISPATCH_LEVEL);
    CHECK(Context == &Ticks);
    CHECK(Device != NULL);
    Ticks++;
}

static VOID NTAPI OnNotify(PVOID Context, PVOID First, PVOID Second)
{
    CHECK(First == &Ticks && Second == &Notified);
    Notified = Notified * 10 + (ULONG)(ULONG_PTR)Context;
}

static VOID Properties(PFDO Fdo)
{
    WCHAR text[256];
    ULONG length = 0, number = 0;

    GIVES(STATUS_INVALID_DEVICE_REQUEST,
          IoGetDeviceProperty(Fdo->Self, DevicePropertyBusNumber, sizeof number, &number, &length));
    GIVES(STATUS_BUFFER_TOO_SMALL, IoGetDeviceProperty(Fdo->Pdo, DevicePropertyHardwareID, 2, text, &length));
    CHECK(length > 20);
    GIVES(STATUS_SUCCESS, IoGetDeviceProperty(Fdo->Pdo, DevicePropertyHardwareID, sizeof text, text, &length));
    CHECK(text[0] == 'P' && text[8] == '1' && text[length / 2 - 1] == 0 && text[length / 2 - 2] == 0);
    GIVES(STATUS_SUCCESS, IoGetDeviceProperty(Fdo->Pdo, DevicePropertyLegacyBusType, 4, &number, &length));
    CHECK(number == PCIBus && length == 4);
    GIVES(STATUS_SUCCESS, IoGetDeviceProperty(Fdo->Pdo, DevicePropertyEnumeratorName, sizeof text, text, &length));
    CHECK(length == 8 && text[0] == 'P' && text[2] == 'I' && text[3] == 0);
    GIVES(STATUS_OBJECT_NAME_NOT_FOUND,
          IoGetDeviceProperty(Fdo->Pdo, DevicePropertyFriendlyName, sizeof text, text, &length));
}

static VOID Timer(PFDO Fdo)
{
    LARGE_INTEGER wait;

    GIVES(STATUS_SUCCESS, IoInitializeTimer(Fdo->Self, OnTimer, &Ticks));
    IoStartTimer(Fdo->Self);
    wait.QuadPart = -25000000;
    GIVES(STATUS_SUCCESS, KeDelayExecutionThread(KernelMode, FALSE, &wait));
    CHECK(Ticks == 2);
    IoStopTimer(Fdo->Self);
    GIVES(STATUS_SUCCESS, KeDelayExecutionThread(KernelMode, FALSE, &wait));
    CHECK(Ticks == 2);
}

static VOID Events(void)
{
    UNICODE_STRING name;
    HANDLE handle = NULL, again = NULL;
    PKEVENT event, object = NULL;
    LARGE_INTEGER none;
    LONG before = 7;

    none.QuadPart = 0;
    RtlInitUnicodeString(&name, L"\\BaseNamedObjects\\ExportsTest");
    event = IoCreateNotificationEvent(&name, &handle);
    CHECK(event != NULL && KeReadStateEvent(event) == 1);
    CHECK(IoCreateNotificationEvent(&name, &again) == event && again != handle);
    GIVES(STATUS_SUCCESS, ObReferenceObjectByHandle(again, EVENT_ALL_ACCESS, *ExEventObjectType, KernelMode,
                                                    (PVOID *)&object, NULL));
    CHECK(object == event);
    ObDereferenceObject(object);
    GIVES(STATUS_SUCCESS, ZwClose(again));
    KeClearEvent(event);
    GIVES(STATUS_TIMEOUT, ZwWaitForSingleObject(handle, FALSE, &none));
    GIVES(STATUS_SUCCESS, ZwSetEvent(handle, &before));
    CHECK(before == 0 && KeReadStateEvent(event) == 1);
    GIVES(STATUS_SUCCESS, ZwWaitForSingleObject(handle, FALSE, NULL));
    GIVES(STATUS_SUCCESS, ZwClose(handle));
    GIVES(STATUS_INVALID_HANDLE, ZwSetEvent(handle, NULL));
    GIVES(STATUS_SUCCESS, ZwCreateEvent(&handle, EVENT_ALL_ACCESS, NULL, SynchronizationEvent, TRUE));
    GIVES(STATUS_SUCCESS, ZwWaitForSingleObject(handle, FALSE, &none));
    GIVES(STATUS_TIMEOUT, ZwWaitForSingleObject(handle, FALSE, &none));
    GIVES(STATUS_SUCCESS, ZwClose(handle));
}

static VOID Callbacks(void)
{
    UNICODE_STRING name;
    OBJECT_ATTRIBUTES attributes;
    PCALLBACK_OBJECT object = NULL, same = NULL;
    PVOID one, two;

    RtlInitUnicodeString(&name, L"\\Callback\\ExportsTest");
    InitializeObjectAttributes(&attributes, &name, OBJ_CASE_INSENSITIVE, NULL, NULL);
    GIVES(STATUS_OBJECT_NAME_NOT_FOUND, ExCreateCallback(&object, &attributes, FALSE, TRUE));
    GIVES(STATUS_SUCCESS, ExCreateCallback(&object, &attributes, TRUE, TRUE));
    GIVES(STATUS_SUCCESS, ExCreateCallback(&same, &attributes, FALSE, TRUE));
    CHECK(object == same);
    one = ExRegisterCallback(object, OnNotify, (PVOID)1);
    two = ExRegisterCallback(object, OnNotify, (PVOID)2);
    CHECK(one != NULL && two != NULL);
    ExNotifyCallback(object, &Ticks, &Notified);
    CHECK(Notified == 12);
    ExUnregisterCallback(one);
    ExNotifyCallback(object, &Ticks, &Notified);
    CHECK(Notified == 122);
    ExUnregisterCallback(two);
}

static VOID Rest(PFDO Fdo)
{
    PCONFIGURATION_INFORMATION information = IoGetConfigurationInformation();
    PIO_ERROR_LOG_PACKET packet;
    PVOID process = NULL;
    ULONG basic[16], needed = 0;

    CHECK(information != NULL && information->DiskCount == 0);
    information->SerialCount++;
    CHECK(IoGetConfigurationInformation() == information && information->SerialCount == 1);
    CHECK(IoAllocateErrorLogEntry(Fdo->Self, 255) == NULL);
    packet = IoAllocateErrorLogEntry(Fdo->Self, sizeof *packet);
    CHECK(packet != NULL);
    packet->ErrorCode = 0xc0040005;
    IoWriteErrorLogEntry(packet);
    GIVES(STATUS_SUCCESS, PsLookupProcessByProcessId((HANDLE)4, (PVOID)&process));
    CHECK(process == (PVOID)PsInitialSystemProcess && process == (PVOID)IoGetCurrentProcess());
    GIVES(STATUS_INVALID_CID, PsLookupProcessByProcessId((HANDLE)1234, (PVOID)&process));
    GIVES(STATUS_INFO_LENGTH_MISMATCH, ZwQuerySystemInformation(0, basic, 4, &needed));
    CHECK(needed == 64);
    GIVES(STATUS_SUCCESS, ZwQuerySystemInformation(0, basic, sizeof basic, NULL));
    CHECK(basic[2] == PAGE_SIZE && basic[14] == KeQueryActiveProcessorCount(NULL));
}

static VOID Run(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(Translated);
    Properties(Fdo);
    Timer(Fdo);
    Events();
    Callbacks();
    Rest(Fdo);
}
