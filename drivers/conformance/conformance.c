/*
 * A conformance suite for an NT interrupt subsystem, as an ordinary WDM driver of the pulse device (docs/devices/pulse.md).
 * IOCTL_OF(0) runs every case that the device's interrupts allow and prints one line a case with DbgPrint:
 *     conformance: ok|FAIL <name>: expected <n> got <n> (<source page>)
 * It returns two ULONGs: how many passed, how many failed. Routines newer than Windows Vista are looked up by name;
 * where there is none, its cases print "skip".
 * Left out: what ends in a bug check, which a driver can't live to report.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "../common/fdo.h"
#include "../common/pulse.h"

#define MOST 8

typedef struct _REPORT_STATE {
    ULONG Version;
    PVOID Context;
} REPORT_STATE;
typedef VOID(NTAPI *REPORT)(REPORT_STATE *);
typedef NTSTATUS(NTAPI *GET_AFFINITY)(PKINTERRUPT, PGROUP_AFFINITY);
typedef ULONG(NTAPI *GET_NUMBER)(PPROCESSOR_NUMBER);
typedef NTSTATUS(NTAPI *SET_TARGET)(PKDPC, PPROCESSOR_NUMBER);

typedef struct _SEEN {
    volatile LONG Calls;
    volatile LONG Irql;
    volatile LONG Message;
    PVOID volatile Object;
    BOOLEAN Answer;       /* what a routine returns for an interrupt that is not its own */
    BOOLEAN Quiet;        /* leave the device's status alone */
    struct _CARD *Card;
} SEEN;

typedef struct _CARD {
    FDO Fdo;
    PUCHAR Registers;
    ULONG Length;
    ULONG Sources;
    ULONG Count; /* interrupts assigned */
    BOOLEAN Messages;
    ULONG Vector[MOST];
    KIRQL Level[MOST];
    KAFFINITY Affinity[MOST];
    KINTERRUPT_MODE Mode[MOST];
    KSPIN_LOCK Lock;
    SEEN One, Two;
    ULONG Low, High; /* sources */
    volatile LONG Nested;
    volatile LONG Order;
    KDPC Dpc[4];
    volatile LONG Ran[4], When[4], At[4], On[4];
    PVOID volatile Argument;
    LONG Passed, Failed;
} CARD, *PCARD;

static GET_NUMBER Number; /* KeGetCurrentProcessorNumberEx, or NULL before Windows 7 */

static const GUID ConformanceInterface = {0x5d1f0e35, 0x7b0a, 0x4c0e, {0x9a, 0x11, 0x6f, 0x0c, 0x54, 0x2d, 0x88, 0x03}};

static VOID Check(PCARD Card, const char *Name, ULONG_PTR Expected, ULONG_PTR Got, const char *Page)
{
    BOOLEAN ok = Expected == Got;

    if (ok)
        Card->Passed++;
    else
        Card->Failed++;
    DbgPrint("conformance: %s %s: expected %Ix got %Ix (%s)\n", ok ? "ok" : "FAIL", Name, Expected, Got, Page);
}

static VOID Skip(const char *Name, const char *Why)
{
    DbgPrint("conformance: skip %s: %s\n", Name, Why);
}

static PVOID Routine(const WCHAR *Name)
{
    UNICODE_STRING name;

    RtlInitUnicodeString(&name, Name);
    return MmGetSystemRoutineAddress(&name);
}

/* ---- Service routines ---- */

static BOOLEAN Serve(PKINTERRUPT Interrupt, SEEN *Seen, LONG Message)
{
    PCARD card = Seen->Card;
    ULONG cause = PulseRead(card->Registers, PULSE_STATUS);

    Seen->Irql = KeGetCurrentIrql();
    Seen->Object = Interrupt;
    Seen->Message = Message;
    InterlockedIncrement(&Seen->Calls);
    if (Seen->Quiet)
        return Seen->Answer;
    if (cause == 0)
        return FALSE;
    PulseWrite(card->Registers, PULSE_STATUS, cause);
    return TRUE;
}

static BOOLEAN NTAPI OnLine(PKINTERRUPT Interrupt, PVOID Context)
{
    return Serve(Interrupt, Context, -1);
}

static BOOLEAN NTAPI OnMessage(PKINTERRUPT Interrupt, PVOID Context, ULONG Message)
{
    SEEN *seen = Context;
    PCARD card = seen->Card;

    seen->Irql = KeGetCurrentIrql();
    seen->Object = Interrupt;
    seen->Message = (LONG)Message;
    PulseWrite(card->Registers, PULSE_STATUS, 1u << Message);
    InterlockedIncrement(&seen->Calls);
    return TRUE;
}

