//! How much real drivers want an export: a survey of import tables, kept in `data/demand.tsv`.
//!
//! It decides what is implemented next, and tells a driver's author how unusual a missing routine is. It says nothing
//! of how often a driver calls what it imports.

/// The survey: sorted by name.
static TABLE: &str = include_str!("../data/demand.tsv");

/// Driver binaries in the survey.
pub const SURVEYED: u32 = 661;
/// Those of them that connect interrupts.
pub const SURVEYED_INTERRUPT: u32 = 8;

/// How many of the surveyed drivers import an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Documented name.
    pub name: &'static str,
    /// Drivers that import it, of [`SURVEYED`].
    pub drivers: u32,
    /// Drivers that connect interrupts and import it, of [`SURVEYED_INTERRUPT`].
    pub interrupt: u32,
}

impl Demand {
    /// For ranking: a driver that connects interrupts counts as twenty others.
    #[must_use]
    pub fn weight(self) -> u32 {
        self.drivers + 20 * self.interrupt
    }
}

/// Demand for an export, if any surveyed driver imports it.
#[must_use]
pub fn demand(name: &str) -> Option<Demand> {
    demands().find(|d| d.name == name)
}

/// Every export that a surveyed driver imports, by name.
pub fn demands() -> impl Iterator<Item = Demand> {
    TABLE.lines().filter_map(|line| {
        let mut fields = line.split('\t');
        let name = fields.next()?;
        let (drivers, interrupt) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Demand { name, drivers, interrupt })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole_and_sorted() {
        let lines = TABLE.lines().filter(|l| !l.starts_with('#')).count();
        let all: Vec<Demand> = demands().collect();
        assert_eq!(all.len(), lines);
        assert!(all.windows(2).all(|w| w[0].name < w[1].name));
        assert!(all.iter().all(|d| d.drivers <= SURVEYED && d.interrupt <= SURVEYED_INTERRUPT));
        assert!(all.iter().all(|d| d.interrupt <= d.drivers && d.drivers > 0));
    }

    #[test]
    fn a_common_export_is_found_and_a_made_up_one_is_not() {
        let d = demand("IoConnectInterrupt").unwrap();
        assert!(d.interrupt == 7 && d.drivers >= 7 && d.weight() > 140);
        assert_eq!(demand("IoConnectNothing"), None);
    }
}
