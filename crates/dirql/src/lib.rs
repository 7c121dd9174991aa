//! A laboratory for the interrupt code of Windows drivers