/* A lower interrupt's routine, which raises the higher one and waits for it, a little. */
static BOOLEAN NTAPI OnLow(PKINTERRUPT Interrupt, PVOID Context)
{
    PCARD card = ((SEEN *)Context)->Card;
    ULONG i;

    UNREFERENCED_PARAMETER(Interrupt);
    PulseWrite(card->Registers, PULSE_STATUS, 1u << card->Low);
    PulseWrite(card->Registers, PULSE_RAISE, 1u << card->High);
    for (i = 0; i < 1000 && card->Two.Calls == 0; i++)
        PulseRead(card->Registers, PULSE_ID);
    card->Nested = card->Two.Calls;
    InterlockedIncrement(&card->One.Calls);
    return TRUE;
}

static VOID Pause(VOID)
{
    LARGE_INTEGER time;

    time.QuadPart = -10000; /* 1 ms */
    KeDelayExecutionThread(KernelMode, FALSE, &time);
}

/* Waits until a counter has reached a value, or long enough. */
static LONG Await(volatile LONG *Counter, LONG Least)
{
    ULONG i;

    for (i = 0; i < 20 && *Counter < Least; i++)
        Pause();
    return *Counter;
}

static VOID Raise(PCARD Card, ULONG Source)
{
    PulseWrite(Card->Registers, PULSE_RAISE, 1u << Source);
}

static VOID Quiesce(PCARD Card)
{
    PulseWrite(Card->Registers, PULSE_ENABLE, 0);
    PulseWrite(Card->Registers, PULSE_STATUS, ~0u);
}

static VOID Forget(PCARD Card)
{
    RtlZeroMemory(&Card->One, sizeof(SEEN));
    RtlZeroMemory(&Card->Two, sizeof(SEEN));
    Card->One.Card = Card;
    Card->Two.Card = Card;
    Quiesce(Card);
}

/* ---- Requests ---- */

static IO_CONNECT_INTERRUPT_PARAMETERS Full(PCARD Card, ULONG Version, ULONG i, SEEN *Seen, PKINTERRUPT *Out)
{
    IO_CONNECT_INTERRUPT_PARAMETERS p;

    RtlZeroMemory(&p, sizeof(p));
    p.Version = Version;
    p.FullySpecified.PhysicalDeviceObject = Card->Fdo.Pdo;
    p.FullySpecified.InterruptObject = Out;
    p.FullySpecified.ServiceRoutine = OnLine;
    p.FullySpecified.ServiceContext = Seen;
    p.FullySpecified.SynchronizeIrql = Card->Level[i];
    p.FullySpecified.ShareVector = TRUE;
    p.FullySpecified.Vector = Card->Vector[i];
    p.FullySpecified.Irql = Card->Level[i];
    p.FullySpecified.InterruptMode = Card->Mode[i];
    p.FullySpecified.ProcessorEnableMask = Card->Affinity[i];
    return p;
}

static VOID Disconnect(ULONG Version, PVOID Context)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS p;

    RtlZeroMemory(&p, sizeof(p));
    p.Version = Version;
    p.ConnectionContext.Generic = Context;
    IoDisconnectInterruptEx(&p);
}

static VOID Refused(PCARD Card, const char *Name, IO_CONNECT_INTERRUPT_PARAMETERS *P, NTSTATUS Expected,
                    const char *Page)
{
    ULONG version = P->Version;
    NTSTATUS status = IoConnectInterruptEx(P);

    Check(Card, Name, (ULONG)Expected, (ULONG)status, Page);
    Check(Card, "  version unchanged", version, P->Version, Page);
    if (NT_SUCCESS(status))
        Disconnect(P->Version, *(PVOID *)P->FullySpecified.InterruptObject);
}

#define CONNECT_PAGE "nf-iointex-wdmlibioconnectinterruptex"
#define PARAMETERS_PAGE "ns-wdm-_io_connect_interrupt_parameters"

