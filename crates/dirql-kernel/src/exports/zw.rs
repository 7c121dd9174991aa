//! System services: handles.

use crate::context::ret;

crate::exports! {
    /// nf-wdm-zwclose: registry handles first, then the kernel's others.
    [0] fn ZwClose(cx, handle: u64) {
        if cx.k.registry.close_handle(handle) {
            return ret(0);
        }
        crate::io::close_handle(cx, handle)
    }
}
