//! Plug and Play: capabilities, resource lists, bus interfaces, notifications.

super::layout! {
    DEVICE_CAPABILITIES 0x40 {
        Size 0x0 2,
        Version 0x2 2,
        Address 0x8 4,
        UINumber 0xc 4,
        DeviceState 0x10 28,
        SystemWake 0x2c 4,
        DeviceWake 0x30 4,
        D1Latency 0x34 4,
        D2Latency 0x38 4,
        D3Latency 0x3c 4,
    }
    DEVICE_RELATIONS 0x10 {
        Count 0x0 4,
        Objects 0x8 8,
    }
    INTERFACE 0x20 {
        Size 0x0 2,
        Version 0x2 2,
        Context 0x8 8,
        InterfaceReference 0x10 8,
        InterfaceDereference 0x18 8,
    }
    BUS_INTERFACE_STANDARD 0x40 {
        Size 0x0 2,
        Version 0x2 2,
        Context 0x8 8,
        InterfaceReference 0x10 8,
        InterfaceDereference 0x18 8,
        TranslateBusAddress 0x20 8,
        GetDmaAdapter 0x28 8,
        SetBusData 0x30 8,
        GetBusData 0x38 8,
    }
    CM_PARTIAL_RESOURCE_DESCRIPTOR 0x14 {
        Type 0x0 1,
        ShareDisposition 0x1 1,
        Flags 0x2 2,
        u 0x4 16,
        u_Generic_Start 0x4 8,
        u_Generic_Length 0xc 4,
        u_Port_Start 0x4 8,
        u_Port_Length 0xc 4,
        u_Memory_Start 0x4 8,
        u_Memory_Length 0xc 4,
        u_Interrupt_Level 0x4 2,
        u_Interrupt_Group 0x6 2,
        u_Interrupt_Vector 0x8 4,
        u_Interrupt_Affinity 0xc 8,
        u_MessageInterrupt_Raw_Group 0x4 2,
        u_MessageInterrupt_Raw_MessageCount 0x6 2,
        u_MessageInterrupt_Raw_Vector 0x8 4,
        u_MessageInterrupt_Raw_Affinity 0xc 8,
        u_MessageInterrupt_Translated_Level 0x4 2,
        u_MessageInterrupt_Translated_Vector 0x8 4,
        u_MessageInterrupt_Translated_Affinity 0xc 8,
        u_Dma_Channel 0x4 4,
        u_Dma_Port 0x8 4,
        u_DevicePrivate_Data 0x4 12,
        u_BusNumber_Start 0x4 4,
        u_BusNumber_Length 0x8 4,
    }
    CM_PARTIAL_RESOURCE_LIST 0x1c {
        Version 0x0 2,
        Revision 0x2 2,
        Count 0x4 4,
        PartialDescriptors 0x8 20,
    }
    CM_FULL_RESOURCE_DESCRIPTOR 0x24 {
        InterfaceType 0x0 4,
        BusNumber 0x4 4,
        PartialResourceList 0x8 28,
    }
    CM_RESOURCE_LIST 0x28 {
        Count 0x0 4,
        List 0x4 36,
    }
    IO_RESOURCE_DESCRIPTOR 0x20 {
        Option 0x0 1,
        Type 0x1 1,
        ShareDisposition 0x2 1,
        Flags 0x4 2,
        u 0x8 24,
        u_Port_Length 0x8 4,
        u_Port_Alignment 0xc 4,
        u_Port_MinimumAddress 0x10 8,
        u_Port_MaximumAddress 0x18 8,
        u_Memory_Length 0x8 4,
        u_Memory_Alignment 0xc 4,
        u_Memory_MinimumAddress 0x10 8,
        u_Memory_MaximumAddress 0x18 8,
        u_Interrupt_MinimumVector 0x8 4,
        u_Interrupt_MaximumVector 0xc 4,
        u_Interrupt_AffinityPolicy 0x10 2,
        u_Interrupt_Group 0x12 2,
        u_Interrupt_PriorityPolicy 0x14 4,
        u_Interrupt_TargetedProcessors 0x18 8,
        u_DevicePrivate_Data 0x8 12,
        u_BusNumber_Length 0x8 4,
        u_BusNumber_MinBusNumber 0xc 4,
        u_BusNumber_MaxBusNumber 0x10 4,
    }
    IO_RESOURCE_LIST 0x28 {
        Version 0x0 2,
        Revision 0x2 2,
        Count 0x4 4,
        Descriptors 0x8 32,
    }
    IO_RESOURCE_REQUIREMENTS_LIST 0x48 {
        ListSize 0x0 4,
        InterfaceType 0x4 4,
        BusNumber 0x8 4,
        SlotNumber 0xc 4,
        Reserved 0x10 12,
        AlternativeLists 0x1c 4,
        List 0x20 40,
    }
    PCI_COMMON_CONFIG 0x100 {
        VendorID 0x0 2,
        DeviceID 0x2 2,
        Command 0x4 2,
        Status 0x6 2,
        RevisionID 0x8 1,
        ProgIf 0x9 1,
        SubClass 0xa 1,
        BaseClass 0xb 1,
        CacheLineSize 0xc 1,
        LatencyTimer 0xd 1,
        HeaderType 0xe 1,
        BIST 0xf 1,
        u_type0_BaseAddresses 0x10 24,
        u_type0_SubVendorID 0x2c 2,
        u_type0_SubSystemID 0x2e 2,
        u_type0_CapabilitiesPtr 0x34 1,
        u_type0_InterruptLine 0x3c 1,
        u_type0_InterruptPin 0x3d 1,
    }
    TARGET_DEVICE_REMOVAL_NOTIFICATION 0x20 {
        Version 0x0 2,
        Size 0x2 2,
        Event 0x4 16,
        FileObject 0x18 8,
    }
    DEVICE_INTERFACE_CHANGE_NOTIFICATION 0x30 {
        Version 0x0 2,
        Size 0x2 2,
        Event 0x4 16,
        InterfaceClassGuid 0x14 16,
        SymbolicLinkName 0x28 8,
    }
    PNP_BUS_INFORMATION 0x18 {
        BusTypeGuid 0x0 16,
        LegacyBusType 0x10 4,
        BusNumber 0x14 4,
    }
}
