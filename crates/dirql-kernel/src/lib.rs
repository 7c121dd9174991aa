//! The NT kernel that dirql gives a driver: ntoskrnl.exe and hal.dll
