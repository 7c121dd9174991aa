//! Interrupt connection blocks and the MSI-X table interface (spec 2.1, 2.2, 2.6).

super::layout! {
    PCI_MSIX_TABLE_CONFIG_INTERFACE 0x48 {
        Size 0x0 2,
        Version 0x2 2,
        Context 0x8 8,
        InterfaceReference 0x10 8,
        InterfaceDereference 0x18 8,
        SetTableEntry 0x20 8,
        MaskTableEntry 0x28 8,
        UnmaskTableEntry 0x30 8,
        GetTableEntry 0x38 8,
        GetTableSize 0x40 8,
    }
    IO_CONNECT_INTERRUPT_PARAMETERS 0x50 {
        Version 0x0 4,
        FullySpecified_PhysicalDeviceObject 0x8 8,
        FullySpecified_InterruptObject 0x10 8,
        FullySpecified_ServiceRoutine 0x18 8,
        FullySpecified_ServiceContext 0x20 8,
        FullySpecified_SpinLock 0x28 8,
        FullySpecified_SynchronizeIrql 0x30 1,
        FullySpecified_FloatingSave 0x31 1,
        FullySpecified_ShareVector 0x32 1,
        FullySpecified_Vector 0x34 4,
        FullySpecified_Irql 0x38 1,
        FullySpecified_InterruptMode 0x3c 4,
        FullySpecified_ProcessorEnableMask 0x40 8,
        FullySpecified_Group 0x48 2,
        LineBased_PhysicalDeviceObject 0x8 8,
        LineBased_InterruptObject 0x10 8,
        LineBased_ServiceRoutine 0x18 8,
        LineBased_ServiceContext 0x20 8,
        LineBased_SpinLock 0x28 8,
        LineBased_SynchronizeIrql 0x30 1,
        LineBased_FloatingSave 0x31 1,
        MessageBased_PhysicalDeviceObject 0x8 8,
        MessageBased_ConnectionContext_Generic 0x10 8,
        MessageBased_MessageServiceRoutine 0x18 8,
        MessageBased_ServiceContext 0x20 8,
        MessageBased_SpinLock 0x28 8,
        MessageBased_SynchronizeIrql 0x30 1,
        MessageBased_FloatingSave 0x31 1,
        MessageBased_FallBackServiceRoutine 0x38 8,
    }
    IO_DISCONNECT_INTERRUPT_PARAMETERS 0x10 {
        Version 0x0 4,
        ConnectionContext_Generic 0x8 8,
    }
    IO_REPORT_INTERRUPT_ACTIVE_STATE_PARAMETERS 0x10 {
        Version 0x0 4,
        ConnectionContext_Generic 0x8 8,
    }
    IO_INTERRUPT_MESSAGE_INFO 0x38 {
        UnifiedIrql 0x0 1,
        MessageCount 0x4 4,
        MessageInfo 0x8 48,
    }
    IO_INTERRUPT_MESSAGE_INFO_ENTRY 0x30 {
        MessageAddress 0x0 8,
        TargetProcessorSet 0x8 8,
        InterruptObject 0x10 8,
        MessageData 0x18 4,
        Vector 0x1c 4,
        Irql 0x20 1,
        Mode 0x24 4,
        Polarity 0x28 4,
    }
}
