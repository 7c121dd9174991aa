/*
 * exports_registry: the registry routines, on the keys that the lab fills.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "exports.h"

static OBJECT_ATTRIBUTES Named(PUNICODE_STRING Name, const WCHAR *Text, HANDLE Root)
{
    OBJECT_ATTRIBUTES attributes;

    RtlInitUnicodeString(Name, Text);
    InitializeObjectAttributes(&attributes, Name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, Root, NULL);
    return attributes;
}

static NTSTATUS Query(HANDLE Key, const WCHAR *Name, KEY_VALUE_INFORMATION_CLASS Kind, PVOID Buffer, ULONG Length,
                      PULONG Needed)
{
    UNICODE_STRING name;

    RtlInitUnicodeString(&name, Name);
    return ZwQueryValueKey(Key, &name, Kind, Buffer, Length, Needed);
}

static VOID HardwareKey(PFDO Fdo)
{
    HANDLE key = NULL, sub = NULL;
    UCHAR buffer[256];
    PKEY_VALUE_PARTIAL_INFORMATION partial = (PVOID)buffer;
    PKEY_VALUE_FULL_INFORMATION full = (PVOID)buffer;
    PKEY_VALUE_BASIC_INFORMATION basic = (PVOID)buffer;
    ULONG needed = 0;
    UNICODE_STRING name;
    OBJECT_ATTRIBUTES attributes;

    GIVES(STATUS_INVALID_DEVICE_REQUEST, IoOpenDeviceRegistryKey(Fdo->Self, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key));
    GIVES(STATUS_SUCCESS, IoOpenDeviceRegistryKey(Fdo->Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key));
    GIVES(STATUS_SUCCESS, Query(key, L"depth", KeyValuePartialInformation, buffer, sizeof buffer, &needed));
    CHECK(needed == 16 && partial->Type == REG_DWORD && partial->DataLength == 4 && *(PULONG)partial->Data == 7);
    GIVES(STATUS_OBJECT_NAME_NOT_FOUND, Query(key, L"none", KeyValuePartialInformation, buffer, sizeof buffer, &needed));
    /* The fixed part must fit; what does not of the rest is cut off. */
    GIVES(STATUS_BUFFER_TOO_SMALL, Query(key, L"Depth", KeyValuePartialInformation, buffer, 11, &needed));
    CHECK(needed == 16);
    GIVES(STATUS_BUFFER_OVERFLOW, Query(key, L"Depth", KeyValuePartialInformation, buffer, 14, &needed));
    CHECK(needed == 16);
    GIVES(STATUS_BUFFER_TOO_SMALL, Query(key, L"Depth", KeyValueFullInformation, buffer, 19, &needed));
    GIVES(STATUS_SUCCESS, Query(key, L"Depth", KeyValueFullInformation, buffer, sizeof buffer, &needed));
    CHECK(full->NameLength == 10 && full->DataOffset == 32 && full->DataLength == 4 && needed == 36);
    CHECK(*(PULONG)(buffer + full->DataOffset) == 7);
    GIVES(STATUS_SUCCESS, Query(key, L"Depth", KeyValueBasicInformation, buffer, sizeof buffer, &needed));
    CHECK(basic->NameLength == 10 && basic->Type == REG_DWORD && basic->Name[0] == 'D' && needed == 22);
    GIVES(STATUS_INVALID_PARAMETER, Query(key, L"Depth", 99, buffer, sizeof buffer, &needed));

    attributes = Named(&name, L"Interrupt Management\\MessageSignaledInterruptProperties", key);
    GIVES(STATUS_SUCCESS, ZwOpenKey(&sub, KEY_READ, &attributes));
    GIVES(STATUS_SUCCESS, Query(sub, L"MSISupported", KeyValuePartialInformation, buffer, sizeof buffer, &needed));
    CHECK(*(PULONG)partial->Data == 1);
    GIVES(STATUS_SUCCESS, Query(sub, L"MessageNumberLimit", KeyValuePartialInformation, buffer, sizeof buffer, &needed));
    CHECK(*(PULONG)partial->Data == 4);
    GIVES(STATUS_SUCCESS, ZwClose(sub));
    GIVES(STATUS_INVALID_HANDLE, ZwClose(sub));
    attributes = Named(&name, L"\\Interrupt Management", key);
    GIVES(STATUS_OBJECT_PATH_SYNTAX_BAD, ZwOpenKey(&sub, KEY_READ, &attributes));
    GIVES(STATUS_SUCCESS, ZwClose(key));
    GIVES(STATUS_SUCCESS, IoOpenDeviceRegistryKey(Fdo->Pdo, PLUGPLAY_REGKEY_DRIVER, KEY_READ, &key));
    GIVES(STATUS_SUCCESS, Query(key, L"DriverDesc", KeyValuePartialInformation, buffer, sizeof buffer, &needed));
    CHECK(partial->Type == REG_SZ);
    GIVES(STATUS_SUCCESS, ZwClose(key));
    GIVES(STATUS_SUCCESS, IoOpenDeviceInterfaceRegistryKey(&Fdo->Interface, KEY_ALL_ACCESS, &key));
    GIVES(STATUS_SUCCESS, ZwClose(key));
}

