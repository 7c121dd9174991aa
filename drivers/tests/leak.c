/*
 * leak: removes its device and unloads without disconnecting the interrupt.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "line.h"

static BOOLEAN NTAPI OnLine(PKINTERRUPT Interrupt, PVOID Context)
{
    PLINE line = Context;
    ULONG status = PulseRead(line->Registers, PULSE_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (status == 0 || status == ~0u)
        return FALSE;
    PulseWrite(line->Registers, PULSE_STATUS, status);
    return TRUE;
}

static NTSTATUS Start(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    return LineConnect(Fdo, Translated, OnLine);
}

static VOID Stop(PFDO Fdo)
{
    /* The fault: no LineDisconnect. */
    LineDisable(CONTAINING_RECORD(Fdo, LINE, Fdo));
}

LINE_CLASS(L"Leak", Start, Stop);
