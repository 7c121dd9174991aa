//! Security exports. None is implemented: a driver that needs one is told so by name.

use crate::cx::Export;

/// What this file implements.
pub(crate) const EXPORTS: &[Export] = &[];
