/*
 * Routines that Windows documents and mingw-w64's DDK headers do not declare.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef MORE_H
#define MORE_H

#include <ddk/wdm.h>

/* In ntddk.h; any IRQL. */
NTKERNELAPI PHYSICAL_ADDRESS NTAPI MmGetPhysicalAddress(PVOID BaseAddress);

/* In ntifs.h. */
NTKERNELAPI BOOLEAN NTAPI FsRtlIsNameInExpression(PUNICODE_STRING Expression, PUNICODE_STRING Name, BOOLEAN IgnoreCase,
                                                  PWCH UpcaseTable);

/* In wdm.h of the WDK an intrinsic: what is before it is visible before what is after. */
#ifndef KeMemoryBarrier
#define KeMemoryBarrier() __sync_synchronize()
#endif
/* In ntddk.h of before Windows 8. */
NTHALAPI ULONG NTAPI HalGetBusData(ULONG BusDataType, ULONG BusNumber, ULONG SlotNumber, PVOID Buffer, ULONG Length);

/* In ntifs.h, or left out of mingw-w64's wdm.h. */
NTSYSAPI VOID NTAPI RtlSecondsSince1970ToTime(ULONG Seconds, PLARGE_INTEGER Time);
NTSYSAPI BOOLEAN NTAPI RtlTimeToSecondsSince1970(PLARGE_INTEGER Time, PULONG Seconds);
NTSYSAPI NTSTATUS NTAPI RtlInitializeSid(PVOID Sid, const UCHAR *Authority, UCHAR Count);
NTSYSAPI PULONG NTAPI RtlSubAuthoritySid(PVOID Sid, ULONG Index);
NTSYSAPI ULONG NTAPI RtlLengthSid(PVOID Sid);
NTSYSAPI ULONG NTAPI RtlLengthRequiredSid(ULONG Count);
NTSYSAPI BOOLEAN NTAPI RtlValidSid(PVOID Sid);
NTSYSAPI NTSTATUS NTAPI RtlCreateAcl(PACL Acl, ULONG Length, ULONG Revision);
NTSYSAPI NTSTATUS NTAPI RtlAddAccessAllowedAce(PACL Acl, ULONG Revision, ULONG Mask, PVOID Sid);
NTSYSAPI NTSTATUS NTAPI RtlSetOwnerSecurityDescriptor(PVOID Descriptor, PVOID Owner, BOOLEAN Defaulted);
NTSYSAPI NTSTATUS NTAPI RtlAbsoluteToSelfRelativeSD(PVOID Absolute, PVOID Relative, PULONG Length);
NTSYSAPI NTSTATUS NTAPI RtlGetDaclSecurityDescriptor(PVOID Descriptor, PBOOLEAN Present, PACL *Dacl,
                                                     PBOOLEAN Defaulted);

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);
NTSYSAPI NTSTATUS NTAPI ZwQuerySystemInformation(ULONG Class, PVOID Buffer, ULONG Length, PULONG Needed);
NTKERNELAPI NTSTATUS NTAPI PsLookupProcessByProcessId(HANDLE Id, PVOID Process);

NTSYSAPI NTSTATUS NTAPI ZwSetEvent(HANDLE Event, PLONG Previous);
NTSYSAPI NTSTATUS NTAPI ZwCreateEvent(PHANDLE Event, ULONG Access, POBJECT_ATTRIBUTES Attributes, EVENT_TYPE Type,
                                      BOOLEAN Signalled);
NTKERNELAPI PEPROCESS NTAPI IoThreadToProcess(PETHREAD Thread);

#endif
