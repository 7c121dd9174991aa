//! Guest memory of dirql: copy-on-write page frames and the address map