static VOID Refusals(PCARD Card)
{
    PKINTERRUPT out = (PKINTERRUPT)(ULONG_PTR)0x55;
    IO_CONNECT_INTERRUPT_PARAMETERS p;

    p = Full(Card, 77, 0, &Card->One, &out);
    Refused(Card, "unknown version", &p, STATUS_INVALID_PARAMETER_1, CONNECT_PAGE);
    p = Full(Card, CONNECT_FULLY_SPECIFIED, 0, &Card->One, &out);
    p.FullySpecified.PhysicalDeviceObject = NULL;
    Refused(Card, "no device object", &p, STATUS_INVALID_PARAMETER, CONNECT_PAGE);
    p = Full(Card, CONNECT_FULLY_SPECIFIED, 0, &Card->One, &out);
    p.FullySpecified.ServiceRoutine = NULL;
    Refused(Card, "no service routine", &p, STATUS_INVALID_PARAMETER, PARAMETERS_PAGE);
    p = Full(Card, CONNECT_FULLY_SPECIFIED, 0, &Card->One, &out);
    p.FullySpecified.SynchronizeIrql = (KIRQL)(Card->Level[0] - 1);
    Refused(Card, "SynchronizeIrql below Irql", &p, STATUS_INVALID_PARAMETER, PARAMETERS_PAGE);
    p = Full(Card, CONNECT_FULLY_SPECIFIED, 0, &Card->One, &out);
    p.FullySpecified.Irql = 0;
    p.FullySpecified.SynchronizeIrql = 0;
    p.FullySpecified.SpinLock = &Card->Lock;
    Refused(Card, "passive with a spin lock", &p, STATUS_INVALID_PARAMETER,
            "using-passive-level-interrupt-handling-routines");
    p = Full(Card, CONNECT_FULLY_SPECIFIED, 0, &Card->One, &out);
    p.FullySpecified.ProcessorEnableMask = 0;
    Refused(Card, "no processor", &p, STATUS_INVALID_PARAMETER_10, CONNECT_PAGE);
    p = Full(Card, CONNECT_FULLY_SPECIFIED, 0, &Card->One, &out);
    p.FullySpecified.Vector ^= 0x8;
    Refused(Card, "another's vector", &p, STATUS_NOT_FOUND, CONNECT_PAGE);
    p = Full(Card, CONNECT_FULLY_SPECIFIED, 0, &Card->One, &out);
    p.FullySpecified.InterruptMode = Card->Mode[0] == Latched ? LevelSensitive : Latched;
    Refused(Card, "another mode", &p, STATUS_NOT_FOUND, CONNECT_PAGE);

    RtlZeroMemory(&p, sizeof(p));
    if (Card->Messages) {
        p.Version = CONNECT_LINE_BASED;
        p.LineBased.PhysicalDeviceObject = Card->Fdo.Pdo;
        p.LineBased.InterruptObject = &out;
        p.LineBased.ServiceRoutine = OnLine;
        p.LineBased.ServiceContext = &Card->One;
        Refused(Card, "line-based, messages assigned", &p, STATUS_INVALID_DEVICE_REQUEST, CONNECT_PAGE);
    } else {
        p.Version = CONNECT_MESSAGE_BASED;
        p.MessageBased.PhysicalDeviceObject = Card->Fdo.Pdo;
        p.MessageBased.ConnectionContext.InterruptObject = &out;
        p.MessageBased.MessageServiceRoutine = OnMessage;
        p.MessageBased.ServiceContext = &Card->One;
        Refused(Card, "message-based, no message, no fallback", &p, STATUS_NOT_FOUND, CONNECT_PAGE);
    }
}

/* ---- Connections that work ---- */

static BOOLEAN NTAPI ReturnTwo(PVOID Context)
{
    *(volatile LONG *)Context = KeGetCurrentIrql();
    return 2;
}

static VOID Synchronising(PCARD Card, PKINTERRUPT Interrupt, KIRQL Level)
{
    const char *page = "nf-wdm-kesynchronizeexecution";
    volatile LONG irql = -1;
    KIRQL old;

    Check(Card, "the routine's byte is passed through", 2,
          (UCHAR)KeSynchronizeExecution(Interrupt, ReturnTwo, (PVOID)&irql), page);
    Check(Card, "the routine runs at SynchronizeIrql", Level, (ULONG)irql, page);
    Check(Card, "the level is restored", PASSIVE_LEVEL, KeGetCurrentIrql(), page);
    old = KeAcquireInterruptSpinLock(Interrupt);
    irql = KeGetCurrentIrql();
    KeReleaseInterruptSpinLock(Interrupt, old);
    Check(Card, "the lock raises to SynchronizeIrql", Level, (ULONG)irql, "nf-wdm-keacquireinterruptspinlock");
    Check(Card, "the lock returns the old level", PASSIVE_LEVEL, old, "nf-wdm-keacquireinterruptspinlock");
}

static VOID FullySpecified(PCARD Card, ULONG Version, const char *Name)
{
    const char *page = "using-the-connect-fully-specified-version-of-ioconnectinterruptex";
    GET_AFFINITY affinity = (GET_AFFINITY)Routine(L"IoGetAffinityInterrupt");
    PKINTERRUPT object = NULL;
    IO_CONNECT_INTERRUPT_PARAMETERS p = Full(Card, Version, 0, &Card->One, &object);
    NTSTATUS status;

    Forget(Card);
    status = IoConnectInterruptEx(&p);
    if (status == STATUS_INVALID_PARAMETER_1 && Version == CONNECT_FULLY_SPECIFIED_GROUP) {
        Skip(Name, "not in this Windows");
        return;
    }
    Check(Card, Name, STATUS_SUCCESS, (ULONG)status, page);
    if (!NT_SUCCESS(status))
        return;
    PulseWrite(Card->Registers, PULSE_ENABLE, 1);
    Raise(Card, 0);
    Check(Card, "  the routine is called once", 1, (ULONG)Await(&Card->One.Calls, 1), page);
    Check(Card, "  at its Irql", Card->Level[0], (ULONG)Card->One.Irql, "nc-wdm-kservice_routine");
    Check(Card, "  with the object that was stored", (ULONG_PTR)object, (ULONG_PTR)Card->One.Object,
          "nc-wdm-kservice_routine");
    Synchronising(Card, object, Card->Level[0]);
    if (affinity == NULL) {
        Skip("IoGetAffinityInterrupt", "not in this Windows");
    } else {
        GROUP_AFFINITY set;

        RtlFillMemory(&set, sizeof(set), 0x55);
        Check(Card, "IoGetAffinityInterrupt", STATUS_SUCCESS, (ULONG)affinity(object, &set),
              "nf-iointex-wdmlibiogetaffinityinterrupt");
        Check(Card, "  the set's processors", (ULONG_PTR)Card->Affinity[0], (ULONG_PTR)set.Mask,
              "nf-iointex-wdmlibiogetaffinityinterrupt");
        Check(Card, "  group 0", 0, set.Group, "nf-iointex-wdmlibiogetaffinityinterrupt");
    }
    Quiesce(Card);
    Disconnect(Version, object);
    if (Card->Messages) {
        PulseWrite(Card->Registers, PULSE_ENABLE, 1);
        Raise(Card, 0);
    }
    Pause();
    Check(Card, "  not called after the disconnect", 1, (ULONG)Card->One.Calls,
          "nf-iointex-wdmlibiodisconnectinterruptex");
    Quiesce(Card);
    /* A message sent while it was masked may be pending: somebody has to take it. */
    p.FullySpecified.ServiceContext = &Card->Two;
    if (Card->Messages && NT_SUCCESS(IoConnectInterruptEx(&p))) {
        Pause();
        Disconnect(p.Version, object);
    }
}