static VOID Keys(void)
{
    static const WCHAR service[] = L"\\Registry\\Machine\\System\\CurrentControlSet\\Services\\exports_registry";
    HANDLE key = NULL, made = NULL, child = NULL;
    UNICODE_STRING name, value, class;
    OBJECT_ATTRIBUTES attributes;
    ULONG disposition = 0, needed = 0, i, data = 42;
    UCHAR buffer[512];
    PKEY_BASIC_INFORMATION basic = (PVOID)buffer;
    PKEY_FULL_INFORMATION full = (PVOID)buffer;
    PKEY_NODE_INFORMATION node = (PVOID)buffer;

    attributes = Named(&name, service, NULL);
    GIVES(STATUS_SUCCESS, ZwOpenKey(&key, KEY_ALL_ACCESS, &attributes));
    attributes = Named(&name, L"no such path", NULL);
    GIVES(STATUS_OBJECT_PATH_SYNTAX_BAD, ZwOpenKey(&made, KEY_READ, &attributes));
    attributes = Named(&name, L"made\\below", key);
    GIVES(STATUS_OBJECT_NAME_NOT_FOUND, ZwOpenKey(&made, KEY_READ, &attributes));
    /* Only the last key of a path is made. */
    GIVES(STATUS_OBJECT_NAME_NOT_FOUND, ZwCreateKey(&made, KEY_ALL_ACCESS, &attributes, 0, NULL, 0, &disposition));
    attributes = Named(&name, L"made", key);
    RtlInitUnicodeString(&class, L"kind");
    GIVES(STATUS_SUCCESS, ZwCreateKey(&made, KEY_ALL_ACCESS, &attributes, 0, &class, REG_OPTION_VOLATILE, &disposition));
    CHECK(disposition == REG_CREATED_NEW_KEY);
    GIVES(STATUS_SUCCESS, ZwCreateKey(&child, KEY_ALL_ACCESS, &attributes, 0, NULL, 0, &disposition));
    CHECK(disposition == REG_OPENED_EXISTING_KEY);
    GIVES(STATUS_SUCCESS, ZwClose(child));
    attributes = Named(&name, L"child", made);
    GIVES(STATUS_SUCCESS, ZwCreateKey(&child, KEY_ALL_ACCESS, &attributes, 0, NULL, 0, NULL));
    RtlInitUnicodeString(&value, L"number");
    GIVES(STATUS_SUCCESS, ZwSetValueKey(made, &value, 0, REG_DWORD, &data, 4));
    GIVES(STATUS_SUCCESS, ZwQueryKey(made, KeyFullInformation, buffer, sizeof buffer, &needed));
    CHECK(full->SubKeys == 1 && full->Values == 1 && full->MaxNameLen == 10 && full->MaxValueNameLen == 12);
    CHECK(full->MaxValueDataLen == 4 && full->ClassLength == 8 && full->ClassOffset == 44 && needed == 52);
    CHECK(full->LastWriteTime.QuadPart != 0);
    GIVES(STATUS_SUCCESS, ZwEnumerateKey(made, 0, KeyBasicInformation, buffer, sizeof buffer, &needed));
    CHECK(basic->NameLength == 10 && basic->Name[0] == 'c' && needed == 26);
    GIVES(STATUS_BUFFER_OVERFLOW, ZwEnumerateKey(made, 0, KeyBasicInformation, buffer, 20, &needed));
    GIVES(STATUS_BUFFER_TOO_SMALL, ZwEnumerateKey(made, 0, KeyBasicInformation, buffer, 15, &needed));
    GIVES(STATUS_NO_MORE_ENTRIES, ZwEnumerateKey(made, 1, KeyBasicInformation, buffer, sizeof buffer, &needed));
    GIVES(STATUS_SUCCESS, ZwQueryKey(made, KeyNodeInformation, buffer, sizeof buffer, &needed));
    CHECK(node->NameLength == 8 && node->ClassLength == 8 && node->ClassOffset == 32);
    GIVES(STATUS_SUCCESS, ZwEnumerateValueKey(made, 0, KeyValueBasicInformation, buffer, sizeof buffer, &needed));
    GIVES(STATUS_NO_MORE_ENTRIES, ZwEnumerateValueKey(made, 1, KeyValueBasicInformation, buffer, sizeof buffer, &needed));
    GIVES(STATUS_CANNOT_DELETE, ZwDeleteKey(made));
    GIVES(STATUS_SUCCESS, ZwDeleteValueKey(made, &value));
    GIVES(STATUS_OBJECT_NAME_NOT_FOUND, ZwDeleteValueKey(made, &value));
    GIVES(STATUS_SUCCESS, ZwFlushKey(made));
    GIVES(STATUS_SUCCESS, ZwDeleteKey(child));
    GIVES(STATUS_KEY_DELETED, ZwDeleteKey(child));
    GIVES(STATUS_SUCCESS, ZwDeleteKey(made));
    GIVES(STATUS_KEY_DELETED, ZwSetValueKey(made, &value, 0, REG_DWORD, &data, 4));
    GIVES(STATUS_SUCCESS, ZwClose(child));
    GIVES(STATUS_SUCCESS, ZwClose(made));
    for (i = 0; NT_SUCCESS(ZwEnumerateKey(key, i, KeyBasicInformation, buffer, sizeof buffer, &needed)); i++)
        ;
    CHECK(i == 1); /* Parameters */
    GIVES(STATUS_SUCCESS, ZwClose(key));
    GIVES(STATUS_INVALID_HANDLE, ZwFlushKey(key));
}

