//! The NT kernel that dirql gives a driver: `ntoskrnl.exe` and `hal.dll`, on the simulated machine.
//!
//! It knows the machine and the interrupt core; it never knows device models, files or the terminal. Everything a
//! driver waits in is data ([`context`]), so the whole system is `Clone`.

mod board;
pub mod boot;
mod bus;
pub mod context;
pub mod cx;
pub mod demand;
mod dispatcher;
pub mod exception;
mod exports;
pub mod identity;
pub mod interrupt;
pub mod io;
pub mod kernel;
pub mod life;
pub mod loader;
pub mod pool;
mod printf;
pub mod registry;
mod sched;
mod shared_data;
pub mod stop;
pub mod system;
pub mod then;
pub mod thread;
mod timer;

pub use demand::{Demand, demand};
pub mod trace;
mod unwind;
pub mod windows;
