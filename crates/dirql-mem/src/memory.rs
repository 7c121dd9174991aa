//! The machine's memory: frames behind a map, with the copies the kernel and DMA make.

use crate::frame::{Frames, Page};
use crate::map::Map;
use crate::{Access, Fault, FrameId, MemFault, OutOfMemory, PAGE_SIZE, Pa, PhysFault, Prot, Target, Va};

/// Guest memory: RAM frames and the address map. Cloning shares every frame until one side writes it.
pub struct Memory {
    frames: Frames,
    map: Map,
    generation: u64,
}

impl Clone for Memory {
    fn clone(&self) -> Memory {
        Memory { frames: self.frames.clone(), map: self.map.clone(), generation: self.generation }
    }

    /// The quick way back to a snapshot that this was cloned from: it costs by the pages written since.
    fn clone_from(&mut self, source: &Memory) {
        self.frames.clone_from(&source.frames);
        self.map.clone_from(&source.map);
        self.generation = source.generation;
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory")
            .field("used_frames", &self.frames.used())
            .field("map_generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// Memory with nothing allocated or mapped; at most `ram_limit_bytes` can ever be allocated.
    pub fn new(ram_limit_bytes: u64) -> Memory {
        Memory { frames: Frames::new(ram_limit_bytes), map: Map::default(), generation: 0 }
    }

    /// Bytes of RAM allocated now.
    pub fn used_bytes(&self) -> u64 {
        self.frames.used() * PAGE_SIZE as u64
    }

    /// Allocates `n` contiguous zeroed frames, the lowest that fit.
    pub fn alloc_frames(&mut self, n: usize) -> Result<Pa, OutOfMemory> {
        self.frames.alloc(n, Pa(u64::MAX))
    }

    /// As [`alloc_frames`](Self::alloc_frames), with no byte above `highest`.
    pub fn alloc_frames_below(&mut self, n: usize, highest: Pa) -> Result<Pa, OutOfMemory> {
        self.frames.alloc(n, highest)
    }

    /// Gives `n` frames back; pages still mapped to them are no longer present.
    pub fn free_frames(&mut self, pa: Pa, n: usize) {
        self.frames.free(pa, n);
        self.generation += 1;
    }

    fn map(&mut self, va: Va, pa: Pa, pages: usize, device: bool, prot: Prot) {
        for i in 0..pages as u64 {
            let off = i.wrapping_mul(PAGE_SIZE as u64);
            self.map.set(Va(va.0.wrapping_add(off)), Pa(pa.0.wrapping_add(off)), device, prot);
        }
        self.generation += 1;
    }

    /// Maps pages of RAM. Pages of the range that aren't canonical are passed over.
    pub fn map_ram(&mut self, va: Va, pa: Pa, pages: usize, prot: Prot) {
        self.map(va, pa, pages, false, prot);
    }

    /// Maps device register pages.
    pub fn map_device(&mut self, va: Va, pa: Pa, pages: usize, prot: Prot) {
        self.map(va, pa, pages, true, prot);
    }

    /// Takes pages out of the map; their frames stay allocated.
    pub fn unmap(&mut self, va: Va, pages: usize) {
        for i in 0..pages as u64 {
            self.map.clear(Va(va.0.wrapping_add(i.wrapping_mul(PAGE_SIZE as u64))));
        }
        self.generation += 1;
    }

    /// Changes the protection of the mapped pages in the range.
    pub fn protect(&mut self, va: Va, pages: usize, prot: Prot) {
        for i in 0..pages as u64 {
            self.map.protect(Va(va.0.wrapping_add(i.wrapping_mul(PAGE_SIZE as u64))), prot);
        }
        self.generation += 1;
    }

    /// What is mapped at `va`, and how it is protected.
    pub fn translate(&self, va: Va) -> Option<(Target, Prot)> {
        let (pa, device, prot) = self.map.get(va)?;
        if device {
            return Some((Target::Device(pa), prot));
        }
        let frame = FrameId::of(pa).filter(|&f| self.frames.is_allocated(f))?;
        Some((Target::Ram(frame), prot))
    }

    /// The physical address `va` maps to, RAM or device.
    pub fn virt_to_phys(&self, va: Va) -> Option<Pa> {
        self.map.get(va).map(|(pa, _, _)| pa)
    }

    /// The RAM frame for a kernel-side copy.
    fn ram(&self, va: Va, access: Access) -> Result<FrameId, MemFault> {
        let fault = |kind| MemFault { va, access, kind };
        if !va.is_canonical() {
            return Err(fault(Fault::NonCanonical));
        }
        match self.translate(va) {
            Some((Target::Ram(frame), _)) => Ok(frame),
            Some((Target::Device(_), _)) => Err(fault(Fault::Protection)),
            None => Err(fault(Fault::NotPresent)),
        }
    }

    /// Kernel-side copy out of guest memory: needs every page present and RAM, whatever its protection.
    pub fn read(&self, va: Va, buf: &mut [u8]) -> Result<(), MemFault> {
        let mut at = va;
        let mut done = 0;
        while done < buf.len() {
            let frame = self.ram(at, Access::Read)?;
            let off = (at.0 as usize) % PAGE_SIZE;
            let n = (PAGE_SIZE - off).min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&self.frames.bytes(frame)[off..off + n]);
            done += n;
            at = Va(at.0.wrapping_add(n as u64));
        }
        Ok(())
    }

    /// Kernel-side copy into guest memory: needs every page present and RAM, whatever its protection.
    /// Nothing is written when a page is missing.
    pub fn write(&mut self, va: Va, data: &[u8]) -> Result<(), MemFault> {
        if (va.0 as usize) % PAGE_SIZE + data.len() > PAGE_SIZE {
            let mut page = va;
            let mut left = data.len();
            while left > 0 {
                self.ram(page, Access::Write)?;
                let n = (PAGE_SIZE - (page.0 as usize) % PAGE_SIZE).min(left);
                left -= n;
                page = Va(page.0.wrapping_add(n as u64));
            }
        }
        let mut at = va;
        let mut done = 0;
        while done < data.len() {
            let frame = self.ram(at, Access::Write)?;
            let off = (at.0 as usize) % PAGE_SIZE;
            let n = (PAGE_SIZE - off).min(data.len() - done);
            self.frames.store_slice(frame, off, &data[done..done + n]);
            done += n;
            at = Va(at.0.wrapping_add(n as u64));
        }
        Ok(())
    }

    /// Reads RAM by physical address, as a device's DMA does.
    pub fn read_phys(&self, pa: Pa, buf: &mut [u8]) -> Result<(), PhysFault> {
        let mut at = pa;
        let mut done = 0;
        while done < buf.len() {
            let frame = self.phys(at)?;
            let off = (at.0 as usize) % PAGE_SIZE;
            let n = (PAGE_SIZE - off).min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&self.frames.bytes(frame)[off..off + n]);
            done += n;
            at = Pa(at.0.wrapping_add(n as u64));
        }
        Ok(())
    }