static VOID Inactive(PCARD Card)
{
    const char *page = "making-an-isr-active-or-inactive";
    REPORT active = (REPORT)Routine(L"IoReportInterruptActive");
    REPORT inactive = (REPORT)Routine(L"IoReportInterruptInactive");
    PKINTERRUPT object = NULL;
    IO_CONNECT_INTERRUPT_PARAMETERS p = Full(Card, CONNECT_FULLY_SPECIFIED, 0, &Card->One, &object);
    REPORT_STATE state;

    Forget(Card);
    if (active == NULL || inactive == NULL) {
        Skip("IoReportInterruptInactive", "not in this Windows");
        return;
    }
    if (!NT_SUCCESS(IoConnectInterruptEx(&p)))
        return;
    state.Version = p.Version;
    state.Context = object;
    inactive(&state);
    inactive(&state);
    Raise(Card, 0); /* not enabled at the device: no source asserts */
    Pause();
    Check(Card, "an inactive routine is not called", 0, (ULONG)Card->One.Calls, page);
    PulseWrite(Card->Registers, PULSE_STATUS, ~0u);
    active(&state);
    active(&state);
    PulseWrite(Card->Registers, PULSE_ENABLE, 1);
    Raise(Card, 0);
    Check(Card, "an active one is called again", 1, (ULONG)Await(&Card->One.Calls, 1), page);
    Quiesce(Card);
    inactive(&state);
    Disconnect(p.Version, object); /* allowed while inactive */
}

static VOID Passive(PCARD Card)
{
    const char *page = "using-passive-level-interrupt-handling-routines";
    PKINTERRUPT object = NULL;
    IO_CONNECT_INTERRUPT_PARAMETERS p = Full(Card, CONNECT_FULLY_SPECIFIED, 0, &Card->One, &object);
    volatile LONG irql = -1;
    NTSTATUS status;

    Forget(Card);
    p.FullySpecified.Irql = 0;
    p.FullySpecified.SynchronizeIrql = 0;
    status = IoConnectInterruptEx(&p);
    if (status == STATUS_NOT_SUPPORTED) {
        Skip("passive-level routine", "not in this Windows");
        return;
    }
    Check(Card, "passive-level connect", STATUS_SUCCESS, (ULONG)status, page);
    if (!NT_SUCCESS(status))
        return;
    PulseWrite(Card->Registers, PULSE_ENABLE, 1);
    Raise(Card, 0);
    Check(Card, "  the routine is called", 1, (ULONG)Await(&Card->One.Calls, 1), page);
    Check(Card, "  at PASSIVE_LEVEL", PASSIVE_LEVEL, (ULONG)Card->One.Irql, page);
    Raise(Card, 0);
    Check(Card, "  and again: the line is open again", 2, (ULONG)Await(&Card->One.Calls, 2), page);
    Check(Card, "  KeSynchronizeExecution", 2, (UCHAR)KeSynchronizeExecution(object, ReturnTwo, (PVOID)&irql), page);
    Check(Card, "  runs at PASSIVE_LEVEL", PASSIVE_LEVEL, (ULONG)irql, page);
    Quiesce(Card);
    Disconnect(p.Version, object);
}

