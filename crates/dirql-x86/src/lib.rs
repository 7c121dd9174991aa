//! The x86-64 engine of dirql: a pre-decoded interpreter exact to one instruction
