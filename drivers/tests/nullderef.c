/*
 * nullderef: the interrupt routine reads through a pointer that nobody has set: bug check 0xD1 at DIRQL.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "line.h"

static volatile ULONG *volatile Nobody;

static BOOLEAN NTAPI OnLine(PKINTERRUPT Interrupt, PVOID Context)
{
    PLINE line = Context;
    ULONG status = PulseRead(line->Registers, PULSE_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (status == 0 || status == ~0u)
        return FALSE;
    PulseWrite(line->Registers, PULSE_STATUS, status);
    return *Nobody != 0;
}

static NTSTATUS Start(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    return LineConnect(Fdo, Translated, OnLine);
}

static VOID Stop(PFDO Fdo)
{
    PLINE line = CONTAINING_RECORD(Fdo, LINE, Fdo);

    LineDisable(line);
    LineDisconnect(line);
    MmUnmapIoSpace(line->Registers, line->Length);
}

LINE_CLASS(L"Null", Start, Stop);