static ULONG Calls, Sum;

static NTSTATUS NTAPI OnValue(PWSTR Name, ULONG Type, PVOID Data, ULONG Length, PVOID Context, PVOID EntryContext)
{
    Calls++;
    CHECK(Context == &Calls);
    if (Type == REG_DWORD && Length == 4)
        Sum += *(PULONG)Data;
    if (Type == REG_SZ)
        Sum += 1000 * (Length / sizeof(WCHAR) - 1);
    if (EntryContext == &Sum && Name != NULL && Name[0] == 'D')
        return STATUS_UNSUCCESSFUL;
    return STATUS_SUCCESS;
}

static VOID Tables(void)
{
    static const WCHAR path[] = L"exports_registry\\Parameters";
    RTL_QUERY_REGISTRY_TABLE table[4];
    UNICODE_STRING text;
    WCHAR room[4];
    ULONG depth = 0, fallback = 5, got = 0;
    struct {
        LONG Size;
        ULONG Type;
        UCHAR Data[16];
    } binary;

    GIVES(STATUS_SUCCESS, RtlCheckRegistryKey(RTL_REGISTRY_SERVICES, (PWSTR)path));
    GIVES(STATUS_OBJECT_NAME_NOT_FOUND, RtlCheckRegistryKey(RTL_REGISTRY_SERVICES, L"nobody"));
    /* DIRECT, with a type check and a default. */
    RtlZeroMemory(table, sizeof table);
    table[0].Flags = RTL_QUERY_REGISTRY_DIRECT | RTL_QUERY_REGISTRY_TYPECHECK;
    table[0].Name = L"Depth";
    table[0].EntryContext = &depth;
    table[0].DefaultType = (REG_DWORD << RTL_QUERY_REGISTRY_TYPECHECK_SHIFT) | REG_DWORD;
    table[0].DefaultData = &fallback;
    table[0].DefaultLength = 4;
    table[1] = table[0];
    table[1].Name = L"Missing";
    table[1].EntryContext = &got;
    GIVES(STATUS_SUCCESS, RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, path, table, NULL, NULL));
    CHECK(depth == 16 && got == 5);
    table[0].DefaultType = (REG_SZ << RTL_QUERY_REGISTRY_TYPECHECK_SHIFT) | REG_NONE;
    GIVES(STATUS_OBJECT_TYPE_MISMATCH, RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, path, table, NULL, NULL));
    /* REQUIRED */
    RtlZeroMemory(table, sizeof table);
    table[0].Flags = RTL_QUERY_REGISTRY_DIRECT | RTL_QUERY_REGISTRY_REQUIRED;
    table[0].Name = L"Missing";
    table[0].EntryContext = &got;
    GIVES(STATUS_OBJECT_NAME_NOT_FOUND, RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, path, table, NULL, NULL));
    table[0].Flags = RTL_QUERY_REGISTRY_DIRECT;
    GIVES(STATUS_SUCCESS, RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, path, table, NULL, NULL));
    table[0].Name = NULL;
    GIVES(STATUS_INVALID_PARAMETER, RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, path, table, NULL, NULL));
    /* Strings: into a buffer of the caller's, or one of the routine's. */
    RtlZeroMemory(&text, sizeof text);
    table[0].Name = L"Label";
    table[0].EntryContext = &text;
    GIVES(STATUS_SUCCESS, RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, path, table, NULL, NULL));
    CHECK(Same(&text, L"hello") && text.MaximumLength == 12);
    ExFreePool(text.Buffer);
    text.Buffer = room;
    text.MaximumLength = sizeof room;
    GIVES(STATUS_BUFFER_TOO_SMALL, RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, path, table, NULL, NULL));
    /* Binary data longer than a ULONG. */
    table[0].Name = L"Bytes";
    table[0].EntryContext = &binary;
    binary.Size = sizeof binary;
    GIVES(STATUS_SUCCESS, RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, path, table, NULL, NULL));
    CHECK(binary.Size == 6 && binary.Type == REG_BINARY && binary.Data[0] == 1 && binary.Data[5] == 6);
    binary.Size = -(LONG)sizeof binary;
    GIVES(STATUS_SUCCESS, RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, path, table, NULL, NULL));
    CHECK(*(PUCHAR)&binary == 1);
    binary.Size = 8;
    GIVES(STATUS_BUFFER_TOO_SMALL, RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, path, table, NULL, NULL));
    /* A routine: once a value, once a string of REG_MULTI_SZ, once for NOVALUE, for all of a subkey. */
    RtlZeroMemory(table, sizeof table);
    table[0].QueryRoutine = OnValue;
    table[0].Name = L"List";
    table[1].QueryRoutine = OnValue;
    table[1].Flags = RTL_QUERY_REGISTRY_NOVALUE;
    table[2].QueryRoutine = OnValue;
    table[2].Flags = RTL_QUERY_REGISTRY_SUBKEY;
    table[2].Name = L"Sub";
    Calls = Sum = 0;
    GIVES(STATUS_SUCCESS, RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, path, table, &Calls, NULL));
    CHECK(Calls == 2 + 1 + 2 && Sum == 3000 + 3);
    /* A failing routine ends it. */
    table[0].Name = L"Depth";
    table[0].EntryContext = &Sum;
    Calls = 0;
    GIVES(STATUS_UNSUCCESSFUL, RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, path, table, &Calls, NULL));
    CHECK(Calls == 1);
    /* DELETE */
    RtlZeroMemory(table, sizeof table);
    GIVES(STATUS_SUCCESS, RtlWriteRegistryValue(RTL_REGISTRY_SERVICES, path, L"Once", REG_DWORD, &fallback, 4));
    table[0].Flags = RTL_QUERY_REGISTRY_DIRECT | RTL_QUERY_REGISTRY_DELETE | RTL_QUERY_REGISTRY_REQUIRED;
    table[0].Name = L"Once";
    table[0].EntryContext = &got;
    GIVES(STATUS_SUCCESS, RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, path, table, NULL, NULL));
    GIVES(STATUS_OBJECT_NAME_NOT_FOUND, RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, path, table, NULL, NULL));
    GIVES(STATUS_OBJECT_NAME_NOT_FOUND, RtlDeleteRegistryValue(RTL_REGISTRY_SERVICES, path, L"Once"));
    /* A key that may be absent. */
    GIVES(STATUS_OBJECT_NAME_NOT_FOUND, RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, L"nobody", table, NULL, NULL));
    GIVES(STATUS_SUCCESS,
          RtlQueryRegistryValues(RTL_REGISTRY_SERVICES | RTL_REGISTRY_OPTIONAL, L"nobody", table, NULL, NULL));
    GIVES(STATUS_SUCCESS, RtlCreateRegistryKey(RTL_REGISTRY_SERVICES, L"exports_registry\\Made"));
    GIVES(STATUS_SUCCESS, RtlCheckRegistryKey(RTL_REGISTRY_SERVICES, L"exports_registry\\Made"));
}

static VOID Run(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(Translated);
    HardwareKey(Fdo);
    Keys();
    Tables();
}