/* Two routines on one vector. */
static VOID Chain(PCARD Card)
{
    const char *page = "nc-wdm-kservice_routine";
    PKINTERRUPT one = NULL, two = NULL;
    IO_CONNECT_INTERRUPT_PARAMETERS p = Full(Card, CONNECT_FULLY_SPECIFIED, 0, &Card->One, &one);
    IO_CONNECT_INTERRUPT_PARAMETERS q = Full(Card, CONNECT_FULLY_SPECIFIED, 0, &Card->Two, &two);
    IO_CONNECT_INTERRUPT_PARAMETERS alone;
    BOOLEAN level = Card->Mode[0] == LevelSensitive;
    LONG before;

    Forget(Card);
    if (!NT_SUCCESS(IoConnectInterruptEx(&p)))
        return;
    alone = q;
    alone.FullySpecified.ShareVector = FALSE;
    Refused(Card, "an unshared routine on a taken vector", &alone, STATUS_INVALID_PARAMETER, "nf-wdm-ioconnectinterrupt");
    if (!NT_SUCCESS(IoConnectInterruptEx(&q))) {
        Check(Card, "a second sharer connects", 0, 1, "nf-wdm-ioconnectinterrupt");
        Disconnect(p.Version, one);
        return;
    }
    PulseWrite(Card->Registers, PULSE_ENABLE, 1);
    Raise(Card, 0);
    Await(&Card->One.Calls, 1);
    Pause();
    if (level) {
        Check(Card, "level: the walk stops at the claim", 0, (ULONG)Card->Two.Calls, page);
    } else {
        Check(Card, "latched: every routine is called", TRUE, Card->Two.Calls >= 1, page);
        Check(Card, "latched: walked again after a claim", TRUE, Card->One.Calls >= 2, page);
    }
    Card->One.Quiet = TRUE; /* declines */
    before = Card->Two.Calls;
    Raise(Card, 0);
    Check(Card, "after FALSE the next is called", TRUE, Await(&Card->Two.Calls, before + 1) > before, page);
    Quiesce(Card);
    Disconnect(p.Version, one);
    before = Card->Two.Calls;
    PulseWrite(Card->Registers, PULSE_ENABLE, 1);
    Raise(Card, 0);
    Check(Card, "the other is served when the head has left", TRUE, Await(&Card->Two.Calls, before + 1) > before,
          "nf-iointex-wdmlibiodisconnectinterruptex");
    Quiesce(Card);
    Disconnect(q.Version, two);
}

static VOID LineBased(PCARD Card, BOOLEAN Fallback)
{
    const char *page = Fallback ? PARAMETERS_PAGE : "using-the-connect-line-based-version-of-ioconnectinterruptex";
    PKINTERRUPT object = NULL;
    IO_CONNECT_INTERRUPT_PARAMETERS p;
    NTSTATUS status;

    Forget(Card);
    RtlZeroMemory(&p, sizeof(p));
    if (Fallback) {
        p.Version = CONNECT_MESSAGE_BASED;
        p.MessageBased.PhysicalDeviceObject = Card->Fdo.Pdo;
        p.MessageBased.ConnectionContext.InterruptObject = &object;
        p.MessageBased.MessageServiceRoutine = OnMessage;
        p.MessageBased.ServiceContext = &Card->One;
        p.MessageBased.FallBackServiceRoutine = OnLine;
    } else {
        p.Version = CONNECT_LINE_BASED;
        p.LineBased.PhysicalDeviceObject = Card->Fdo.Pdo;
        p.LineBased.InterruptObject = &object;
        p.LineBased.ServiceRoutine = OnLine;
        p.LineBased.ServiceContext = &Card->One;
    }
    status = IoConnectInterruptEx(&p);
    Check(Card, Fallback ? "message-based falls back" : "line-based", STATUS_SUCCESS, (ULONG)status, page);
    if (!NT_SUCCESS(status))
        return;
    Check(Card, "  version on return", CONNECT_LINE_BASED, p.Version, page);
    PulseWrite(Card->Registers, PULSE_ENABLE, 1);
    Raise(Card, 0);
    Check(Card, "  the routine is called", 1, (ULONG)Await(&Card->One.Calls, 1), page);
    Check(Card, "  with two arguments", (ULONG)-1, (ULONG)Card->One.Message, page);
    Synchronising(Card, object, Card->Level[0]);
    Quiesce(Card);
    Disconnect(p.Version, object);
}

