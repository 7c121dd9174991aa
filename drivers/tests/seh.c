/*
 * seh: structured exceptions. A legacy driver (no AddDevice): control code 0x222000 + 4 * n runs case n and gives two
 * ULONGs, what the case expects and what it got. From 0x222100 on are faults that no handler may take, or that none
 * takes. Built with clang: gcc has no __try.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <ddk/wdm.h>

#define NOINLINE __attribute__((noinline))

/* What the header lacks of winnt.h. */
typedef struct _FUNCTION {
    ULONG Begin, End, Unwind;
} FUNCTION, *PFUNCTION;
struct DECLSPEC_ALIGN(16) _CONTEXT {
    ULONG64 Home[6];
    ULONG Flags, MxCsr;
    USHORT Segments[6];
    ULONG EFlags;
    ULONG64 Debug[6], Rax, Rcx, Rdx, Rbx, Rsp, Rbp, Rsi, Rdi, R8, R9, R10, R11, R12, R13, R14, R15, Rip;
    UCHAR Rest[0x3D0];
};
C_ASSERT(sizeof(struct _CONTEXT) == 0x4D0);
NTSYSAPI VOID NTAPI RtlRaiseException(PEXCEPTION_RECORD Record);
NTSYSAPI VOID NTAPI RtlCaptureContext(PCONTEXT Context);
NTSYSAPI PVOID NTAPI RtlPcToFileHeader(PVOID Pc, PVOID *Base);
NTSYSAPI PFUNCTION NTAPI RtlLookupFunctionEntry(ULONG64 Pc, ULONG64 *Base, PVOID History);
NTSYSAPI PVOID NTAPI RtlVirtualUnwind(ULONG Kind, ULONG64 Base, ULONG64 Pc, PFUNCTION Function, PCONTEXT Context,
                                      PVOID *Data, ULONG64 *Frame, PVOID Pointers);

typedef struct _RESULT {
    ULONG Expected;
    ULONG Got;
} RESULT, *PRESULT;

/* ExRaiseStatus, called as if it returned: behind a call that does not, clang for this target may put nothing, and
 * the return address would lie in the next function. */
static VOID(NTAPI *volatile Pointer)(NTSTATUS);
#define Raise(status)              \
    do {                           \
        Pointer(status);           \
        __asm__ volatile("nop");   \
    } while (0)

static volatile ULONG Log;
static volatile ULONG_PTR Information;
static volatile ULONG One = 1;
static const volatile ULONG ReadOnly = 7;
static ULONG Good = 0x600D;

static NOINLINE VOID Note(ULONG Digit)
{
    Log = Log * 10 + Digit;
}

static NOINLINE ULONG Read(volatile ULONG *Address)
{
    return *Address;
}

static NOINLINE ULONG Divide(ULONG By)
{
    ULONG low = 100, high = 0;

    __asm__ volatile("divl %2" : "+a"(low), "+d"(high) : "r"(By));
    return low;
}

static NOINLINE VOID Undefined(VOID)
{
    __asm__ volatile("ud2");
}

static NOINLINE VOID Break(VOID)
{
    __asm__ volatile("int3");
}

static NOINLINE LONG Remember(PEXCEPTION_POINTERS Pointers, LONG Answer)
{
    PEXCEPTION_RECORD record = Pointers->ExceptionRecord;

    Information = record->NumberParameters > 1 ? record->ExceptionInformation[1] : record->NumberParameters;
    return Answer;
}

static NOINLINE ULONG NullRead(VOID)
{
    ULONG got = 0;

    __try {
        got = Read((volatile ULONG *)0x10);
    } __except (Remember(GetExceptionInformation(), EXCEPTION_EXECUTE_HANDLER)) {
        got = GetExceptionCode();
    }
    return Information == 0x10 ? got : 0;
}

