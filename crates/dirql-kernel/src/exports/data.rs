//! Data exports: variables of the kernel that drivers read by address.

use crate::cx::Cx;
use crate::stop::Stop;

/// What a data export holds at start.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DataInit {
    /// This value.
    Value(u64),
    /// The number of processors.
    Processors,
    /// NtBuildNumber: the build, with the mark of a free build.
    Build,
    /// The address of the 16 bytes behind the slot: an object type's own body, which drivers only pass on.
    Body,
}

impl DataInit {
    pub(crate) fn value(self, cx: &mut Cx<'_>, body: u64) -> Result<u64, Stop> {
        Ok(match self {
            Self::Value(v) => v,
            Self::Processors => cx.k.procs.len() as u64,
            Self::Build => 0xF000_0000 | u64::from(cx.k.windows_build),
            Self::Body => body,
        })
    }
}

/// The data exports.
pub(crate) const DATA: &[(&str, DataInit)] = &[
    ("ExEventObjectType", DataInit::Body),
    ("ExSemaphoreObjectType", DataInit::Body),
    ("InitSafeBootMode", DataInit::Value(0)),
    ("IoDeviceObjectType", DataInit::Body),
    ("IoDriverObjectType", DataInit::Body),
    ("IoFileObjectType", DataInit::Body),
    ("KdDebuggerEnabled", DataInit::Value(0)),
    ("KdDebuggerNotPresent", DataInit::Value(1)),
    ("KeNumberProcessors", DataInit::Processors),
    ("MmHighestUserAddress", DataInit::Value(0x7FFF_FFFE_FFFF)),
    ("MmSystemRangeStart", DataInit::Value(0xFFFF_8000_0000_0000)),
    ("MmUserProbeAddress", DataInit::Value(0x7FFF_FFFF_0000)),
    ("NtBuildNumber", DataInit::Build),
    ("PsInitialSystemProcess", DataInit::Body),
    ("PsProcessType", DataInit::Body),
    ("PsThreadType", DataInit::Body),
];
