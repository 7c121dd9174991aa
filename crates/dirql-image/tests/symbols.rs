//! Places of addresses in the committed drivers: gcc's and clang's DWARF, and the COFF symbol table.

use dirql_image::{Image, Symbols};

const SEH: &[u8] = include_bytes!("../../../drivers/tests/seh.sys");
const NULL: &[u8] = include_bytes!("../../../drivers/tests/nullderef.sys");

#[test]
fn the_entry_point_has_a_name_and_a_line() {
    for (bytes, file) in [(SEH, "tests/seh.c"), (NULL, "common/fdo.c")] {
        let image = Image::parse(bytes).unwrap();
        let symbols = Symbols::of(&image, bytes, None);
        let place = symbols.locate(image.entry_rva).unwrap();
        assert_eq!(place.function.as_deref(), Some("DriverEntry"));
        assert!(place.file.as_deref().is_some_and(|f| f.ends_with(file)), "{place:?}");
        assert!(place.line.is_some_and(|l| l > 1), "{place:?}");
    }
}

#[test]
fn an_address_outside_code_has_no_place() {
    let image = Image::parse(SEH).unwrap();
    assert_eq!(Symbols::of(&image, SEH, None).locate(0x10), None);
    assert_eq!(Symbols::of(&image, SEH, None).locate(u32::MAX), None);
}

#[test]
fn damaged_debug_information_gives_no_place_or_another() {
    let image = Image::parse(NULL).unwrap();
    let debug: Vec<_> = image.sections.iter().filter(|s| s.name.starts_with(".debug")).collect();
    assert!(!debug.is_empty());
    let mut seed = 7_u64;
    for _ in 0..64 {
        let mut bytes = NULL.to_vec();
        for s in &debug {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let len = s.data.end - s.data.start;
            let at = s.file_offset + (seed >> 33) as u32 % len.max(1);
            bytes[at as usize] ^= (seed >> 20) as u8 | 1;
        }
        let image = Image::parse(&bytes).unwrap();
        let symbols = Symbols::of(&image, &bytes, None);
        for rva in (0x1000..0x2000).step_by(64) {
            let _ = symbols.locate(rva);
        }
    }
}

#[test]
fn a_file_that_is_no_pdb_is_ignored() {
    let image = Image::parse(SEH).unwrap();
    for junk in [&b""[..], b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0", &[0xFF; 4096]] {
        let place = Symbols::of(&image, SEH, Some(junk)).locate(image.entry_rva).unwrap();
        assert_eq!(place.function.as_deref(), Some("DriverEntry"));
    }
}
