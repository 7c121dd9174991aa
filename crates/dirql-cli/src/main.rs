//! The dirql command.

fn main() {}
