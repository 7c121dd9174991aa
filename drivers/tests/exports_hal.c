/*
 * exports_hal: DMA adapters, PCI configuration space, MDLs and the shared page.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "exports.h"
#include "more.h"

#define TAG 0x74736554 /* "Test" */
#define SHARED_TIME (*(volatile ULONGLONG *)0xFFFFF78000000008)

static ULONG Lists, Channels;
static PVOID LastBase;

static VOID NTAPI OnList(PDEVICE_OBJECT Device, PIRP Irp, PSCATTER_GATHER_LIST List, PVOID Context)
{
    ULONG i, total = 0;

    UNREFERENCED_PARAMETER(Irp);
    Lists++;
    for (i = 0; i < List->NumberOfElements; i++)
        total += List->Elements[i].Length;
    CHECK(Device != NULL && total == 0x2100);
    *(PSCATTER_GATHER_LIST *)Context = List;
}

static IO_ALLOCATION_ACTION NTAPI OnChannel(PDEVICE_OBJECT Device, PIRP Irp, PVOID Base, PVOID Context)
{
    UNREFERENCED_PARAMETER(Irp);
    CHECK(Device != NULL && Context == &Channels && Base != NULL);
    Channels++;
    LastBase = Base;
    return DeallocateObjectKeepRegisters;
}

static VOID Dma(PFDO Fdo)
{
    DEVICE_DESCRIPTION description;
    PDMA_ADAPTER adapter;
    PHYSICAL_ADDRESS logical;
    ULONG registers = 0, length, size, count;
    PUCHAR common, buffer;
    PMDL mdl;
    PSCATTER_GATHER_LIST list = NULL;
    UCHAR room[256];
    KIRQL irql;

    RtlZeroMemory(&description, sizeof description);
    description.Version = DEVICE_DESCRIPTION_VERSION2;
    description.Master = TRUE;
    description.ScatterGather = TRUE;
    description.Dma32BitAddresses = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = 0x10000;
    description.Version = 9;
    CHECK(IoGetDmaAdapter(Fdo->Pdo, &description, &registers) == NULL);
    description.Version = DEVICE_DESCRIPTION_VERSION2;
    adapter = IoGetDmaAdapter(Fdo->Pdo, &description, &registers);
    CHECK(adapter != NULL && registers == 17);
    if (adapter == NULL)
        return;
    CHECK(adapter->DmaOperations->GetDmaAlignment(adapter) == 1);
    common = adapter->DmaOperations->AllocateCommonBuffer(adapter, 0x1800, &logical, TRUE);
    CHECK(common != NULL && logical.QuadPart == MmGetPhysicalAddress(common).QuadPart && logical.HighPart == 0);
    CHECK(MmGetPhysicalAddress(common + 0x1000).QuadPart == logical.QuadPart + 0x1000);
    adapter->DmaOperations->FreeCommonBuffer(adapter, 0x1800, logical, common, TRUE);

    buffer = ExAllocatePoolWithTag(NonPagedPool, 0x4000, TAG);
    mdl = IoAllocateMdl(buffer + 0x80, 0x2100, FALSE, FALSE, NULL);
    CHECK(buffer != NULL && mdl != NULL && MmGetMdlByteOffset(mdl) == 0x80);
    MmBuildMdlForNonPagedPool(mdl);
    GIVES(STATUS_SUCCESS, adapter->DmaOperations->CalculateScatterGatherList(adapter, mdl, buffer + 0x80, 0x2100, &size,
                                                                            &count));
    CHECK(count == 3 && size == 16 + 3 * 24);
    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    GIVES(STATUS_SUCCESS, adapter->DmaOperations->GetScatterGatherList(adapter, Fdo->Self, mdl, buffer + 0x80, 0x2100,
                                                                      OnList, &list, TRUE));
    CHECK(Lists == 1 && list->Elements[0].Address.QuadPart == MmGetPhysicalAddress(buffer + 0x80).QuadPart);
    adapter->DmaOperations->PutScatterGatherList(adapter, list, TRUE);
    GIVES(STATUS_BUFFER_TOO_SMALL, adapter->DmaOperations->GetScatterGatherList(adapter, Fdo->Self, mdl, buffer + 0x80,
                                                                               0x2101, OnList, &list, TRUE));
    GIVES(STATUS_BUFFER_TOO_SMALL,
          adapter->DmaOperations->BuildScatterGatherList(adapter, Fdo->Self, mdl, buffer + 0x80, 0x2100, OnList, &list,
                                                         TRUE, room, 16));
    GIVES(STATUS_SUCCESS,
          adapter->DmaOperations->BuildScatterGatherList(adapter, Fdo->Self, mdl, buffer + 0x80, 0x2100, OnList, &list,
                                                         TRUE, room, sizeof room));
    CHECK((PVOID)list == (PVOID)room);
    adapter->DmaOperations->PutScatterGatherList(adapter, list, TRUE);
    GIVES(STATUS_INSUFFICIENT_RESOURCES,
          adapter->DmaOperations->AllocateAdapterChannel(adapter, Fdo->Self, registers + 1, OnChannel, &Channels));
    GIVES(STATUS_SUCCESS,
          adapter->DmaOperations->AllocateAdapterChannel(adapter, Fdo->Self, 3, OnChannel, &Channels));
    CHECK(Channels == 1);
    length = 0x2100;
    logical = adapter->DmaOperations->MapTransfer(adapter, mdl, LastBase, buffer + 0x80, &length, TRUE);
    CHECK(logical.QuadPart == MmGetPhysicalAddress(buffer + 0x80).QuadPart && length >= 0xf80 && length <= 0x2100);
    CHECK(adapter->DmaOperations->FlushAdapterBuffers(adapter, mdl, LastBase, buffer + 0x80, length, TRUE));
    adapter->DmaOperations->FreeMapRegisters(adapter, LastBase, 3);
    KeLowerIrql(irql);
    adapter->DmaOperations->PutDmaAdapter(adapter);
    IoFreeMdl(mdl);
    ExFreePoolWithTag(buffer, TAG);
}

