//! DMA adapters and scatter/gather lists.

super::layout! {
    DEVICE_DESCRIPTION 0x28 {
        Version 0x0 4,
        Master 0x4 1,
        ScatterGather 0x5 1,
        DemandMode 0x6 1,
        AutoInitialize 0x7 1,
        Dma32BitAddresses 0x8 1,
        IgnoreCount 0x9 1,
        Reserved1 0xa 1,
        Dma64BitAddresses 0xb 1,
        BusNumber 0xc 4,
        DmaChannel 0x10 4,
        InterfaceType 0x14 4,
        DmaWidth 0x18 4,
        DmaSpeed 0x1c 4,
        MaximumLength 0x20 4,
        DmaPort 0x24 4,
    }
    DMA_ADAPTER 0x10 {
        Version 0x0 2,
        Size 0x2 2,
        DmaOperations 0x8 8,
    }
    DMA_OPERATIONS 0x80 {
        Size 0x0 4,
        PutDmaAdapter 0x8 8,
        AllocateCommonBuffer 0x10 8,
        FreeCommonBuffer 0x18 8,
        AllocateAdapterChannel 0x20 8,
        FlushAdapterBuffers 0x28 8,
        FreeAdapterChannel 0x30 8,
        FreeMapRegisters 0x38 8,
        MapTransfer 0x40 8,
        GetDmaAlignment 0x48 8,
        ReadDmaCounter 0x50 8,
        GetScatterGatherList 0x58 8,
        PutScatterGatherList 0x60 8,
        CalculateScatterGatherList 0x68 8,
        BuildScatterGatherList 0x70 8,
        BuildMdlFromScatterGatherList 0x78 8,
    }
    SCATTER_GATHER_ELEMENT 0x18 {
        Address 0x0 8,
        Length 0x8 4,
        Reserved 0x10 8,
    }
    SCATTER_GATHER_LIST 0x28 {
        NumberOfElements 0x0 4,
        Reserved 0x8 8,
        Elements 0x10 24,
    }
}
