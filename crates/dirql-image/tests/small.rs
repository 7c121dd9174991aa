//! A driver built by a real compiler and linker (`fixtures/small.c`), read, relocated and then damaged in every way we can think of.

use dirql_image::{ExportTarget, Image, ImageError, Symbol, UnwindOp};

const SMALL: &[u8] = include_bytes!("fixtures/small.sys");

fn small() -> Image {
    Image::parse(SMALL).expect("the fixture is a good driver")
}

#[test]
fn headers_and_sections() {
    let image = small();
    assert_eq!(image.entry_rva, 0x3000);
    assert_eq!(image.preferred_base, 0x2_37de_0000);
    assert_eq!(image.size_of_image, 0xb000);
    assert_eq!(image.subsystem, 1);
    assert_eq!(image.headers().len(), 0x400);
    let names: Vec<_> = image.sections.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names[..3], [".text", "PAGE", "INIT"]);
    let page = image.section("PAGE").expect("PAGE");
    assert!(page.pageable && page.executable && !page.writable);
    assert_eq!(image.section_at(0x3010).map(|s| s.name.as_str()), Some("INIT"));
    let protections = image.page_protections();
    assert_eq!(protections.len(), 0xb);
    assert!(protections[0].readable && !protections[0].writable && !protections[0].executable);
    assert!(protections[1].executable && !protections[1].writable);
    assert!(protections[2].pageable && !protections[1].pageable);
    assert!(protections[4].writable && !protections[4].executable);
}

#[test]
fn imports_and_exports() {
    let image = small();
    let imports: Vec<_> =
        image.imports.iter().map(|i| (i.module.as_str(), i.symbol.to_string(), i.iat_rva)).collect();
    assert_eq!(
        imports,
        [
            ("hal.dll", "KeStallExecutionProcessor".to_owned(), 0x9078),
            ("ntoskrnl.exe", "IoCreateDevice".to_owned(), 0x9088),
            ("ntoskrnl.exe", "IoDeleteDevice".to_owned(), 0x9090),
            ("ntoskrnl.exe", "IofCompleteRequest".to_owned(), 0x9098),
            ("ntoskrnl.exe", "KeDelayExecutionThread".to_owned(), 0x90a0),
        ]
    );
    assert_eq!(image.imports[0].module_as_written, "HAL.dll");
    assert!(matches!(&image.imports[0].symbol, Symbol::Name(_)));
    assert_eq!(image.export("Counter").map(|e| &e.target), Some(&ExportTarget::Rva(0x4000)));
    assert_eq!(image.export_by_ordinal(1).and_then(|e| e.name.as_deref()), Some("Add"));
    assert_eq!(image.export_name.as_deref(), Some("small.sys"));
    assert_eq!(image.bytes(0x4000, 4), Some(&0x1234_5678_u32.to_le_bytes()[..]));
}

#[test]
fn relocation_moves_every_pointer_and_nothing_else() {
    let image = small();
    let base = 0xffff_f800_0123_0000;
    let at_home = image.lay_out(image.preferred_base).expect("home");
    let moved = image.lay_out(base).expect("moved");
    let fields = image.relocations();
    assert!(fields.len() >= 5, "{fields:x?}");
    let read = |bytes: &[u8], rva: u32| {
        let at = rva as usize;
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    };
    let mut expected = at_home.clone();
    for &rva in &fields {
        let value = read(&at_home, rva) - image.preferred_base + base;
        assert!((base..base + u64::from(image.size_of_image)).contains(&value), "{rva:#x} -> {value:#x}");
        expected[rva as usize..rva as usize + 8].copy_from_slice(&value.to_le_bytes());
    }
    // The loader also writes the base into the header.
    let nt = u32::from_le_bytes(SMALL[0x3c..0x40].try_into().expect("e_lfanew"));
    expected[nt as usize + 48..nt as usize + 56].copy_from_slice(&base.to_le_bytes());
    assert!(moved == expected);
    assert_eq!(image.lay_out(0x1234), Err(ImageError::BadBase { base: 0x1234 }));
    assert!(image.lay_out(0xffff_ffff_ffff_f000).is_err());
}

#[test]
fn unwind_information() {
    let image = small();
    assert_eq!(image.functions.len(), 4);
    let f = image.lookup(0x3010).expect("DriverEntry");
    assert_eq!((f.begin, f.end), (0x3000, 0x305a));
    assert_eq!(image.lookup(0x305a), None);
    assert_eq!(image.lookup(0), None);
    for f in &image.functions {
        let info = image.unwind(f.unwind).expect("good");
        assert_eq!(info.version, 1);
        assert!(info.handler.is_none() && info.chained.is_none());
        assert_eq!(image.unwind_chain(*f).expect("good").len(), 1);
    }
    let info = image.unwind(f.unwind).expect("good");
    assert!(info.codes.iter().any(|c| matches!(c.op, UnwindOp::Alloc(n) if n > 0 && n % 8 == 0)), "{info:?}");
    assert!(image.unwind(0xffff_fff0).is_err());
    assert!(image.c_scope_table(0xaffe).is_err());
}

/// Everything that can be asked of an image, so that damage has nowhere to hide.
fn exercise(bytes: &[u8]) {
    match Image::parse(bytes) {
        Ok(image) => {
            let _ = image.lay_out(0xffff_f800_0000_0000).map_err(|e| e.to_string());
            let _ = (image.page_protections(), image.headers(), image.relocations(), image.file_version());
            for f in &image.functions {
                let _ = image.lookup(f.begin);
                if let Ok(chain) = image.unwind_chain(*f) {
                    for handler in chain.iter().filter_map(|i| i.handler) {
                        let _ = image.c_scope_table(handler.data_rva);
                    }
                }
            }
        }
        Err(e) => {
            let text = e.to_string();
            assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
        }
    }
}

#[test]
fn truncations_are_errors_and_never_panics() {
    // The whole file is needed, but for the padding of the last section.
    for len in (0..SMALL.len()).step_by(64) {
        let error = Image::parse(&SMALL[..len]).expect_err("cut short");
        if len > 0 {
            assert!(error.to_string().contains("cut short"), "{len:#x}: {error}");
        }
    }
}

#[test]
fn every_single_damaged_byte_is_survived() {
    // All of the headers and section table, exception and unwind data, exports, imports and relocations.
    for at in 0..SMALL.len() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff, SMALL[at] ^ 0x10] {
            let mut bytes = SMALL.to_vec();
            bytes[at] = value;
            exercise(&bytes);
        }
    }
}

#[test]
fn damaged_words_and_pairs_are_survived() {
    for at in (0..0x400_usize).step_by(2) {
        for value in [0_u32, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0xffff_fff8, 0x0fff_ffff, 0xb000] {
            let mut bytes = SMALL.to_vec();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            exercise(&bytes);
        }
    }
    // A fixed linear congruential generator: the same bytes on every machine.
    let mut state = 0x2545_f491_u64;
    let mut next = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    for _ in 0..3000 {
        let mut bytes = SMALL.to_vec();
        for _ in 0..=next(6) {
            let at = next(bytes.len());
            bytes[at] = next(256) as u8;
        }
        exercise(&bytes);
    }
}