    /// Writes RAM by physical address, as a device's DMA does. Frames before the first missing one are written.
    pub fn write_phys(&mut self, pa: Pa, data: &[u8]) -> Result<(), PhysFault> {
        let mut at = pa;
        let mut done = 0;
        while done < data.len() {
            let frame = self.phys(at)?;
            let off = (at.0 as usize) % PAGE_SIZE;
            let n = (PAGE_SIZE - off).min(data.len() - done);
            self.frames.store_slice(frame, off, &data[done..done + n]);
            done += n;
            at = Pa(at.0.wrapping_add(n as u64));
        }
        Ok(())
    }

    fn phys(&self, pa: Pa) -> Result<FrameId, PhysFault> {
        FrameId::of(pa).filter(|&f| self.frames.is_allocated(f)).ok_or(PhysFault(pa))
    }

    /// Changes whenever a translation handed out before may be wrong: an engine flushes its TLB then.
    #[inline]
    pub fn map_generation(&self) -> u64 {
        self.generation
    }

    /// Changes whenever bytes marked with [`mark_code`](Self::mark_code) were written or freed: an engine
    /// drops its decoded blocks then.
    #[inline]
    pub fn code_generation(&self) -> u64 {
        self.frames.code_generation
    }

    /// Notes that instructions were decoded from `len` bytes at `off` of the frame.
    pub fn mark_code(&mut self, frame: FrameId, off: usize, len: usize) {
        self.frames.mark_code(frame, off, len);
    }

    /// The frame's bytes; zeroes if it isn't allocated.
    #[inline(always)]
    pub fn frame(&self, frame: FrameId) -> &Page {
        self.frames.bytes(frame)
    }