static VOID MessageBased(PCARD Card)
{
    const char *page = "using-the-connect-message-based-version-of-ioconnectinterruptex";
    PIO_INTERRUPT_MESSAGE_INFO table = NULL;
    IO_CONNECT_INTERRUPT_PARAMETERS p;
    KIRQL highest = 0;
    NTSTATUS status;
    ULONG i;

    Forget(Card);
    RtlZeroMemory(&p, sizeof(p));
    p.Version = CONNECT_MESSAGE_BASED;
    p.MessageBased.PhysicalDeviceObject = Card->Fdo.Pdo;
    p.MessageBased.ConnectionContext.InterruptMessageTable = &table;
    p.MessageBased.MessageServiceRoutine = OnMessage;
    p.MessageBased.ServiceContext = &Card->One;
    p.MessageBased.FallBackServiceRoutine = OnLine;
    status = IoConnectInterruptEx(&p);
    Check(Card, "message-based", STATUS_SUCCESS, (ULONG)status, page);
    if (!NT_SUCCESS(status))
        return;
    Check(Card, "  version on return", CONNECT_MESSAGE_BASED, p.Version, PARAMETERS_PAGE);
    Check(Card, "  MessageCount", Card->Count, table->MessageCount, "ns-wdm-_io_interrupt_message_info");
    for (i = 0; i < Card->Count; i++)
        if (Card->Level[i] > highest)
            highest = Card->Level[i];
    Check(Card, "  UnifiedIrql is the highest", highest, table->UnifiedIrql, "ns-wdm-_io_interrupt_message_info");
    for (i = 0; i < table->MessageCount && i < Card->Sources; i++) {
        LONG before = Card->One.Calls;

        PulseWrite(Card->Registers, PULSE_ENABLE, 1u << i);
        Raise(Card, i);
        Check(Card, "  a message is delivered", (ULONG)before + 1, (ULONG)Await(&Card->One.Calls, before + 1), page);
        Check(Card, "    with its id", i, (ULONG)Card->One.Message, "nc-wdm-kmessage_service_routine");
        Check(Card, "    at UnifiedIrql", table->UnifiedIrql, (ULONG)Card->One.Irql,
              "nc-wdm-kmessage_service_routine");
        Check(Card, "    with its entry's object", (ULONG_PTR)table->MessageInfo[i].InterruptObject,
              (ULONG_PTR)Card->One.Object, "ns-wdm-_io_interrupt_message_info_entry");
        Check(Card, "    on its entry's vector", Card->Vector[i], table->MessageInfo[i].Vector,
              "ns-wdm-_io_interrupt_message_info_entry");
    }
    Synchronising(Card, table->MessageInfo[0].InterruptObject, table->UnifiedIrql);
    Quiesce(Card);
    Disconnect(p.Version, table);
}

static VOID Legacy(PCARD Card)
{
    const char *page = "nf-wdm-ioconnectinterrupt";
    PKINTERRUPT object = NULL;
    NTSTATUS status;

    Forget(Card);
    status = IoConnectInterrupt(&object, OnLine, &Card->One, NULL, Card->Vector[0], Card->Level[0],
                                (KIRQL)(Card->Level[0] - 1), Card->Mode[0], TRUE, Card->Affinity[0], FALSE);
    Check(Card, "eleven arguments: SynchronizeIrql below Irql", (ULONG)STATUS_INVALID_PARAMETER, (ULONG)status, page);
    status = IoConnectInterrupt(&object, OnLine, &Card->One, NULL, Card->Vector[0], Card->Level[0], Card->Level[0],
                                Card->Mode[0], TRUE, 0, FALSE);
    Check(Card, "eleven arguments: no processor", (ULONG)STATUS_INVALID_PARAMETER, (ULONG)status, page);
    status = IoConnectInterrupt(&object, OnLine, &Card->One, NULL, Card->Vector[0], Card->Level[0], Card->Level[0],
                                Card->Mode[0], TRUE, Card->Affinity[0], FALSE);
    Check(Card, "eleven arguments", STATUS_SUCCESS, (ULONG)status, page);
    if (!NT_SUCCESS(status))
        return;
    PulseWrite(Card->Registers, PULSE_ENABLE, 1);
    Raise(Card, 0);
    Check(Card, "  the routine is called", 1, (ULONG)Await(&Card->One.Calls, 1), page);
    Quiesce(Card);
    IoDisconnectInterrupt(object);
}

/* A source that is active before anybody is connected. */
static VOID Early(PCARD Card)
{
    PKINTERRUPT object = NULL;
    IO_CONNECT_INTERRUPT_PARAMETERS p = Full(Card, CONNECT_FULLY_SPECIFIED, 0, &Card->One, &object);

    Forget(Card);
    PulseWrite(Card->Registers, PULSE_ENABLE, 1);
    Raise(Card, 0);
    if (!NT_SUCCESS(IoConnectInterruptEx(&p)))
        return;
    Check(Card, "a line that was active before is served", 1, (ULONG)Await(&Card->One.Calls, 1),
          CONNECT_PAGE);
    Check(Card, "  with the object that is stored then", (ULONG_PTR)object, (ULONG_PTR)Card->One.Object,
          "nc-wdm-kservice_routine");
    Quiesce(Card);
    Disconnect(p.Version, object);
}

