/*
 * The frame of the drivers that call exports and compare what they do with what Microsoft documents. Every check that
 * fails is printed; START fails if any did. Checks run in START, at PASSIVE_LEVEL, on one device.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef EXPORTS_H
#define EXPORTS_H

#include <ddk/ntddk.h>
#include "fdo.h"

#ifndef RTL_QUERY_REGISTRY_TYPECHECK
#define RTL_QUERY_REGISTRY_TYPECHECK 0x100
#define RTL_QUERY_REGISTRY_TYPECHECK_SHIFT 24
#endif

static ULONG Checks, Mismatches;

static inline void Checked(BOOLEAN Holds, const char *What, ULONG Line)
{
    Checks++;
    if (!Holds) {
        Mismatches++;
        DbgPrint("MISMATCH line %lu: %s\n", Line, What);
    }
}

#define CHECK(condition) Checked((condition) ? TRUE : FALSE, #condition, __LINE__)

/* A call's status, printed when it is another. */
static inline void Status(NTSTATUS Got, NTSTATUS Want, const char *What, ULONG Line)
{
    Checks++;
    if (Got != Want) {
        Mismatches++;
        DbgPrint("MISMATCH line %lu: %s gives %08lx, not %08lx\n", Line, What, (ULONG)Got, (ULONG)Want);
    }
}

#define GIVES(want, call) Status((call), (want), #call, __LINE__)

static VOID Run(PFDO Fdo, PCM_RESOURCE_LIST Translated);

static NTSTATUS Start(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    Checks = Mismatches = 0;
    Run(Fdo, Translated);
    DbgPrint("%lu checks, %lu mismatches\n", Checks, Mismatches);
    return Mismatches ? STATUS_UNSUCCESSFUL : STATUS_SUCCESS;
}

static NTSTATUS Init(PFDO Fdo)
{
    UNREFERENCED_PARAMETER(Fdo);
    return STATUS_SUCCESS;
}

static VOID Stop(PFDO Fdo)
{
    UNREFERENCED_PARAMETER(Fdo);
}

static NTSTATUS Control(PFDO Fdo, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    UNREFERENCED_PARAMETER(Stack);
    return FdoComplete(Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

/* {6C1E7B3A-0D34-4F6E-9A55-6D1B1F0A7E01} */
static const GUID ExportsInterface = {0x6c1e7b3a, 0x0d34, 0x4f6e, {0x9a, 0x55, 0x6d, 0x1b, 0x1f, 0x0a, 0x7e, 0x01}};

const DRIVER_CLASS Class = {
    .Name = L"Exports",
    .Interface = &ExportsInterface,
    .ExtensionSize = sizeof(FDO),
    .Init = Init,
    .Start = Start,
    .Stop = Stop,
    .Control = Control,
};

static inline BOOLEAN Same(PCUNICODE_STRING String, const WCHAR *Text)
{
    UNICODE_STRING other;

    RtlInitUnicodeString(&other, Text);
    return RtlEqualUnicodeString(String, &other, FALSE);
}

#endif
