/*
 * forever: START never comes back: it polls a bit that the device will not set.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "line.h"

static NTSTATUS Start(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    PLINE line = CONTAINING_RECORD(Fdo, LINE, Fdo);

    line->Registers = FdoMapRegisters(Translated, PULSE_LENGTH, &line->Length);
    if (line->Registers == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    while (PulseRead(line->Registers, PULSE_SCRATCH) == 0)
        ;
    return STATUS_SUCCESS;
}

static VOID Stop(PFDO Fdo)
{
    PLINE line = CONTAINING_RECORD(Fdo, LINE, Fdo);

    MmUnmapIoSpace(line->Registers, line->Length);
}

LINE_CLASS(L"Forever", Start, Stop);
