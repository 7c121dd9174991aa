/*
 * mingw-w64's ddk/ntddk.h asks for <wdm.h>, which it keeps in ddk/.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>