static NOINLINE ULONG ByZero(VOID)
{
    __try {
        return Divide(One - 1);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
}

static NOINLINE ULONG BadCode(VOID)
{
    __try {
        Undefined();
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    return 0;
}

static NOINLINE ULONG BreakPoint(VOID)
{
    __try {
        Break();
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    return 0;
}

/* Runs a __finally and lets the exception pass. */
static NOINLINE VOID Pass(ULONG Digit, NTSTATUS Status)
{
    __try {
        __try {
            Raise(Status);
        } __except (Note(Digit), EXCEPTION_CONTINUE_SEARCH) {
            /* Between two guarded calls, as clang's ranges end one byte behind a call: its __finally ran twice else. */
            One = 1;
            Note(9);
        }
    } __finally {
        Note(AbnormalTermination() ? Digit + 1 : 9);
    }
}

/* Filters run first, innermost first; then the __finally blocks; then the handler: 1 3 2 4. */
static NOINLINE ULONG Order(VOID)
{
    __try {
        Pass(1, STATUS_INVALID_PARAMETER);
    } __except (Note(3), GetExceptionCode() == STATUS_INVALID_PARAMETER ? EXCEPTION_EXECUTE_HANDLER
                                                                        : EXCEPTION_CONTINUE_SEARCH) {
        Note(4);
    }
    return Log;
}

/* The load repeats with its address mended. */
static NOINLINE LONG Mend(PEXCEPTION_POINTERS Pointers)
{
    Pointers->ContextRecord->Rcx = (ULONG_PTR)&Good;
    return EXCEPTION_CONTINUE_EXECUTION;
}

static NOINLINE ULONG LoadThroughRcx(ULONG_PTR Address)
{
    ULONG value;

    __asm__ volatile("movl (%%rcx), %0" : "=r"(value) : "c"(Address) : "memory");
    return value;
}

static NOINLINE ULONG Continue(VOID)
{
    ULONG got = 0;

    __try {
        got = LoadThroughRcx(0x20);
    } __except (Mend(GetExceptionInformation())) {
        got = 1;
    }
    return got;
}

static NOINLINE ULONG Normal(VOID)
{
    __try {
        Note(1);
    } __finally {
        Note(AbnormalTermination() ? 9 : 2);
    }
    return Log;
}

static NOINLINE VOID RaiseBoth(VOID)
{
    __try {
        Raise(STATUS_INVALID_PARAMETER);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Note(1);
        Raise(STATUS_DEVICE_NOT_READY);
    }
}

/* An exception in an __except block belongs to the blocks around it. */
static NOINLINE ULONG InHandler(VOID)
{
    __try {
        RaiseBoth();
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    return 0;
}

static NOINLINE LONG FaultingFilter(VOID)
{
    LONG answer = EXCEPTION_EXECUTE_HANDLER;

    __try {
        Note(1);
        Read((volatile ULONG *)0x30);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Note(2);
        answer = EXCEPTION_CONTINUE_SEARCH;
    }
    return answer;
}

static NOINLINE VOID FilterFaults(VOID)
{
    __try {
        Raise(STATUS_TIMEOUT + 0xC0000000);
    } __except (FaultingFilter()) {
        Note(9);
    }
}

/* An exception within a filter, handled within it: the search then goes on. */
static NOINLINE ULONG InFilter(VOID)
{
    __try {
        FilterFaults();
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Note(3);
    }
    return Log;
}

static NOINLINE VOID FinallyFaults(VOID)
{
    __try {
        __try {
            Raise(STATUS_INVALID_PARAMETER);
        } __finally {
            Note(1);
            Raise(STATUS_DEVICE_NOT_READY);
        }
    } __finally {
        Note(2);
    }
}

/* An exception in a __finally block during the unwind: its own unwind collides with the first and replaces it; no
 * __finally block runs twice. */
static NOINLINE ULONG Collide(VOID)
{
    __try {
        __try {
            FinallyFaults();
        } __except (GetExceptionCode() == STATUS_DEVICE_NOT_READY ? EXCEPTION_EXECUTE_HANDLER
                                                                  : EXCEPTION_CONTINUE_SEARCH) {
            Note(3);
        }
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Note(4);
    }
    return Log;
}

static NOINLINE ULONG Probe(PVOID Address, SIZE_T Length, ULONG Alignment, BOOLEAN Write)
{
    __try {
        if (Write)
            ProbeForWrite(Address, Length, Alignment);
        else
            ProbeForRead(Address, Length, Alignment);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    return 0;
}

static NOINLINE ULONG Probes(VOID)
{
    if (Probe((PVOID)0x1001, 4, 4, FALSE) != (ULONG)STATUS_DATATYPE_MISALIGNMENT)
        return 1;
    if (Probe(&Good, 4, 4, FALSE) != (ULONG)STATUS_ACCESS_VIOLATION)
        return 2;
    if (Probe((PVOID)0x10000, 0x1000, 1, FALSE) != 0)
        return 3;
    if (Probe((PVOID)0x10000, 0x1000, 1, TRUE) != (ULONG)STATUS_ACCESS_VIOLATION)
        return 4;
    if (Probe(&Good, 0, 4, TRUE) != 0)
        return 5;
    return 0;
}

/* A kernel routine faults on the driver's behalf. */
static NOINLINE ULONG InRoutine(VOID)
{
    KEVENT *volatile nowhere = (KEVENT *)0x40;

    __try {
        KeSetEvent(nowhere, 0, FALSE);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    return 0;
}

static NOINLINE VOID Clobber(VOID)
{
    __asm__ volatile("pxor %%xmm6, %%xmm6\n\txorl %%ebx, %%ebx\n\txorl %%r12d, %%r12d" : : : "xmm6", "rbx", "r12");
    Raise(STATUS_INVALID_PARAMETER);
}

/* Registers that callees save come back, XMM6 with them. */
static NOINLINE ULONG Saved(VOID)
{
    ULONG64 in = 0x1234567, out = 0;

    __asm__ volatile("movq %0, %%xmm6" : : "r"(in));
    __try {
        Clobber();
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        __asm__ volatile("movq %%xmm6, %0" : "=r"(out));
    }
    return (ULONG)out;
}

static NOINLINE VOID RaiseContinuable(VOID)
{
    EXCEPTION_RECORD record;

    RtlZeroMemory(&record, sizeof(record));
    record.ExceptionCode = (NTSTATUS)0xE0000001;
    record.NumberParameters = 2;
    record.ExceptionInformation[1] = 77;
    RtlRaiseException(&record);
    Note(2);
}

static NOINLINE ULONG Resumed(VOID)
{
    __try {
        Note(1);
        RaiseContinuable();
        Note(3);
    } __except (Remember(GetExceptionInformation(), EXCEPTION_CONTINUE_EXECUTION)) {
        Note(9);
    }
    return Information == 77 ? Log : 0;
}

static NOINLINE ULONG64 Deep(ULONG Depth)
{
    volatile ULONG64 room[4] = {Depth, Depth, Depth, Depth};

    if (Depth == 0)
        Raise(STATUS_INVALID_PARAMETER);
    return Deep(Depth - 1) + room[1];
}

static NOINLINE ULONG FromDeep(VOID)
{
    __try {
        return (ULONG)Deep(60);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
}

/* Walks from here to the caller by hand. */
static NOINLINE ULONG Walk(VOID)
{
    struct _CONTEXT context;
    ULONG64 base = 0, frame = 0, here = (ULONG64)__builtin_return_address(0);
    PVOID data = NULL;
    PFUNCTION function;

    RtlCaptureContext(&context);
    function = RtlLookupFunctionEntry(context.Rip, &base, NULL);
    if (function == NULL)
        return 0;
    RtlVirtualUnwind(0, base, context.Rip, function, &context, &data, &frame, NULL);
    return context.Rip == here;
}

static NOINLINE ULONG Header(VOID)
{
    PVOID base = NULL;

    if (RtlPcToFileHeader((PVOID)Header, &base) != base || base == NULL)
        return 0;
    return *(USHORT *)base;
}

static volatile ULONG FromDpc;

static VOID NTAPI Dpc(PKDPC Self, PVOID Context, PVOID One_, PVOID Two)
{
    UNREFERENCED_PARAMETER(Self);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Two);
    if (One_ != NULL) {
        Divide(One - 1);
        return;
    }
    __try {
        Divide(One - 1);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        FromDpc = GetExceptionCode();
    }
}

static NOINLINE ULONG InDpc(PVOID Unhandled)
{
    static KDPC dpc;

    KeInitializeDpc(&dpc, Dpc, NULL);
    KeInsertQueueDpc(&dpc, Unhandled, NULL);
    KeFlushQueuedDpcs();
    return FromDpc;
}

static PDEVICE_OBJECT Device;

#define IRP_RAISES ((PVOID)0x5A15E5)

/* The exception passes IofCallDriver on its way from the called dispatch routine. */
static NOINLINE ULONG ThroughCall(VOID)
{
    PIRP irp = IoAllocateIrp(Device->StackSize, FALSE);
    ULONG got = 0;

    if (irp == NULL)
        return 0;
    IoGetNextIrpStackLocation(irp)->MajorFunction = IRP_MJ_INTERNAL_DEVICE_CONTROL;
    IoGetNextIrpStackLocation(irp)->Parameters.Others.Argument1 = IRP_RAISES;
    __try {
        IoCallDriver(Device, irp);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        got = GetExceptionCode();
    }
    IoFreeIrp(irp);
    return got;
}

static VOID NTAPI Thread(PVOID Context)
{
    Read(Context);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* Faults that end the run. */
static NOINLINE VOID Fatal(ULONG Case)
{
    HANDLE thread;
    KIRQL irql;

    __try {
        switch (Case) {
        case 1: /* a system address without memory: 0x50, whatever handlers there are */
            Read((volatile ULONG *)0xFFFF900000001000ull);
            break;
        case 2: /* any bad address at DISPATCH_LEVEL: 0xD1 */
            KeRaiseIrql(DISPATCH_LEVEL, &irql);
            Read((volatile ULONG *)0x50);
            break;
        case 3: /* fast fail: 0x139, no handler is asked */
            __asm__ volatile("int $0x29" : : "c"(3));
            break;
        case 4: /* a constant: 0xBE */
            *(volatile ULONG *)&ReadOnly = 8;
            break;
        case 5: /* in a DPC: 0x1E */
            InDpc(&Good);
            break;
        case 6: /* in a system thread: 0x7E */
            if (NT_SUCCESS(PsCreateSystemThread(&thread, THREAD_ALL_ACCESS, NULL, NULL, NULL, Thread, (PVOID)0x60))) {
                LARGE_INTEGER wait = {.QuadPart = -10000000};
                KeDelayExecutionThread(KernelMode, FALSE, &wait);
            }
            break;
        case 7: /* the stack is used up: 0x7F, double fault */
            Deep(100000);
            break;
        }
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Note(9);
    }
}

static NTSTATUS Control(ULONG Code, PRESULT Result, ULONG Room)
{
    ULONG n = (Code - 0x222000) / 4;

    if (Code >= 0x222100) {
        if (Code == 0x222100) /* in a request, no handler at all: 0x3B */
            Result->Got = Read((volatile ULONG *)0x70);
        else
            Fatal((Code - 0x222100) / 4);
        return STATUS_SUCCESS;
    }
    if (Room < sizeof(*Result))
        return STATUS_BUFFER_TOO_SMALL;
    Log = 0;
    Information = 0;
    FromDpc = 0;
    switch (n) {
#define CASE(n, expected, got)         \
    case n:                            \
        Result->Expected = (expected); \
        Result->Got = (got);           \
        break
        CASE(0, STATUS_ACCESS_VIOLATION, NullRead());
        CASE(1, STATUS_INTEGER_DIVIDE_BY_ZERO, ByZero());
        CASE(2, STATUS_ILLEGAL_INSTRUCTION, BadCode());
        CASE(3, STATUS_BREAKPOINT, BreakPoint());
        CASE(4, 1324, Order());
        CASE(5, 0x600D, Continue());
        CASE(6, 12, Normal());
        CASE(7, STATUS_DEVICE_NOT_READY, InHandler());
        CASE(8, 123, InFilter());
        CASE(9, 123, Collide());
        CASE(10, 0, Probes());
        CASE(11, STATUS_ACCESS_VIOLATION, InRoutine());
        CASE(12, 0x1234567, Saved());
        CASE(13, 123, Resumed());
        CASE(14, STATUS_INVALID_PARAMETER, FromDeep());
        CASE(15, 1, Walk());
        CASE(16, 0x5A4D, Header());
        CASE(17, STATUS_INTEGER_DIVIDE_BY_ZERO, InDpc(NULL));
        CASE(18, STATUS_DEVICE_BUSY, ThroughCall());
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    DbgPrint("seh: case %u: expected %#x, got %#x\n", n, Result->Expected, Result->Got);
    return Result->Expected == Result->Got ? STATUS_SUCCESS : STATUS_UNSUCCESSFUL;
}

static NTSTATUS NTAPI Dispatch(PDEVICE_OBJECT Self, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_SUCCESS;

    UNREFERENCED_PARAMETER(Self);
    Irp->IoStatus.Information = 0;
    if (stack->MajorFunction == IRP_MJ_INTERNAL_DEVICE_CONTROL &&
        stack->Parameters.Others.Argument1 == IRP_RAISES)
        Raise(STATUS_DEVICE_BUSY);
    if (stack->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        status = Control(stack->Parameters.DeviceIoControl.IoControlCode, Irp->AssociatedIrp.SystemBuffer,
                         stack->Parameters.DeviceIoControl.OutputBufferLength);
        if (NT_SUCCESS(status))
            Irp->IoStatus.Information = sizeof(RESULT);
    }
    Irp->IoStatus.Status = status;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    IoDeleteDevice(Device);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\Seh0");
    ULONG i;

    UNREFERENCED_PARAMETER(Path);
    Pointer = (PVOID)ExRaiseStatus;
    for (i = 0; i <= IRP_MJ_MAXIMUM_FUNCTION; i++)
        Driver->MajorFunction[i] = Dispatch;
    Driver->DriverUnload = Unload;
    return IoCreateDevice(Driver, 0, &name, FILE_DEVICE_UNKNOWN, 0, FALSE, &Device);
}
