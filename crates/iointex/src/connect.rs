//! What the library decides. It reaches the kernel only through [`Kernel`], so it is tested without one.

use crate::abi::{
    CONNECT_FULLY_SPECIFIED, DisconnectParameters, FullySpecified, GroupAffinity, NtStatus,
    OldConnectParameters, Ptr, STATUS_INVALID_PARAMETER, STATUS_NOT_SUPPORTED,
};

/// The kernel's routines. The newer ones give `None` when this kernel has no such export.
pub trait Kernel {
    /// `IoConnectInterruptEx`, since Windows Vista. The block may go on with a group, as its version says.
    fn connect_ex(&self, block: &mut OldConnectParameters) -> Option<NtStatus>;
    /// `IoDisconnectInterruptEx`, since Windows Vista.
    fn disconnect_ex(&self, parameters: &DisconnectParameters) -> Option<()>;
    /// `IoGetAffinityInterrupt`, since Windows 7.
    fn get_affinity(&self, interrupt: Ptr, affinity: &mut GroupAffinity) -> Option<NtStatus>;
    /// `IoConnectInterrupt`.
    fn connect(&self, request: &FullySpecified) -> NtStatus;
    /// `IoDisconnectInterrupt`.
    fn disconnect(&self, interrupt: Ptr);
}

/// Connects an interrupt: with the kernel's own routine where it has one, else version 1 through the old one.
///
/// IRQL: `PASSIVE_LEVEL`. Source: nf-iointex-wdmlibioconnectinterruptex, and spec 3.7 and 3.8.
///
/// # Errors
/// Without the kernel's routine: `STATUS_NOT_SUPPORTED` with `Version` set to 1 for any other version, and with
/// `Version` as it is for a routine at `PASSIVE_LEVEL`; `STATUS_INVALID_PARAMETER` for a null device object, routine or
/// out-pointer; and what `IoConnectInterrupt` answers.
pub fn connect<K: Kernel>(kernel: &K, block: &mut OldConnectParameters) -> NtStatus {
    if let Some(status) = kernel.connect_ex(block) {
        return status;
    }
    if block.version != CONNECT_FULLY_SPECIFIED {
        // The value is not documented; that it is an error, and Version, are (spec I-12).
        block.version = CONNECT_FULLY_SPECIFIED;
        return STATUS_NOT_SUPPORTED;
    }
    let request = &block.form;
    // The old routine knows no device object. It is checked all the same, that the driver may learn of it here.
    if request.physical_device_object.is_null()
        || request.interrupt_object.is_null()
        || request.service_routine.is_null()
    {
        return STATUS_INVALID_PARAMETER;
    }
    if request.irql == 0 && request.synchronize_irql == 0 {
        // Routines at PASSIVE_LEVEL came with Windows 8 (spec 3.6); the old routine would take this for a vector of
        // IRQL 0.
        return STATUS_NOT_SUPPORTED;
    }
    kernel.connect(request)
}

/// Disconnects what [`connect`] connected.
///
/// Without the kernel's own routine only version 1 can be connected: a call with another, or with a null object,
/// disconnects nothing. IRQL: `PASSIVE_LEVEL`. Source: nf-iointex-wdmlibiodisconnectinterruptex.
pub fn disconnect<K: Kernel>(kernel: &K, parameters: &DisconnectParameters) {
    if kernel.disconnect_ex(parameters).is_none()
        && parameters.version == CONNECT_FULLY_SPECIFIED
        && !parameters.connection_context.is_null()
    {
        kernel.disconnect(parameters.connection_context);
    }
}

