/*
 * A pulse device on a line, connected CONNECT_LINE_BASED: what the drivers here have in common. Control code
 * IOCTL_OF(0) raises source 0.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef LINE_H
#define LINE_H

#include "fdo.h"
#include "pulse.h"

typedef struct _LINE {
    FDO Fdo;
    PUCHAR Registers;
    ULONG Length;
    PKINTERRUPT Interrupt;
} LINE, *PLINE;

static const GUID LineInterface = {0x7d1d3a0b, 0x52f4, 0x4d0c, {0xa4, 0x4e, 0x19, 0x60, 0x2b, 0x8d, 0x55, 0xf1}};

static NTSTATUS LineInit(PFDO Fdo)
{
    UNREFERENCED_PARAMETER(Fdo);
    return STATUS_SUCCESS;
}

static inline NTSTATUS LineConnect(PFDO Fdo, PCM_RESOURCE_LIST Translated, PKSERVICE_ROUTINE Routine)
{
    PLINE line = CONTAINING_RECORD(Fdo, LINE, Fdo);
    IO_CONNECT_INTERRUPT_PARAMETERS connect;
    NTSTATUS status;

    line->Registers = FdoMapRegisters(Translated, PULSE_LENGTH, &line->Length);
    if (line->Registers == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    RtlZeroMemory(&connect, sizeof(connect));
    connect.Version = CONNECT_LINE_BASED;
    connect.LineBased.PhysicalDeviceObject = Fdo->Pdo;
    connect.LineBased.InterruptObject = &line->Interrupt;
    connect.LineBased.ServiceRoutine = Routine;
    connect.LineBased.ServiceContext = line;
    status = IoConnectInterruptEx(&connect);
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(line->Registers, line->Length);
        return status;
    }
    PulseWrite(line->Registers, PULSE_ENABLE, 1);
    return STATUS_SUCCESS;
}

static inline VOID LineDisable(PLINE Line)
{
    if (!Line->Fdo.Gone) {
        PulseWrite(Line->Registers, PULSE_ENABLE, 0);
        (VOID)PulseRead(Line->Registers, PULSE_ENABLE);
    }
}

static inline VOID LineDisconnect(PLINE Line)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS disconnect;

    disconnect.Version = CONNECT_LINE_BASED;
    disconnect.ConnectionContext.InterruptObject = Line->Interrupt;
    IoDisconnectInterruptEx(&disconnect);
}

static NTSTATUS LineControl(PFDO Fdo, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PLINE line = CONTAINING_RECORD(Fdo, LINE, Fdo);

    if (Stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_OF(0))
        return FdoComplete(Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    PulseWrite(line->Registers, PULSE_RAISE, 1);
    return FdoComplete(Fdo, Irp, STATUS_SUCCESS, 0);
}

#define LINE_CLASS(name, start, stop)                                                                                  \
    const DRIVER_CLASS Class = {                                                                                       \
        .Name = name,                                                                                                  \
        .Interface = &LineInterface,                                                                                   \
        .ExtensionSize = sizeof(LINE),                                                                                 \
        .Init = LineInit,                                                                                              \
        .Start = start,                                                                                                \
        .Stop = stop,                                                                                                  \
        .Control = LineControl,                                                                                        \
    }

#endif
