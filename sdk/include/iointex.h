/*
 * iointex.h: IoConnectInterruptEx for drivers that must also load before Windows Vista.
 *
 * Include it after wdm.h, ntddk.h or ntifs.h, and link iointex.lib or libiointex.a. IoConnectInterruptEx,
 * IoDisconnectInterruptEx and IoGetAffinityInterrupt then mean the routines of that library: they call the kernel's
 * own where it has them, and otherwise serve CONNECT_FULLY_SPECIFIED through IoConnectInterrupt. Another version is
 * answered with an error and Version = CONNECT_FULLY_SPECIFIED:
 *
 *     status = IoConnectInterruptEx(&connect);
 *     if (!NT_SUCCESS(status) && connect.Version == CONNECT_FULLY_SPECIFIED)
 *         ... fill connect.FullySpecified from the translated resources and call again
 *
 * Works beside the headers of mingw-w64 and of Microsoft's WDK, with GCC, Clang and MSVC, for x64 and x86. Define
 * IOINTEX_NO_ALIASES to have only the Wdmlib names.
 *
 * Own text, after the public documentation of these routines.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef DIRQL_IOINTEX_H
#define DIRQL_IOINTEX_H

#ifndef NTAPI
#error "include wdm.h, ntddk.h or ntifs.h before iointex.h"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The structures are in wdm.h whatever NTDDI_VERSION is: in mingw-w64's, and in every WDK since Windows Vista. Only
 * newer numbers may be missing.
 */
#ifndef CONNECT_FULLY_SPECIFIED
#define CONNECT_FULLY_SPECIFIED 0x1
#endif
#ifndef CONNECT_LINE_BASED
#define CONNECT_LINE_BASED 0x2
#endif
#ifndef CONNECT_MESSAGE_BASED
#define CONNECT_MESSAGE_BASED 0x3
#endif
#ifndef CONNECT_FULLY_SPECIFIED_GROUP
#define CONNECT_FULLY_SPECIFIED_GROUP 0x4
#endif
/* Windows 10: as CONNECT_MESSAGE_BASED, with routines called at PASSIVE_LEVEL. */
#ifndef CONNECT_MESSAGE_BASED_PASSIVE
#define CONNECT_MESSAGE_BASED_PASSIVE 0x5
#endif

/* For IoReportInterruptActive and IoReportInterruptInactive (Windows 8), where the header is older than they are. */
#if defined(__MINGW32__) || defined(IOINTEX_REPORT_ACTIVE)
typedef struct _IO_REPORT_INTERRUPT_ACTIVE_STATE_PARAMETERS {
    ULONG Version; /* as the connect call returned it */
    union {
        PVOID Generic;
        PKINTERRUPT InterruptObject;
        PIO_INTERRUPT_MESSAGE_INFO InterruptMessageTable;
    } ConnectionContext;
} IO_REPORT_INTERRUPT_ACTIVE_STATE_PARAMETERS, *PIO_REPORT_INTERRUPT_ACTIVE_STATE_PARAMETERS;

/* IRQL <= DISPATCH_LEVEL. Not in the library: a driver that imports them does not load before Windows 8. */
NTKERNELAPI VOID NTAPI IoReportInterruptActive(PIO_REPORT_INTERRUPT_ACTIVE_STATE_PARAMETERS Parameters);
NTKERNELAPI VOID NTAPI IoReportInterruptInactive(PIO_REPORT_INTERRUPT_ACTIVE_STATE_PARAMETERS Parameters);
#endif

struct _GROUP_AFFINITY;

/* IRQL = PASSIVE_LEVEL. */
NTSTATUS NTAPI WdmlibIoConnectInterruptEx(PIO_CONNECT_INTERRUPT_PARAMETERS Parameters);

/* IRQL = PASSIVE_LEVEL. Version is what the connect call returned. */
VOID NTAPI WdmlibIoDisconnectInterruptEx(PIO_DISCONNECT_INTERRUPT_PARAMETERS Parameters);

/* Any IRQL after a connect call. STATUS_NOT_SUPPORTED before Windows 7. */
NTSTATUS NTAPI WdmlibIoGetAffinityInterrupt(PKINTERRUPT InterruptObject, struct _GROUP_AFFINITY *GroupAffinity);

/* What offsets the library relies on: 64-bit or 32-bit pointers, default packing. */
typedef char IOINTEX_CHECK_CONNECT[sizeof(IO_CONNECT_INTERRUPT_PARAMETERS) >= (sizeof(PVOID) == 8 ? 72 : 44) ? 1 : -1];
typedef char IOINTEX_CHECK_DISCONNECT[sizeof(IO_DISCONNECT_INTERRUPT_PARAMETERS) == 2 * sizeof(PVOID) ? 1 : -1];

#ifndef IOINTEX_NO_ALIASES
#undef IoConnectInterruptEx
#undef IoDisconnectInterruptEx
#undef IoGetAffinityInterrupt
#define IoConnectInterruptEx WdmlibIoConnectInterruptEx
#define IoDisconnectInterruptEx WdmlibIoDisconnectInterruptEx
#define IoGetAffinityInterrupt WdmlibIoGetAffinityInterrupt
#endif

#ifdef __cplusplus
}
#endif

#endif