static VOID Mdls(void)
{
    PUCHAR buffer = ExAllocatePoolWithTag(NonPagedPool, 0x3000, TAG), mapped;
    PMDL whole = IoAllocateMdl(buffer, 0x3000, FALSE, FALSE, NULL);
    PMDL part = IoAllocateMdl(buffer + 0x1010, 0x800, FALSE, FALSE, NULL), pages;
    PHYSICAL_ADDRESS low, high, skip;

    MmBuildMdlForNonPagedPool(whole);
    IoBuildPartialMdl(whole, part, buffer + 0x1010, 0x800);
    CHECK(MmGetMdlByteCount(part) == 0x800 && MmGetMdlByteOffset(part) == 0x10);
    CHECK(MmGetMdlPfnArray(part)[0] == MmGetMdlPfnArray(whole)[1] && (part->MdlFlags & MDL_PARTIAL));
    buffer[0x1010] = 0x5a;
    mapped = MmGetSystemAddressForMdlSafe(part, NormalPagePriority);
    CHECK(mapped != NULL && *mapped == 0x5a);
    CHECK(MmSizeOfMdl((PVOID)0xfff, 2) == sizeof(MDL) + 2 * sizeof(PFN_NUMBER));
    IoFreeMdl(part);
    IoFreeMdl(whole);
    ExFreePoolWithTag(buffer, TAG);

    low.QuadPart = skip.QuadPart = 0;
    high.QuadPart = 0xffffffff;
    pages = MmAllocatePagesForMdl(low, high, skip, 0x2800);
    CHECK(pages != NULL && MmGetMdlByteCount(pages) == 0x3000);
    mapped = MmMapLockedPagesSpecifyCache(pages, KernelMode, MmCached, NULL, FALSE, NormalPagePriority);
    CHECK(mapped != NULL && mapped[0] == 0 && mapped[0x2fff] == 0);
    mapped[0x1234] = 7;
    CHECK(MmGetPhysicalAddress(mapped + 0x1234).QuadPart ==
          (LONGLONG)MmGetMdlPfnArray(pages)[1] * 0x1000 + 0x234);
    MmUnmapLockedPages(mapped, pages);
    MmFreePagesFromMdl(pages);
    ExFreePool(pages);
}

static VOID Bus(void)
{
    ULONG slot, found = 0, id, space = 0;
    PHYSICAL_ADDRESS address, translated;
    UCHAR header[64];

    for (slot = 0; slot < 32; slot++) {
        ULONG got = HalGetBusDataByOffset(PCIConfiguration, 0, slot, &id, 0, 4);

        if (got == 4 && id == 0xd1a11234) {
            found++;
            CHECK(HalGetBusData(PCIConfiguration, 0, slot, header, sizeof header) == sizeof header);
            CHECK(*(PULONG)header == id);
            header[0] = 0x5c;
            CHECK(HalSetBusDataByOffset(PCIConfiguration, 0, slot, header, 0x3c, 1) == 1);
            CHECK(HalGetBusDataByOffset(PCIConfiguration, 0, slot, header + 1, 0x3c, 1) == 1 && header[1] == 0x5c);
        } else {
            CHECK(got == 2 && (USHORT)id == 0xffff);
        }
    }
    CHECK(found == 1);
    CHECK(HalGetBusDataByOffset(PCIConfiguration, 7, 0, &id, 0, 4) == 0);
    address.QuadPart = 0xe0000000;
    CHECK(HalTranslateBusAddress(PCIBus, 0, address, &space, &translated) && space == 0);
    CHECK(translated.QuadPart == address.QuadPart);
    CHECK(!HalTranslateBusAddress(PCIBus, 3, address, &space, &translated));
}

static VOID Time(void)
{
    ULONGLONG before = SHARED_TIME;
    LARGE_INTEGER wait;

    wait.QuadPart = -500000; /* 50 ms: some ticks of 15.625 ms */
    GIVES(STATUS_SUCCESS, KeDelayExecutionThread(KernelMode, FALSE, &wait));
    CHECK(SHARED_TIME >= before + 468750 && SHARED_TIME <= KeQueryInterruptTime());
    CHECK(*(volatile ULONG *)0xFFFFF7800000026C == 10);
}

static VOID Run(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(Translated);
    Dma(Fdo);
    Mdls();
    Bus();
    Time();
}
