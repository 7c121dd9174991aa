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

#endif
