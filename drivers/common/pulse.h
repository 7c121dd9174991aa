/*
 * The registers of dirql's pulse device: PCI 1234:d1a1, BAR0 4 KiB, 32-bit accesses.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef PULSE_H
#define PULSE_H

#define PULSE_ID 0x00      /* reads PULSE_ID_VALUE */
#define PULSE_STATUS 0x04  /* one bit a source; write 1 to clear */
#define PULSE_ENABLE 0x08  /* one bit a source */
#define PULSE_RAISE 0x0c   /* a one sets that STATUS bit, enabled or not */
#define PULSE_SOURCES 0x10 /* number of sources, at most 32 */
#define PULSE_SCRATCH 0x14
#define PULSE_COUNT(i) (0x100 + 4 * (i)) /* 0-to-1 transitions of source i's STATUS bit */
#define PULSE_LENGTH 0x1000

#define PULSE_ID_VALUE 0x50554c53
#define PULSE_MAX_SOURCES 32

static inline ULONG PulseRead(PUCHAR Registers, ULONG At)
{
    return READ_REGISTER_ULONG((PULONG)(Registers + At));
}

static inline VOID PulseWrite(PUCHAR Registers, ULONG At, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Registers + At), Value);
}

#endif
