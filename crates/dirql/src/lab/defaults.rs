//! The lab for a driver that has none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{
    Action, Bus, Checks, DEFAULT_BUDGET, DeviceLab, DriverLab, Expect, Interrupts, Lab, MachineLab, Registry,
    Rules, Step,
};

impl DeviceLab {
    /// A PCI device of this model with everything else as the model has it.
    #[must_use]
    pub fn new(name: &str, model: &str, interrupts: Interrupts) -> Self {
        Self {
            name: name.into(),
            model: model.into(),
            script: None,
            bus: Bus::Pci,
            interrupts,
            gsi: None,
            irql: Vec::new(),
            affinity: Vec::new(),
            policy: None,
            priority: None,
            arrivals: 0,
            id: None,
            subsystem: None,
            class: None,
            bars: Vec::new(),
            ports: Vec::new(),
            memory: Vec::new(),
            irq: Vec::new(),
            registry: Registry::new(),
            properties: BTreeMap::new(),
            line: 0,
        }
    }
}

impl Lab {
    /// A lab without devices, drivers or steps.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            path: None,
            machine: MachineLab::default(),
            devices: Vec::new(),
            drivers: Vec::new(),
            filters: Vec::new(),
            libraries: Vec::new(),
            steps: Vec::new(),
            check: Checks::default(),
            rules: Rules::default(),
            budget: DEFAULT_BUDGET,
            manual_life: false,
        }
    }

    /// The lab of an image that has none: a stub device with generous windows and eight messages, two
    /// processors; start, raise every source, stop, remove.
    #[must_use]
    pub fn default_for(image: &Path) -> Self {
        const MESSAGES: u32 = 8;
        let name = "device";
        let mut device = DeviceLab::new(name, "stub", Interrupts::Msix(MESSAGES));
        device.bars = vec![0x10_0000, 0x1_0000, 0x1000];
        let raise = |source| Step {
            action: Action::Raise { device: Some(name.into()), source },
            thread: None,
            expect: Expect::default(),
            line: 0,
        };
        Self {
            devices: vec![device],
            drivers: vec![DriverLab {
                // Beside the lab, when it is saved where the image is.
                image: image.file_name().map(Into::into).unwrap_or_default(),
                devices: vec![name.into()],
                registry: Registry::new(),
                line: 0,
            }],
            steps: (0..MESSAGES).map(raise).collect(),
            ..Self::empty()
        }
    }

    /// The lab file that goes with an image: of its name, beside it.
    #[must_use]
    pub fn beside(image: &Path) -> PathBuf {
        image.with_extension("toml")
    }
}