/// The processors that an interrupt object's routine may run on.
///
/// Source: nf-iointex-wdmlibiogetaffinityinterrupt.
///
/// # Errors
/// `STATUS_NOT_SUPPORTED` before Windows 7, and what the kernel answers.
pub fn get_affinity<K: Kernel>(kernel: &K, interrupt: Ptr, affinity: &mut GroupAffinity) -> NtStatus {
    kernel.get_affinity(interrupt, affinity).unwrap_or(STATUS_NOT_SUPPORTED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::STATUS_SUCCESS;
    use core::cell::RefCell;
    use core::ptr::{null_mut, without_provenance_mut};

    const FROM_KERNEL: NtStatus = 0x1234;

    #[derive(Debug, PartialEq)]
    enum Call {
        ConnectEx,
        DisconnectEx(DisconnectParameters),
        Connect(FullySpecified),
        Disconnect(usize),
        Affinity(usize),
    }

    #[derive(Default)]
    struct Mock {
        vista: bool,
        seven: bool,
        calls: RefCell<Vec<Call>>,
    }

    impl Mock {
        fn log(&self, call: Call) {
            self.calls.borrow_mut().push(call);
        }
    }

    impl Kernel for Mock {
        fn connect_ex(&self, block: &mut OldConnectParameters) -> Option<NtStatus> {
            self.vista.then(|| {
                self.log(Call::ConnectEx);
                block.version = 2;
                FROM_KERNEL
            })
        }
        fn disconnect_ex(&self, parameters: &DisconnectParameters) -> Option<()> {
            self.vista.then(|| self.log(Call::DisconnectEx(*parameters)))
        }
        fn get_affinity(&self, interrupt: Ptr, affinity: &mut GroupAffinity) -> Option<NtStatus> {
            self.seven.then(|| {
                self.log(Call::Affinity(interrupt.addr()));
                affinity.mask = 3;
                STATUS_SUCCESS
            })
        }
        fn connect(&self, request: &FullySpecified) -> NtStatus {
            self.log(Call::Connect(*request));
            FROM_KERNEL
        }
        fn disconnect(&self, interrupt: Ptr) {
            self.log(Call::Disconnect(interrupt.addr()));
        }
    }

    fn request() -> FullySpecified {
        FullySpecified {
            physical_device_object: without_provenance_mut(0x10),
            interrupt_object: without_provenance_mut(0x20),
            service_routine: without_provenance_mut(0x30),
            service_context: without_provenance_mut(0x40),
            spin_lock: null_mut(),
            synchronize_irql: 9,
            floating_save: 0,
            share_vector: 1,
            vector: 0x91,
            irql: 9,
            interrupt_mode: 0,
            processor_enable_mask: 3,
        }
    }

    #[test]
    fn a_kernel_that_has_the_routine_decides_alone() {
        let kernel = Mock { vista: true, ..Mock::default() };
        for version in [0, 1, 2, 3, 4, 5, u32::MAX] {
            let mut block = OldConnectParameters { version, form: request() };
            assert_eq!(connect(&kernel, &mut block), FROM_KERNEL);
            assert_eq!(block.version, 2, "what the kernel wrote stays");
        }
        assert!(kernel.calls.borrow().iter().all(|c| *c == Call::ConnectEx));
    }

    #[test]
    fn without_it_every_other_version_names_the_one_that_works() {
        let kernel = Mock::default();
        for version in [0, 2, 3, 4, 5, u32::MAX] {
            let mut block = OldConnectParameters { version, form: request() };
            assert_eq!(connect(&kernel, &mut block), STATUS_NOT_SUPPORTED);
            assert_eq!(block.version, CONNECT_FULLY_SPECIFIED);
        }
        assert!(kernel.calls.borrow().is_empty());
    }

    #[test]
    fn without_it_version_1_goes_through_the_old_routine() {
        let kernel = Mock::default();
        let mut block = OldConnectParameters { version: 1, form: request() };
        assert_eq!(connect(&kernel, &mut block), FROM_KERNEL);
        assert_eq!(block.version, 1);
        assert_eq!(*kernel.calls.borrow(), [Call::Connect(request())]);
    }

    #[test]
    fn bad_blocks_do_not_reach_the_old_routine() {
        let kernel = Mock::default();
        let bad = [
            (STATUS_INVALID_PARAMETER, FullySpecified { physical_device_object: null_mut(), ..request() }),
            (STATUS_INVALID_PARAMETER, FullySpecified { interrupt_object: null_mut(), ..request() }),
            (STATUS_INVALID_PARAMETER, FullySpecified { service_routine: null_mut(), ..request() }),
            (STATUS_NOT_SUPPORTED, FullySpecified { irql: 0, synchronize_irql: 0, ..request() }),
        ];
        for (status, form) in bad {
            let mut block = OldConnectParameters { version: 1, form };
            assert_eq!(connect(&kernel, &mut block), status);
            assert_eq!(block.version, 1);
        }
        assert!(kernel.calls.borrow().is_empty());
    }

    #[test]
    fn disconnects_with_the_routine_that_belongs_to_the_connection() {
        let object = without_provenance_mut(0x77);
        let one = DisconnectParameters { version: 1, connection_context: object };
        let three = DisconnectParameters { version: 3, connection_context: object };
        let none = DisconnectParameters { version: 1, connection_context: null_mut() };

        let old = Mock::default();
        for parameters in [one, three, none] {
            disconnect(&old, &parameters);
        }
        assert_eq!(*old.calls.borrow(), [Call::Disconnect(0x77)]);

        let new = Mock { vista: true, ..Mock::default() };
        for parameters in [one, three, none] {
            disconnect(&new, &parameters);
        }
        assert_eq!(
            *new.calls.borrow(),
            [Call::DisconnectEx(one), Call::DisconnectEx(three), Call::DisconnectEx(none)]
        );
    }

    #[test]
    fn affinity_is_the_kernels_or_not_supported() {
        let mut affinity = GroupAffinity::default();
        let object = without_provenance_mut(0x77);
        let vista = Mock { vista: true, ..Mock::default() };
        assert_eq!(get_affinity(&vista, object, &mut affinity), STATUS_NOT_SUPPORTED);
        assert_eq!(affinity, GroupAffinity::default());
        let seven = Mock { vista: true, seven: true, ..Mock::default() };
        assert_eq!(get_affinity(&seven, object, &mut affinity), STATUS_SUCCESS);
        assert_eq!(affinity.mask, 3);
        assert_eq!(*seven.calls.borrow(), [Call::Affinity(0x77)]);
    }
}
