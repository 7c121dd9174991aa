//! Device models of dirql: pulse, edu, stub
