/*
 * entryfail: DriverEntry fails, as a driver does that finds no memory. Nothing of it may stay loaded.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(Driver);
    UNREFERENCED_PARAMETER(RegistryPath);
    return STATUS_INSUFFICIENT_RESOURCES;
}
