/*
 * The part every sample has in common: a WDM function driver's PnP, power and request frame.
 * A driver supplies a DRIVER_CLASS named Class and a device extension that begins with an FDO.
 * Left out, because the samples are about interrupts: idle and wake policy (system power IRPs pass through).
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef FDO_H
#define FDO_H

#include <ddk/wdm.h>

#define IOCTL_OF(n) CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + (n), METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _FDO {
    PDEVICE_OBJECT Self;  /* our function device object */
    PDEVICE_OBJECT Pdo;   /* the physical device object: names the device in connect calls */
    PDEVICE_OBJECT Lower; /* where requests go from here */
    IO_REMOVE_LOCK RemoveLock;
    volatile LONG Accepting;   /* requests are let in: started, and no stop or removal asked for */
    volatile LONG Outstanding; /* requests let in and not completed */
    volatile LONG Inside;      /* calls of Class.Control under way, and one while started */
    KEVENT Idle;               /* Inside reached zero */
    BOOLEAN Started;           /* Class.Start succeeded and Class.Stop has not run: touched by PnP IRPs only */
    BOOLEAN Gone;              /* surprise removal: the hardware may not be touched */
    UNICODE_STRING Interface;  /* the device interface's symbolic link */
    UNICODE_STRING Link;       /* \DosDevices\<Class.Name><number> */
    WCHAR LinkBuffer[32];
} FDO, *PFDO;

typedef struct _DRIVER_CLASS {
    const WCHAR *Name; /* at most 8 characters; \Device\<Name>0 is the first device */
    const GUID *Interface;
    ULONG ExtensionSize;
    /* Once per device, from AddDevice: locks, queues, DPC objects. */
    NTSTATUS (*Init)(PFDO Fdo);
    /* At PASSIVE_LEVEL, after the lower drivers started the device. On failure it has undone what it did. */
    NTSTATUS (*Start)(PFDO Fdo, PCM_RESOURCE_LIST Translated);
    /* Quiesce the hardware (unless Gone), disconnect, flush the DPC, unmap. */
    VOID (*Stop)(PFDO Fdo);
    /* A device control request. STATUS_PENDING: the driver has the IRP and will call FdoComplete. */
    NTSTATUS (*Control)(PFDO Fdo, PIRP Irp, PIO_STACK_LOCATION Stack);
    /* Completes, as cancelled, the waiting requests of a file object, or all of them when NULL. May be NULL. */
    VOID (*Drain)(PFDO Fdo, PFILE_OBJECT File);
    /* The device is about to leave D0 (On FALSE), or has come back to it (TRUE, at IRQL <= DISPATCH_LEVEL). May be NULL. */
    VOID (*Power)(PFDO Fdo, BOOLEAN On);
    PDRIVER_STARTIO StartIo; /* may be NULL */
} DRIVER_CLASS;

extern const DRIVER_CLASS Class;

/* Completes a request that Class.Control was given, and returns its status. */
NTSTATUS FdoComplete(PFDO Fdo, PIRP Irp, NTSTATUS Status, ULONG_PTR Information);

/* The n-th descriptor of a type in a START list, or NULL. */
PCM_PARTIAL_RESOURCE_DESCRIPTOR FdoResource(PCM_RESOURCE_LIST List, UCHAR Type, ULONG Index);

/* Maps the device's first memory BAR, which must have Least bytes. */
PUCHAR FdoMapRegisters(PCM_RESOURCE_LIST Translated, ULONG Least, PULONG Length);

#endif
