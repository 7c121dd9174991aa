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

/* In ntddk.h of before Windows 8. */
NTHALAPI ULONG NTAPI HalGetBusData(ULONG BusDataType, ULONG BusNumber, ULONG SlotNumber, PVOID Buffer, ULONG Length);

#endif
