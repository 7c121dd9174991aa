//! The exports of `ntoskrnl.exe` and `hal.dll`, a file per topic, each with its `EXPORTS` table.

pub(crate) mod crt;
pub(crate) mod data;
pub(crate) mod dbg;
pub(crate) mod ex;
pub(crate) mod ex_callback;
pub(crate) mod ex_pool;
pub(crate) mod ex_resource;
pub(crate) mod ex_work;
pub(crate) mod hal;
pub(crate) mod hal_bus;
pub(crate) mod hal_dma;
pub(crate) mod interrupt;
pub(crate) mod io;
pub(crate) mod io_irp;
pub(crate) mod io_more;
pub(crate) mod io_registry;
pub(crate) mod ke;
pub(crate) mod ke_cpu;
pub(crate) mod ke_dpc;
pub(crate) mod ke_lock;
pub(crate) mod mm;
pub(crate) mod mm_pages;
pub(crate) mod ob;
pub(crate) mod po;
pub(crate) mod ps;
pub(crate) mod ps_more;
pub(crate) mod rtl;
pub(crate) mod rtl_bits;
pub(crate) mod rtl_registry;
pub(crate) mod rtl_security;
pub(crate) mod rtl_text;
pub(crate) mod rtl_time;
pub(crate) mod se;
pub(crate) mod seh;
pub(crate) mod zw;
pub(crate) mod zw_key;

use crate::cx::Export;

/// All exports, by family.
pub(crate) const FAMILIES: &[&[Export]] = &[
    crt::EXPORTS,
    dbg::EXPORTS,
    ex::EXPORTS,
    ex_callback::EXPORTS,
    ex_pool::EXPORTS,
    ex_resource::EXPORTS,
    ex_work::EXPORTS,
    hal::EXPORTS,
    hal_bus::EXPORTS,
    hal_dma::EXPORTS,
    interrupt::EXPORTS,
    io::EXPORTS,
    io_irp::EXPORTS,
    io_more::EXPORTS,
    io_registry::EXPORTS,
    ke::EXPORTS,
    ke_cpu::EXPORTS,
    ke_dpc::EXPORTS,
    ke_lock::EXPORTS,
    mm::EXPORTS,
    mm_pages::EXPORTS,
    ob::EXPORTS,
    po::EXPORTS,
    ps::EXPORTS,
    ps_more::EXPORTS,
    rtl::EXPORTS,
    rtl_bits::EXPORTS,
    rtl_security::EXPORTS,
    rtl_text::EXPORTS,
    rtl_time::EXPORTS,
    rtl_registry::EXPORTS,
    se::EXPORTS,
    seh::EXPORTS,
    zw::EXPORTS,
    zw_key::EXPORTS,
];
