//! Strings, lists, registry information and other plain run-time structures.

super::layout! {
    LIST_ENTRY 0x10 {
        Flink 0x0 8,
        Blink 0x8 8,
    }
    SINGLE_LIST_ENTRY 0x8 {
        Next 0x0 8,
    }
    UNICODE_STRING 0x10 {
        Length 0x0 2,
        MaximumLength 0x2 2,
        Buffer 0x8 8,
    }
    ANSI_STRING 0x10 {
        Length 0x0 2,
        MaximumLength 0x2 2,
        Buffer 0x8 8,
    }
    GUID 0x10 {
        Data1 0x0 4,
        Data2 0x4 2,
        Data3 0x6 2,
        Data4 0x8 8,
    }
    OBJECT_ATTRIBUTES 0x30 {
        Length 0x0 4,
        RootDirectory 0x8 8,
        ObjectName 0x10 8,
        Attributes 0x18 4,
        SecurityDescriptor 0x20 8,
        SecurityQualityOfService 0x28 8,
    }
    CLIENT_ID 0x10 {
        UniqueProcess 0x0 8,
        UniqueThread 0x8 8,
    }
    GENERAL_LOOKASIDE 0x80 {
        ListHead 0x0 16,
        Depth 0x10 2,
        MaximumDepth 0x12 2,
        TotalAllocates 0x14 4,
        AllocateMisses 0x18 4,
        TotalFrees 0x1c 4,
        FreeMisses 0x20 4,
        Type 0x24 4,
        Tag 0x28 4,
        Size 0x2c 4,
        Allocate 0x30 8,
        Free 0x38 8,
        ListEntry 0x40 16,
    }
    NPAGED_LOOKASIDE_LIST 0x80 {
        L 0x0 128,
    }
    PAGED_LOOKASIDE_LIST 0x80 {
        L 0x0 128,
    }
    SLIST_HEADER 0x10 {
    }
    SLIST_ENTRY 0x10 {
        Next 0x0 8,
    }
    KEY_VALUE_PARTIAL_INFORMATION 0x10 {
        TitleIndex 0x0 4,
        Type 0x4 4,
        DataLength 0x8 4,
        Data 0xc 1,
    }
    KEY_VALUE_BASIC_INFORMATION 0x10 {
        TitleIndex 0x0 4,
        Type 0x4 4,
        NameLength 0x8 4,
        Name 0xc 2,
    }
    KEY_VALUE_FULL_INFORMATION 0x18 {
        TitleIndex 0x0 4,
        Type 0x4 4,
        DataOffset 0x8 4,
        DataLength 0xc 4,
        NameLength 0x10 4,
        Name 0x14 2,
    }
    KEY_BASIC_INFORMATION 0x18 {
        LastWriteTime 0x0 8,
        TitleIndex 0x8 4,
        NameLength 0xc 4,
        Name 0x10 2,
    }
    KEY_FULL_INFORMATION 0x30 {
        LastWriteTime 0x0 8,
        TitleIndex 0x8 4,
        ClassOffset 0xc 4,
        ClassLength 0x10 4,
        SubKeys 0x14 4,
        MaxNameLen 0x18 4,
        MaxClassLen 0x1c 4,
        Values 0x20 4,
        MaxValueNameLen 0x24 4,
        MaxValueDataLen 0x28 4,
        Class 0x2c 2,
    }
    RTL_QUERY_REGISTRY_TABLE 0x38 {
        QueryRoutine 0x0 8,
        Flags 0x8 4,
        Name 0x10 8,
        EntryContext 0x18 8,
        DefaultType 0x20 4,
        DefaultData 0x28 8,
        DefaultLength 0x30 4,
    }
    RTL_OSVERSIONINFOW 0x114 {
        dwOSVersionInfoSize 0x0 4,
        dwMajorVersion 0x4 4,
        dwMinorVersion 0x8 4,
        dwBuildNumber 0xc 4,
        dwPlatformId 0x10 4,
        szCSDVersion 0x14 256,
    }
    RTL_OSVERSIONINFOEXW 0x11c {
        dwOSVersionInfoSize 0x0 4,
        dwMajorVersion 0x4 4,
        dwMinorVersion 0x8 4,
        dwBuildNumber 0xc 4,
        dwPlatformId 0x10 4,
        szCSDVersion 0x14 256,
        wServicePackMajor 0x114 2,
        wServicePackMinor 0x116 2,
        wSuiteMask 0x118 2,
        wProductType 0x11a 1,
        wReserved 0x11b 1,
    }
    TIME_FIELDS 0x10 {
        Year 0x0 2,
        Month 0x2 2,
        Day 0x4 2,
        Hour 0x6 2,
        Minute 0x8 2,
        Second 0xa 2,
        Milliseconds 0xc 2,
        Weekday 0xe 2,
    }
    KUSER_SHARED_DATA 0x5f0 {
        TickCountLowDeprecated 0x0 4,
        TickCountMultiplier 0x4 4,
        InterruptTime 0x8 12,
        SystemTime 0x14 12,
        TimeZoneBias 0x20 12,
        ImageNumberLow 0x2c 2,
        NtMajorVersion 0x26c 4,
        NtMinorVersion 0x270 4,
        ProcessorFeatures 0x274 64,
        TickCount 0x320 12,
    }
}
