//! The NT interrupt core: connecting, dispatching and disconnecting interrupts, and DPC queues, as a no_std library
