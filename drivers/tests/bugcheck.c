/*
 * bugcheck: gives up in START, with a code and four parameters of its own.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "line.h"

static NTSTATUS Start(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(Fdo);
    UNREFERENCED_PARAMETER(Translated);
    KeBugCheckEx(0xdeadbeef, 0x11, 0x22, 0x33, 0x44);
}

static VOID Stop(PFDO Fdo)
{
    UNREFERENCED_PARAMETER(Fdo);
}

LINE_CLASS(L"Bugcheck", Start, Stop);
