/* As wdm.h here. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <ddk/mce.h>
