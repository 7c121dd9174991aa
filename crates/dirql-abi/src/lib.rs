//! Windows x64 structure layouts, NTSTATUS values and constants as drivers see them
