//! `cargo xtask coverage`: how much of what real drivers import is implemented, and what is missing, by demand.

use std::path::Path;

use dirql_kernel::demand::{self, Demand};

use dirql_kernel::loader::implemented;

/// Prefixes of exports that other modules than the kernel and the HAL have: frameworks and class drivers.
const OTHER_MODULES: &[&str] = &[
    "Wdf",
    "Flt",
    "Fwp",
    "Ndis",
    "NdisF",
    "Wsk",
    "BCrypt",
    "USBD_",
    "Tdi",
    "Pc",
    "Nsi",
    "Nmr",
    "Rx",
    "Rxp",
    "Nicm",
    "Lsa",
    "Tbsi",
    "Rpc",
    "Wpp",
    "imp_Wpp",
    "Pcore",
    "Pcw",
    "rsndisp",
    "GetSecurityUserInfo",
    "Vsl",
    "Sk",
    "Space",
];

fn elsewhere(name: &str) -> bool {
    OTHER_MODULES.iter().any(|p| name.starts_with(p)) && !name.starts_with("Ps")
}

/// Prints the share covered, of all exports and by demand, and the `most` wanted that are missing.
///
/// # Errors
/// None; the signature is that of a chore.
pub(crate) fn coverage(_root: &Path, most: usize) -> Result<(), String> {
    let all: Vec<Demand> = demand::demands().filter(|d| !elsewhere(d.name)).collect();
    let have = |d: &&Demand| implemented("ntoskrnl.exe", d.name);
    let share = |what: &str, done: u32, of: u32| {
        println!("{what:<44} {done:>7} of {of:>7}  {:>3} %", 100 * done / of.max(1));
    };
    let count = |items: &[&Demand]| items.len() as u32;
    let imports = |items: &[&Demand]| items.iter().map(|d| d.drivers).sum::<u32>();
    let done: Vec<&Demand> = all.iter().filter(have).collect();
    let everything: Vec<&Demand> = all.iter().collect();
    share("exports of the kernel and HAL that are wanted", count(&done), count(&everything));
    share("imports by drivers", imports(&done), imports(&everything));
    let interrupt = |items: &[&Demand]| items.iter().map(|d| d.interrupt).sum::<u32>();
    share("imports by drivers that connect interrupts", interrupt(&done), interrupt(&everything));
    let mut missing: Vec<&Demand> = all.iter().filter(|d| !have(d)).collect();
    missing.sort_by_key(|d| (std::cmp::Reverse(d.weight()), d.name));
    println!("\nmost wanted and missing: drivers that import it, of them connecting interrupts");
    for d in missing.iter().take(most) {
        println!("  {:<44} {:>4} {:>2}", d.name, d.drivers, d.interrupt);
    }
    Ok(())
}
