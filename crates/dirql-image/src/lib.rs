//! PE32+ driver images: loading, relocating, imports, exports and unwind tables