/* A higher interrupt during a lower one's routine. */
static VOID Nesting(PCARD Card)
{
    PKINTERRUPT low = NULL, high = NULL;
    IO_CONNECT_INTERRUPT_PARAMETERS p, q;
    ULONG i;

    Forget(Card);
    Card->Low = Card->High = 0;
    for (i = 1; i < Card->Count; i++) {
        if (Card->Level[i] < Card->Level[Card->Low])
            Card->Low = i;
        if (Card->Level[i] > Card->Level[Card->High])
            Card->High = i;
    }
    if (Card->Level[Card->Low] == Card->Level[Card->High]) {
        Skip("a higher interrupt during a lower one's routine", "one level");
        return;
    }
    Card->Nested = 0;
    p = Full(Card, CONNECT_FULLY_SPECIFIED, Card->Low, &Card->One, &low);
    p.FullySpecified.ServiceRoutine = OnLow;
    q = Full(Card, CONNECT_FULLY_SPECIFIED, Card->High, &Card->Two, &high);
    if (NT_SUCCESS(IoConnectInterruptEx(&p))) {
        if (NT_SUCCESS(IoConnectInterruptEx(&q))) {
            PulseWrite(Card->Registers, PULSE_ENABLE, 1u << Card->Low | 1u << Card->High);
            Raise(Card, Card->Low);
            Await(&Card->One.Calls, 1);
            Check(Card, "a higher interrupt during a lower one's routine", 1, (ULONG)Card->Nested,
                  "managing-hardware-priorities");
            Check(Card, "  runs at its own level", Card->Level[Card->High], (ULONG)Card->Two.Irql,
                  "managing-hardware-priorities");
            Quiesce(Card);
            Disconnect(q.Version, high);
        }
        Disconnect(p.Version, low);
    }
}

/* ---- An interrupt object that nobody connected ---- */

#if defined(_WIN64)
static VOID HandBuilt(PCARD Card)
{
    const char *page = "nf-wdm-kesynchronizeexecution";
    UCHAR memory[0x100] __attribute__((aligned(16)));
    KSPIN_LOCK lock;

    /* The two fields the routines use, where Windows 7 and later have them on x64. */
    RtlFillMemory(memory, sizeof(memory), 0x55);
    KeInitializeSpinLock(&lock);
    *(PKSPIN_LOCK *)(memory + 0x48) = &lock;
    memory[0x5d] = HIGH_LEVEL;
    Synchronising(Card, (PKINTERRUPT)memory, HIGH_LEVEL);
    Check(Card, "the lock is free again", 0, lock, page);
}
#endif

/* ---- DPCs ---- */

static VOID NTAPI OnDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PCARD card = Context;
    ULONG i = (ULONG)(Dpc - card->Dpc);

    UNREFERENCED_PARAMETER(Argument2);
    card->At[i] = KeGetCurrentIrql();
    card->On[i] = Number == NULL ? -1 : (LONG)Number(NULL);
    card->When[i] = InterlockedIncrement(&card->Order);
    card->Argument = Argument1;
    InterlockedIncrement(&card->Ran[i]);
}

static VOID Dpcs(PCARD Card)
{
    const char *page = "nf-wdm-keinsertqueuedpc";
    SET_TARGET target = (SET_TARGET)Routine(L"KeSetTargetProcessorDpcEx");
    KIRQL old;
    ULONG i;
    BOOLEAN first, second, removed, again;

    Number = (GET_NUMBER)Routine(L"KeGetCurrentProcessorNumberEx");
    for (i = 0; i < 4; i++) {
        KeInitializeDpc(&Card->Dpc[i], OnDpc, Card);
        Card->Ran[i] = 0;
    }
    KeSetImportanceDpc(&Card->Dpc[2], HighImportance);
    KeRaiseIrql(DISPATCH_LEVEL, &old);
    first = KeInsertQueueDpc(&Card->Dpc[0], (PVOID)1, NULL);
    second = KeInsertQueueDpc(&Card->Dpc[0], (PVOID)2, NULL);
    KeInsertQueueDpc(&Card->Dpc[1], (PVOID)1, NULL);
    KeInsertQueueDpc(&Card->Dpc[2], (PVOID)1, NULL);
    KeInsertQueueDpc(&Card->Dpc[3], (PVOID)1, NULL);
    removed = KeRemoveQueueDpc(&Card->Dpc[3]);
    again = KeRemoveQueueDpc(&Card->Dpc[3]);
    KeLowerIrql(old);
    KeFlushQueuedDpcs();
    Check(Card, "the first insert", TRUE, first, page);
    Check(Card, "a second insert of the same", FALSE, second, page);
    Check(Card, "  runs once", 1, (ULONG)Card->Ran[0], page);
    Check(Card, "  with the first arguments", 1, (ULONG_PTR)Card->Argument, page);
    Check(Card, "  at DISPATCH_LEVEL", DISPATCH_LEVEL, (ULONG)Card->At[0], "nc-wdm-kdeferred_routine");
    Check(Card, "high importance goes first", TRUE, Card->When[2] < Card->When[0], "nf-wdm-kesetimportancedpc");
    Check(Card, "the others keep their order", TRUE, Card->When[0] < Card->When[1], "organization-of-dpc-queues");
    Check(Card, "removed from the queue", TRUE, removed, "nf-wdm-keremovequeuedpc");
    Check(Card, "  a second time", FALSE, again, "nf-wdm-keremovequeuedpc");
    Check(Card, "  and it did not run", 0, (ULONG)Card->Ran[3], "nf-wdm-keremovequeuedpc");

    if (KeQueryActiveProcessors() & 2) {
        KeInitializeDpc(&Card->Dpc[0], OnDpc, Card);
        KeSetTargetProcessorDpc(&Card->Dpc[0], 1);
        KeInsertQueueDpc(&Card->Dpc[0], NULL, NULL);
        KeFlushQueuedDpcs();
        Check(Card, "a targeted DPC has run after the flush", 2, (ULONG)Card->Ran[0], "nf-wdm-keflushqueueddpcs");
        if (Number != NULL)
            Check(Card, "  on its processor", 1, (ULONG)Card->On[0], "nf-wdm-kesettargetprocessordpc");
    } else {
        Skip("a targeted DPC", "one processor");
    }
    if (target == NULL) {
        Skip("KeSetTargetProcessorDpcEx", "not in this Windows");
    } else {
        PROCESSOR_NUMBER number;

        RtlZeroMemory(&number, sizeof(number));
        Check(Card, "KeSetTargetProcessorDpcEx", STATUS_SUCCESS, (ULONG)target(&Card->Dpc[0], &number),
              "nf-wdm-kesettargetprocessordpcex");
        number.Number = 63;
        Check(Card, "  no such processor", (ULONG)STATUS_INVALID_PARAMETER, (ULONG)target(&Card->Dpc[0], &number),
              "nf-wdm-kesettargetprocessordpcex");
    }
    KeInitializeThreadedDpc(&Card->Dpc[1], OnDpc, Card);
    Card->Ran[1] = 0;
    KeInsertQueueDpc(&Card->Dpc[1], NULL, NULL);
    Check(Card, "a threaded DPC runs", 1, (ULONG)Await(&Card->Ran[1], 1), "introduction-to-threaded-dpcs");
    Check(Card, "  at PASSIVE_LEVEL or DISPATCH_LEVEL", TRUE,
          Card->At[1] == PASSIVE_LEVEL || Card->At[1] == DISPATCH_LEVEL, "introduction-to-threaded-dpcs");
    KeFlushQueuedDpcs();
}

