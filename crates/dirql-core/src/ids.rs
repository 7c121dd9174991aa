//! Names for the things the core keeps: processors, interrupt objects and sets of them.

/// A processor, by its index in the machine (0-based, groups laid end to end; see [`crate::Topology`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(pub u32);

/// One interrupt object: one routine on one vector. Ids only ever grow, so their order is the order of connecting.
///
/// Windows makes a KINTERRUPT for each processor as well (spec 3.1 C7). Drivers see only the first of them
/// (spec I-23), so here one object stands for the vector on every processor of its affinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub u64);

/// The object set made by one connect call: several lines, or several messages, connected and disconnected as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub u64);
