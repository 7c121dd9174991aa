//! What is not a driver is refused by name. The images are made by hand: no compiler is needed.

use dirql_image::{Image, ImageError};

const NT: usize = 0x80;
const OPT: usize = NT + 24;
const SECTION: usize = OPT + 240;

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A flat driver (section alignment 0x20), one section of code, no tables: `mov eax, 0xC00000BB; ret`.
fn flat() -> Vec<u8> {
    let mut f = vec![0; 0x240];
    put(&mut f, 0, b"MZ");
    put(&mut f, 0x3c, &(NT as u32).to_le_bytes());
    put(&mut f, NT, b"PE\0\0");
    put(&mut f, NT + 4, &0x8664_u16.to_le_bytes());
    put(&mut f, NT + 6, &1_u16.to_le_bytes());
    put(&mut f, NT + 20, &240_u16.to_le_bytes());
    put(&mut f, NT + 22, &0x22_u16.to_le_bytes());
    put(&mut f, OPT, &0x20b_u16.to_le_bytes());
    put(&mut f, OPT + 24, &0x1_4000_0000_u64.to_le_bytes());
    for (at, value) in [(16, 0x220_u32), (32, 0x20), (36, 0x20), (56, 0x260), (60, 0x220), (108, 16)] {
        put(&mut f, OPT + at, &value.to_le_bytes());
    }
    put(&mut f, OPT + 68, &1_u16.to_le_bytes());
    put(&mut f, SECTION, b".text\0\0\0");
    for (at, value) in [(8, 0x40_u32), (12, 0x220), (16, 0x20), (20, 0x220), (36, 0x6000_0020)] {
        put(&mut f, SECTION + at, &value.to_le_bytes());
    }
    put(&mut f, 0x220, &[0xb8, 0xbb, 0, 0, 0xc0, 0xc3]);
    f
}

fn with(at: usize, bytes: &[u8]) -> String {
    let mut f = flat();
    put(&mut f, at, bytes);
    Image::parse(&f).expect_err("refused").to_string()
}

#[test]
fn a_flat_image_is_one_writable_executable_map() {
    let f = flat();
    let image = Image::parse(&f).expect("good");
    let laid_out = image.lay_out(0xffff_f800_0000_0000).expect("relocatable: it has nothing to relocate");
    assert_eq!(laid_out.len(), 0x260);
    assert_eq!(laid_out[0x220..0x226], [0xb8, 0xbb, 0, 0, 0xc0, 0xc3]);
    assert!(laid_out[0x240..].iter().all(|&b| b == 0));
    let p = image.page_protections();
    assert!(p.len() == 1 && p[0].writable && p[0].executable);
}

#[test]
fn other_files_are_named() {
    for (bytes, words) in [
        (&b""[..], "empty"),
        (b"[Version]\r\nSignature=\"$Windows NT$\"\r\n", "it is a text file"),
        (b"\x7fELF\x02\x01\x01", "an ELF file"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x64\x86\x01\x00", "was not linked"),
        (b"\x00\x01\x02\x03", "no MZ"),
        (b"MZ", "cut short"),
    ] {
        let text = Image::parse(bytes).expect_err("refused").to_string();
        assert!(text.contains(words), "{text}");
    }
    let mut dos = flat();
    put(&mut dos, NT, b"NE\0\0");
    assert_eq!(Image::parse(&dos).err(), Some(ImageError::DosOnly));
}

#[test]
fn wrong_kinds_of_image_are_named() {
    for (at, bytes, words) in [
        (NT + 4, &0x014c_u16.to_le_bytes()[..], "built for 32-bit x86"),
        (NT + 4, &0xaa64_u16.to_le_bytes(), "built for ARM64"),
        (OPT, &0x10b_u16.to_le_bytes(), "PE32+"),
        (OPT + 68, &2_u16.to_le_bytes(), "Windows GUI"),
        (OPT + 68, &3_u16.to_le_bytes(), "Windows console"),
        (OPT + 112 + 14 * 8, &0x220_u32.to_le_bytes(), ".NET"),
    ] {
        let text = with(at, bytes);
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn damaged_fields_are_named_with_place_and_value() {
    let max = &u32::MAX.to_le_bytes()[..];
    for (at, bytes, words) in [
        (NT + 6, &0_u16.to_le_bytes()[..], "NumberOfSections (file offset 0x86) is 0x0"),
        (NT + 6, &97_u16.to_le_bytes(), "is 0x61"),
        (NT + 20, &16_u16.to_le_bytes(), "SizeOfOptionalHeader"),
        (NT + 22, &0_u16.to_le_bytes(), "Characteristics"),
        (OPT + 16, max, "AddressOfEntryPoint"),
        (OPT + 24, &0x1234_u64.to_le_bytes(), "ImageBase"),
        (OPT + 32, &3_u32.to_le_bytes(), "SectionAlignment"),
        (OPT + 36, &0_u32.to_le_bytes(), "FileAlignment"),
        (OPT + 56, max, "at most"),
        (OPT + 56, &0_u32.to_le_bytes(), "SizeOfImage"),
        (OPT + 60, &0x10_u32.to_le_bytes(), "SizeOfHeaders"),
        (SECTION + 8, max, "beyond the image's size"),
        (SECTION + 12, &0x200_u32.to_le_bytes(), "inside what comes before"),
        (SECTION + 16, max, "cut short"),
        (OPT + 112 + 8, &0x7fff_0000_u32.to_le_bytes(), "damaged import table"),
        (OPT + 112, &0x7fff_0000_u32.to_le_bytes(), "damaged export table"),
    ] {
        let text = with(at, bytes);
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn damaged_and_stripped_relocations_are_named() {
    let dir = |size: u32| [0x230_u32.to_le_bytes(), size.to_le_bytes()].concat();
    let mut f = flat();
    put(&mut f, OPT + 112 + 40, &dir(12));
    // Page 0, size 12, one entry of type 3 at 0x220.
    put(&mut f, 0x230, &[0, 0, 0, 0, 12, 0, 0, 0, 0x20, 0x32, 0, 0]);
    let text = Image::parse(&f).expect_err("refused").to_string();
    assert!(text.contains("IMAGE_REL_BASED_HIGHLOW"), "{text}");
    put(&mut f, 0x234, &[7]);
    assert!(matches!(Image::parse(&f), Err(ImageError::Relocation { rva: 0x230, .. })));
    put(&mut f, OPT + 112 + 40, &dir(u32::MAX));
    assert!(matches!(Image::parse(&f), Err(ImageError::Relocation { .. })));

    let mut f = flat();
    put(&mut f, NT + 22, &0x23_u16.to_le_bytes());
    let image = Image::parse(&f).expect("good at home");
    assert!(image.lay_out(0x1_4000_0000).is_ok());
    let text = image.lay_out(0x2_0000_0000).expect_err("stripped").to_string();
    assert!(text.contains("0x140000000 only"), "{text}");
}