/* ---- What the frame calls ---- */

static NTSTATUS Init(PFDO Fdo)
{
    KeInitializeSpinLock(&CONTAINING_RECORD(Fdo, CARD, Fdo)->Lock);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    PCARD card = CONTAINING_RECORD(Fdo, CARD, Fdo);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR at;
    ULONG i;

    card->Registers = FdoMapRegisters(Translated, PULSE_LENGTH, &card->Length);
    if (card->Registers == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    card->Sources = PulseRead(card->Registers, PULSE_SOURCES);
    card->Count = 0;
    for (i = 0; i < MOST && (at = FdoResource(Translated, CmResourceTypeInterrupt, i)) != NULL; i++) {
        card->Messages = (at->Flags & CM_RESOURCE_INTERRUPT_MESSAGE) != 0;
        card->Vector[i] = at->u.Interrupt.Vector;
        card->Level[i] = (KIRQL)at->u.Interrupt.Level;
        card->Affinity[i] = at->u.Interrupt.Affinity;
        card->Mode[i] = (at->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive;
        card->Count++;
    }
    if (card->Count == 0) {
        MmUnmapIoSpace(card->Registers, card->Length);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    return STATUS_SUCCESS;
}

static VOID Stop(PFDO Fdo)
{
    PCARD card = CONTAINING_RECORD(Fdo, CARD, Fdo);

    if (!Fdo->Gone)
        Quiesce(card);
    MmUnmapIoSpace(card->Registers, card->Length);
}

static NTSTATUS Control(PFDO Fdo, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PCARD card = CONTAINING_RECORD(Fdo, CARD, Fdo);
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;

    if (Stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_OF(0))
        return FdoComplete(Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < 2 * sizeof(ULONG))
        return FdoComplete(Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    card->Passed = card->Failed = 0;
    Forget(card);
    Refusals(card);
    FullySpecified(card, CONNECT_FULLY_SPECIFIED, "fully specified");
    FullySpecified(card, CONNECT_FULLY_SPECIFIED_GROUP, "fully specified, with a group");
    Inactive(card);
    Passive(card);
    Chain(card);
    if (card->Messages) {
        MessageBased(card);
        Nesting(card);
    } else {
        Early(card);
        LineBased(card, FALSE);
        LineBased(card, TRUE);
    }
    Legacy(card);
#if defined(_WIN64)
    HandBuilt(card);
#endif
    Dpcs(card);
    DbgPrint("conformance: %d passed, %d failed\n", card->Passed, card->Failed);
    buffer[0] = (ULONG)card->Passed;
    buffer[1] = (ULONG)card->Failed;
    return FdoComplete(Fdo, Irp, STATUS_SUCCESS, 2 * sizeof(ULONG));
}

const DRIVER_CLASS Class = {
    .Name = L"Conform",
    .Interface = &ConformanceInterface,
    .ExtensionSize = sizeof(CARD),
    .Init = Init,
    .Start = Start,
    .Stop = Stop,
    .Control = Control,
};