    /// Stores bytes that lie within one frame if that is a plain copy: the page is shared with no clone and holds
    /// no decoded instructions. Otherwise false, and nothing is written.
    #[inline(always)]
    pub fn store_quick<const N: usize>(&mut self, frame: FrameId, off: usize, data: [u8; N]) -> bool {
        self.frames.store_quick(frame, off, data)
    }

    /// Stores bytes that lie within one frame; true when they were marked as code. Bytes that leave the frame
    /// or a frame that isn't allocated are left alone.
    #[inline(always)]
    pub fn store<const N: usize>(&mut self, frame: FrameId, off: usize, data: [u8; N]) -> bool {
        self.frames.store(frame, off, data)
    }
}

macro_rules! scalars {
    ($($read:ident $write:ident $t:ty;)*) => {
        impl Memory {
            $(
                /// Kernel-side little-endian read; see [`read`](Self::read).
                pub fn $read(&self, va: Va) -> Result<$t, MemFault> {
                    let mut buf = [0; size_of::<$t>()];
                    self.read(va, &mut buf)?;
                    Ok(<$t>::from_le_bytes(buf))
                }

                /// Kernel-side little-endian write; see [`write`](Self::write).
                pub fn $write(&mut self, va: Va, v: $t) -> Result<(), MemFault> {
                    self.write(va, &v.to_le_bytes())
                }
            )*
        }
    };
}

scalars! {
    read_u8 write_u8 u8;
    read_u16 write_u16 u16;
    read_u32 write_u32 u32;
    read_u64 write_u64 u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    const VA: Va = Va(0xFFFF_8000_0000_0000);

    #[test]
    fn copies_cross_pages_or_change_nothing() {
        let mut m = Memory::new(1 << 20);
        let pa = m.alloc_frames(2).unwrap();
        m.map_ram(VA, pa, 2, Prot::READ);
        m.write_u64(Va(VA.0 + 0xffc), 0x1122_3344_5566_7788).unwrap();
        assert_eq!(m.read_u64(Va(VA.0 + 0xffc)).unwrap(), 0x1122_3344_5566_7788);
        let before = m.read_u32(Va(VA.0 + 0x1ffc)).unwrap();
        let fault = m.write_u64(Va(VA.0 + 0x1ffc), u64::MAX).unwrap_err();
        assert_eq!((fault.va.0, fault.kind), (VA.0 + 0x2000, Fault::NotPresent));
        assert_eq!(m.read_u32(Va(VA.0 + 0x1ffc)).unwrap(), before);
    }

    #[test]
    fn freed_frames_are_not_present() {
        let mut m = Memory::new(1 << 20);
        let pa = m.alloc_frames(1).unwrap();
        m.map_ram(VA, pa, 1, Prot::READ | Prot::WRITE);
        m.write_u8(VA, 7).unwrap();
        let generation = m.map_generation();
        m.free_frames(pa, 1);
        assert!(m.map_generation() > generation);
        assert_eq!(m.read_u8(VA).unwrap_err().kind, Fault::NotPresent);
        assert_eq!(m.write_phys(pa, &[1]), Err(PhysFault(pa)));
        assert_eq!(m.alloc_frames(1).unwrap(), pa);
        assert_eq!(m.read_u8(VA).unwrap(), 0);
    }

    #[test]
    fn device_pages_and_strange_addresses_are_refused() {
        let mut m = Memory::new(1 << 20);
        m.map_device(VA, Pa(0xF000_0000), 1, Prot::READ | Prot::WRITE);
        assert_eq!(m.read_u8(VA).unwrap_err().kind, Fault::Protection);
        assert_eq!(m.translate(Va(VA.0 + 4)).unwrap().0, Target::Device(Pa(0xF000_0004)));
        assert_eq!(m.read_u8(Va(0x8000_0000_0000)).unwrap_err().kind, Fault::NonCanonical);
        assert_eq!(m.read_u64(Va(u64::MAX)).unwrap_err().kind, Fault::NotPresent);
    }

    #[test]
    fn clone_is_send_and_independent() {
        fn send<T: Send + Clone>(_: &T) {}
        let mut m = Memory::new(1 << 20);
        let pa = m.alloc_frames(1).unwrap();
        m.map_ram(VA, pa, 1, Prot::READ | Prot::WRITE);
        send(&m);
        let mut other = m.clone();
        other.unmap(VA, 1);
        assert!(m.translate(VA).is_some());
        assert!(other.translate(VA).is_none());
    }
}
