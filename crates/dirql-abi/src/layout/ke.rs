//! Kernel objects: dispatcher objects, DPCs, locks, processor numbers and exception records.

super::layout! {
    DISPATCHER_HEADER 0x18 {
        Type 0x0 1,
        Size 0x2 1,
        SignalState 0x4 4,
        WaitListHead 0x8 16,
    }
    KEVENT 0x18 {
        Header 0x0 24,
    }
    KSEMAPHORE 0x20 {
        Header 0x0 24,
        Limit 0x18 4,
    }
    KMUTANT 0x38 {
        Header 0x0 24,
        MutantListEntry 0x18 16,
        OwnerThread 0x28 8,
        Abandoned 0x30 1,
        ApcDisable 0x31 1,
    }
    KTIMER 0x40 {
        Header 0x0 24,
        DueTime 0x18 8,
        TimerListEntry 0x20 16,
        Dpc 0x30 8,
        Period 0x3c 4,
    }
    KDPC 0x40 {
        Type 0x0 1,
        Importance 0x1 1,
        Number 0x2 2,
        DpcListEntry 0x8 16,
        DeferredRoutine 0x18 8,
        DeferredContext 0x20 8,
        SystemArgument1 0x28 8,
        SystemArgument2 0x30 8,
        DpcData 0x38 8,
    }
    KAPC 0x58 {
        Type 0x0 1,
        Size 0x2 1,
        Thread 0x8 8,
        ApcListEntry 0x10 16,
        KernelRoutine 0x20 8,
        RundownRoutine 0x28 8,
        NormalRoutine 0x30 8,
        NormalContext 0x38 8,
        SystemArgument1 0x40 8,
        SystemArgument2 0x48 8,
        ApcStateIndex 0x50 1,
        ApcMode 0x51 1,
        Inserted 0x52 1,
    }
    KDEVICE_QUEUE 0x28 {
        Type 0x0 2,
        Size 0x2 2,
        DeviceListHead 0x8 16,
        Lock 0x18 8,
        Busy 0x20 1,
    }
    KDEVICE_QUEUE_ENTRY 0x18 {
        DeviceListEntry 0x0 16,
        SortKey 0x10 4,
        Inserted 0x14 1,
    }
    KWAIT_BLOCK 0x30 {
        WaitListEntry 0x0 16,
        Thread 0x10 8,
        Object 0x18 8,
        NextWaitBlock 0x20 8,
        WaitKey 0x28 2,
        WaitType 0x2a 1,
    }
    FAST_MUTEX 0x38 {
        Count 0x0 4,
        Owner 0x8 8,
        Contention 0x10 4,
        Event 0x18 24,
        OldIrql 0x30 4,
    }
    KSPIN_LOCK_QUEUE 0x10 {
        Next 0x0 8,
        Lock 0x8 8,
    }
    KLOCK_QUEUE_HANDLE 0x18 {
        LockQueue 0x0 16,
        OldIrql 0x10 1,
    }
    ERESOURCE 0x68 {
        SystemResourcesList 0x0 16,
        OwnerTable 0x10 8,
        ActiveCount 0x18 2,
        Flag 0x1a 2,
        SharedWaiters 0x20 8,
        ExclusiveWaiters 0x28 8,
        OwnerEntry 0x30 16,
        ActiveEntries 0x40 4,
        ContentionCount 0x44 4,
        NumberOfSharedWaiters 0x48 4,
        NumberOfExclusiveWaiters 0x4c 4,
        Address 0x58 8,
        SpinLock 0x60 8,
    }
    GROUP_AFFINITY 0x10 {
        Mask 0x0 8,
        Group 0x8 2,
        Reserved 0xa 6,
    }
    PROCESSOR_NUMBER 0x4 {
        Group 0x0 2,
        Number 0x2 1,
        Reserved 0x3 1,
    }
    KDPC_WATCHDOG_INFORMATION 0x14 {
        DpcTimeLimit 0x0 4,
        DpcTimeCount 0x4 4,
        DpcWatchdogLimit 0x8 4,
        DpcWatchdogCount 0xc 4,
        Reserved 0x10 4,
    }
    WORK_QUEUE_ITEM 0x20 {
        List 0x0 16,
        WorkerRoutine 0x10 8,
        Parameter 0x18 8,
    }
    EXCEPTION_RECORD 0x98 {
        ExceptionCode 0x0 4,
        ExceptionFlags 0x4 4,
        ExceptionRecord 0x8 8,
        ExceptionAddress 0x10 8,
        NumberParameters 0x18 4,
        ExceptionInformation 0x20 120,
    }
    EXCEPTION_POINTERS 0x10 {
        ExceptionRecord 0x0 8,
        ContextRecord 0x8 8,
    }
    CONTEXT 0x4d0 {
        P1Home 0x0 8,
        ContextFlags 0x30 4,
        MxCsr 0x34 4,
        SegCs 0x38 2,
        SegSs 0x42 2,
        EFlags 0x44 4,
        Dr0 0x48 8,
        Dr7 0x70 8,
        Rax 0x78 8,
        Rcx 0x80 8,
        Rdx 0x88 8,
        Rbx 0x90 8,
        Rsp 0x98 8,
        Rbp 0xa0 8,
        Rsi 0xa8 8,
        Rdi 0xb0 8,
        R8 0xb8 8,
        R9 0xc0 8,
        R10 0xc8 8,
        R11 0xd0 8,
        R12 0xd8 8,
        R13 0xe0 8,
        R14 0xe8 8,
        R15 0xf0 8,
        Rip 0xf8 8,
        FltSave 0x100 512,
        Xmm0 0x1a0 16,
        Xmm6 0x200 16,
        Xmm15 0x290 16,
    }
    DISPATCHER_CONTEXT 0x50 {
        ControlPc 0x0 8,
        ImageBase 0x8 8,
        FunctionEntry 0x10 8,
        EstablisherFrame 0x18 8,
        TargetIp 0x20 8,
        ContextRecord 0x28 8,
        LanguageHandler 0x30 8,
        HandlerData 0x38 8,
        HistoryTable 0x40 8,
        ScopeIndex 0x48 4,
    }
}
