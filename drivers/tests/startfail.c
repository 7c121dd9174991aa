/*
 * startfail: START fails with a warning, which NT_SUCCESS refuses as it does an error.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "line.h"

static NTSTATUS Start(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(Fdo);
    UNREFERENCED_PARAMETER(Translated);
    return STATUS_DEVICE_BUSY;
}

static VOID Stop(PFDO Fdo)
{
    UNREFERENCED_PARAMETER(Fdo);
}

LINE_CLASS(L"StartFail", Start, Stop);
