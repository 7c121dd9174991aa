/*
 * missing: needs an export that dirql does not have, and says so by calling it.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "more.h"

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(Driver);
    return FsRtlIsNameInExpression(RegistryPath, RegistryPath, FALSE, NULL) ? STATUS_SUCCESS : STATUS_UNSUCCESSFUL;
}
