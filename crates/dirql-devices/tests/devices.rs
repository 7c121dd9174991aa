//! Devices on a machine: registers, lines, messages, DMA, and clones that go on alike.

mod common;

use std::collections::BTreeMap;

use common::{GSI, add, counter, dispatch, get, line, machine, msix, put, text};

use dirql_devices::{PropValue, build};
use dirql_machine::pci::message::encode;
use dirql_machine::{BarKind, Choice, Chooser, Dest, Machine, MachineEventKind};
use dirql_mem::{Pa, Prot, Va};
use dirql_x86::Exit;

#[test]
fn pulse_registers_are_as_its_data_sheet_says() {
    let mut m = machine(1);
    let (id, base) = add(&mut m, "pulse", &[("sources", PropValue::Int(3))]);
    assert_eq!(m.config_read(m.bdf(id).unwrap(), 0, 4), 0xd1a1_1234);
    assert_eq!(get(&mut m, base), 0x5055_4C53);
    assert_eq!(get(&mut m, base + 0x10), 3);
    put(&mut m, base + 0x14, 0xdead_beef);
    assert_eq!(get(&mut m, base + 0x14), 0xdead_beef);
    put(&mut m, base + 0x0c, 0xff);
    assert_eq!(get(&mut m, base + 4), 7, "a raise sets only sources there are, enabled or not");
    put(&mut m, base + 0x0c, 1);
    assert_eq!(get(&mut m, base + 0x100), 1, "only transitions count");
    put(&mut m, base + 4, 2);
    assert_eq!(get(&mut m, base + 4), 5);
    assert!(!m.line_asserted(GSI), "nothing is enabled");
    put(&mut m, base + 8, 4);
    assert!(m.line_asserted(GSI));
    put(&mut m, base + 4, 4);
    assert!(!m.line_asserted(GSI));
}

#[test]
fn a_line_comes_again_until_the_device_is_quiet() {
    let mut m = machine(1);
    let (_, base) = add(&mut m, "pulse", &[]);
    line(&mut m);
    put(&mut m, base + 8, 1);
    put(&mut m, base + 0x0c, 1);
    for _ in 0..3 {
        assert_eq!(dispatch(&mut m), Some(0x61));
    }
    m.accept(0, 0x61);
    put(&mut m, base + 4, 1);
    m.eoi(0);
    assert_eq!(m.pending_vector(0), None);
}

#[test]
fn a_shared_line_stays_while_either_device_asserts() {
    let mut m = machine(1);
    let (_, a) = add(&mut m, "pulse", &[]);
    let (_, b) = add(&mut m, "pulse", &[]);
    line(&mut m);
    for base in [a, b] {
        put(&mut m, base + 8, 1);
        put(&mut m, base + 0x0c, 1);
    }
    m.accept(0, 0x61);
    put(&mut m, a + 4, 1);
    m.eoi(0);
    assert_eq!(m.pending_vector(0), Some(0x61), "b still asserts");
    m.accept(0, 0x61);
    put(&mut m, b + 4, 1);
    m.eoi(0);
    assert_eq!(m.pending_vector(0), None);
}

#[test]
fn intx_disable_hides_the_line_but_not_the_status_bit() {
    let mut m = machine(1);
    let (id, base) = add(&mut m, "pulse", &[]);
    let bdf = m.bdf(id).unwrap();
    put(&mut m, base + 8, 1);
    put(&mut m, base + 0x0c, 1);
    assert!(m.line_asserted(GSI));
    m.intx_disable(id, true);
    assert!(!m.line_asserted(GSI));
    assert_ne!(m.config_read(bdf, 6, 2) & 8, 0);
    m.intx_disable(id, false);
    assert!(m.line_asserted(GSI));
}

#[test]
fn a_masked_entry_pends_and_is_sent_when_unmasked() {
    let mut m = machine(1);
    let (id, base) = add(&mut m, "pulse", &[("interrupts", text("msix:4"))]);
    msix(&mut m, id, &[0x51, 0x61, 0x71, 0x81]);
    put(&mut m, base + 8, 0xf);
    put(&mut m, base + 0x0c, 1 << 2);
    assert_eq!(m.pending_vector(0), None);
    assert!(!m.line_asserted(GSI), "an enabled capability keeps INTx down");
    let BarKind::Memory { pa, len, .. } = m.bars(id)[1].kind else { panic!("the table") };
    assert_eq!(get(&mut m, pa.0 + len / 2), 1 << 2, "the pending bits");
    put(&mut m, pa.0 + 2 * 16 + 12, 0);
    assert_eq!(m.pending_vector(0), Some(0x71), "unmasked through its table");
    assert_eq!(get(&mut m, pa.0 + len / 2), 0);

    m.msix_mask(id, 1, false);
    m.msix_control(id, true, true);
    put(&mut m, base + 0x0c, 2);
    assert_eq!(dispatch(&mut m), Some(0x71));
    assert_eq!(m.pending_vector(0), None, "the function mask");
    m.msix_control(id, true, false);
    assert_eq!(dispatch(&mut m), Some(0x61));
}

#[test]
fn a_message_needs_bus_mastering() {
    let mut m = machine(1);
    let (id, base) = add(&mut m, "pulse", &[("interrupts", text("msi:1"))]);
    let bdf = m.bdf(id).unwrap();
    m.msi_program(id, 0xFEE0_0000, 0x51, 1, true);
    m.config_write(bdf, 4, 2, 2);
    put(&mut m, base + 8, 1);
    put(&mut m, base + 0x0c, 1);
    assert_eq!(m.pending_vector(0), None);
    let lost = m.take_events().into_iter().any(|e| matches!(e.kind, MachineEventKind::MessageLost { .. }));
    assert!(lost);
}

#[test]
fn msi_puts_the_number_into_the_low_bits_and_falls_to_0_past_the_grant() {
    let mut m = machine(1);
    let (id, base) = add(&mut m, "pulse", &[("interrupts", text("msi:4"))]);
    m.msi_program(id, 0xFEE0_0000, 0x50, 4, true);
    put(&mut m, base + 8, 0xf);
    put(&mut m, base + 0x0c, 1 << 3);
    assert_eq!(dispatch(&mut m), Some(0x53));
    m.msi_program(id, 0xFEE0_0000, 0x50, 1, true);
    put(&mut m, base + 0x0c, 1 << 2);
    assert_eq!(dispatch(&mut m), Some(0x50));
}

#[test]
fn in_d3_nothing_decodes_and_nothing_is_raised() {
    let mut m = machine(1);
    let (id, base) = add(&mut m, "pulse", &[("arrivals", PropValue::Int(1))]);
    let bdf = m.bdf(id).unwrap();
    let pm = m.config_read(bdf, 0x34, 1) as u16;
    put(&mut m, base + 0x14, 5);
    m.config_write(bdf, pm + 4, 2, 3);
    assert_eq!(get(&mut m, base + 0x14), u32::MAX);
    put(&mut m, base + 0x14, 6);
    m.device_raise(id, 0).unwrap();
    assert!(!m.idle_arrival());
    m.config_write(bdf, pm + 4, 2, 2);
    assert_eq!(m.config_read(bdf, pm + 4, 2) & 3, 3, "D2 is not there: the write is discarded");
    m.config_write(bdf, pm + 4, 2, 0);
    assert_eq!(get(&mut m, base + 0x14), 5);
    assert_eq!(get(&mut m, base + 4), 0);
    assert!(m.idle_arrival());
}

#[test]
fn arrivals_come_in_source_order_and_end() {
    let mut m = machine(1);
    let props = [("interrupts", text("msix:2")), ("arrivals", PropValue::Int(3))];
    let (id, _) = add(&mut m, "pulse", &props);
    assert_eq!(m.possible_arrivals(), [(id, 0), (id, 1)]);
    while m.idle_arrival() {}
    let left = counter(&m, id, "arrivals_left");
    assert_eq!((counter(&m, id, "status"), left), (3, 0));
    assert!(m.possible_arrivals().is_empty());
}

#[test]
fn a_free_running_source_fires_when_unmasked_and_clears_itself() {
    let mut m = machine(1);
    let props = [("interrupts", text("msix:2")), ("free_running", PropValue::Bool(true))];
    let (id, _) = add(&mut m, "pulse", &props);
    msix(&mut m, id, &[0x51, 0x61]);
    assert_eq!(m.pending_vector(0), None);
    m.msix_mask(id, 1, false);
    assert_eq!(dispatch(&mut m), Some(0x61));
    assert_eq!(dispatch(&mut m), None);
    assert_eq!((counter(&m, id, "status"), counter(&m, id, "count1")), (0, 1));

    let props = BTreeMap::from([("free_running".to_string(), PropValue::Bool(true))]);
    assert!(build("pulse", &props).err().unwrap().to_string().contains("storm"));
}

#[test]
fn edu_computes_a_factorial_and_interrupts() {
    let mut m = machine(1);
    let (id, base) = add(&mut m, "edu", &[]);
    assert_eq!(get(&mut m, base), 0x0100_00ed);
    put(&mut m, base + 4, 0x1234_5678);
    assert_eq!(get(&mut m, base + 4), !0x1234_5678);
    m.msi_program(id, 0xFEE0_0000, 0x51, 1, true);
    put(&mut m, base + 0x20, 0x80);
    put(&mut m, base + 8, 10);
    assert_eq!(get(&mut m, base + 0x20), 0x81);
    assert!(m.advance_to_next_event());
    assert_eq!(m.now(), 10_000);
    assert_eq!(get(&mut m, base + 8), 3_628_800);
    assert_eq!(get(&mut m, base + 0x24), 1);
    assert_eq!(dispatch(&mut m), Some(0x51));
    put(&mut m, base + 0x64, 1);
    assert_eq!(get(&mut m, base + 0x24), 0);
    assert_eq!(get(&mut m, base + 0x80 - 2), u32::MAX, "not aligned");
    put(&mut m, base + 8, u32::MAX);
    m.advance_to_next_event();
    assert_eq!(get(&mut m, base + 8), 0);
}

#[test]
fn edu_moves_memory_there_and_back() {
    let mut m = machine(1);
    let (id, base) = add(&mut m, "edu", &[]);
    line(&mut m);
    let pa = m.mem.alloc_frames(2).unwrap();
    m.mem.write_phys(pa, b"interrupt").unwrap();
    let go = |m: &mut Machine, from: u64, to: u64, count: u64, command: u32| {
        m.mmio_write(0, Pa(base + 0x80), 8, from);
        m.mmio_write(0, Pa(base + 0x88), 8, to);
        m.mmio_write(0, Pa(base + 0x90), 8, count);
        put(m, base + 0x98, command);
        assert_eq!(get(m, base + 0x98) & 1, 1);
        while get(m, base + 0x98) & 1 != 0 {
            assert!(m.advance_to_next_event());
        }
    };
    go(&mut m, pa.0, 0x40010, 9, 1);
    go(&mut m, 0x40010, pa.0 + 4096, 9, 1 | 2 | 4);
    let mut got = [0; 9];
    m.mem.read_phys(Pa(pa.0 + 4096), &mut got).unwrap();
    assert_eq!(&got, b"interrupt");
    assert_eq!(get(&mut m, base + 0x24), 0x100);
    assert_eq!(m.pending_vector(0), Some(0x61));

    m.take_events();
    go(&mut m, pa.0, 0x40ff8, 9, 1);
    let said = |m: &mut Machine, want: &str| {
        m.take_events()
            .into_iter()
            .any(|e| matches!(e.kind, MachineEventKind::Note { text, .. } if text.contains(want)))
    };
    assert!(said(&mut m, "its buffer is"));
    let bdf = m.bdf(id).unwrap();
    m.config_write(bdf, 4, 2, 2);
    go(&mut m, pa.0, 0x40000, 9, 1);
    assert!(said(&mut m, "bus mastering"));
}

#[test]
fn stub_remembers_and_its_line_falls_by_itself() {
    let mut m = machine(1);
    let (id, base) = add(&mut m, "stub", &[("interrupts", text("line"))]);
    assert_eq!(get(&mut m, base + 0x20), 0);
    put(&mut m, base + 0x20, 7);
    assert_eq!(get(&mut m, base + 0x20), 7);
    m.device_set(id, "bar0+0x24", 9).unwrap();
    assert_eq!(get(&mut m, base + 0x24), 9);
    assert!(m.device_set(id, "bar0+0xfffffffffffffffe", 9).is_err());
    line(&mut m);
    m.device_raise(id, 0).unwrap();
    assert_eq!(m.pending_vector(0), Some(0x61));
    m.accept(0, 0x61);
    get(&mut m, base);
    m.eoi(0);
    assert_eq!(m.pending_vector(0), None);
    m.device_raise(id, 0).unwrap();
    while m.line_asserted(GSI) {
        assert!(m.advance_to_next_event());
    }
}

#[test]
fn lowest_priority_goes_to_the_least_busy_and_is_a_choice() {
    struct Last;
    impl Chooser for Last {
        fn clone_box(&self) -> Box<dyn Chooser> {
            Box::new(Last)
        }
        fn choose(&mut self, _: Choice<'_>, options: u32, _: u32) -> u32 {
            options - 1
        }
    }
    let mut m = machine(3);
    let (id, base) = add(&mut m, "pulse", &[("interrupts", text("msi:1"))]);
    let (address, data) = encode(0x51, Dest::AnyOf(0b111)).unwrap();
    m.msi_program(id, address, data as u16, 1, true);
    m.cpus[0].cr8 = 2;
    put(&mut m, base + 8, 1);
    put(&mut m, base + 0x0c, 1);
    assert_eq!((m.pending_vector(0), m.pending_vector(1), m.pending_vector(2)), (None, Some(0x51), None));
    m.set_chooser(Box::new(Last));
    put(&mut m, base + 4, 1);
    put(&mut m, base + 0x0c, 1);
    assert_eq!(m.pending_vector(2), Some(0x51));
}

#[test]
fn configuration_ports_reach_a_bar_and_it_can_be_moved() {
    let mut m = machine(1);
    let (id, base) = add(&mut m, "pulse", &[]);
    let bdf = m.bdf(id).unwrap();
    let address = 1 << 31 | u32::from(bdf.device) << 11;
    m.port_out(0, 0xCF8, 4, address | 0x10);
    m.port_out(0, 0xCFC, 4, u32::MAX);
    assert_eq!(m.port_in(0, 0xCFC, 4), 0xffff_f000);
    m.port_out(0, 0xCFC, 4, 0xE800_0000);
    assert_eq!(get(&mut m, base), u32::MAX, "nothing is at the old place");
    assert_eq!(get(&mut m, 0xE800_0000), 0x5055_4C53);
    m.port_out(0, 0xCF8, 4, address | 4);
    m.port_out(0, 0xCFC, 2, 0);
    assert_eq!(get(&mut m, 0xE800_0000), u32::MAX, "memory decode is off");
    m.port_out(0, 0xCF8, 4, 1 << 31 | 31 << 11);
    assert_eq!(m.port_in(0, 0xCFC, 4), u32::MAX);
}

#[test]
fn a_clone_goes_on_as_the_original() {
    let mut m = machine(2);
    let (_, base) = add(&mut m, "edu", &[]);
    let (id, _) = add(&mut m, "pulse", &[("arrivals", PropValue::Int(4))]);
    line(&mut m);
    m.set_timer(1, 0xd1, 3000);
    put(&mut m, base + 0x20, 0x80);
    put(&mut m, base + 8, 12);
    m.take_events();
    let mut other = m.clone();
    let drive = |m: &mut Machine| {
        m.device_set(id, "enable", 1).unwrap();
        for _ in 0..8 {
            m.idle_arrival();
            m.advance_to_next_event();
            dispatch(m);
        }
        (m.now(), m.take_events(), m.pending_vector(0), m.pending_vector(1), m.device_counters(id))
    };
    assert_eq!(drive(&mut m), drive(&mut other));
    assert!(m.now() > 10_000);
}

#[test]
fn a_removed_device_is_gone() {
    let mut m = machine(1);
    let (id, base) = add(&mut m, "pulse", &[]);
    put(&mut m, base + 8, 1);
    put(&mut m, base + 0x0c, 1);
    m.detach(id);
    assert!(!m.line_asserted(GSI) && !m.present(id));
    assert_eq!(get(&mut m, base), u32::MAX);
    assert_eq!(m.config_read(m.bdf(id).unwrap(), 0, 2), 0xffff);
    assert!(m.device_raise(id, 0).is_err());
}

#[test]
fn guest_code_programs_a_device_and_time_is_exact() {
    let mut m = machine(1);
    let (_, base) = add(&mut m, "edu", &[]);
    let code = m.mem.alloc_frames(1).unwrap();
    // nop; mov dword ptr [rbx+8], 5; loop: mov eax, [rbx+0x20]; test al, 1; jnz loop; mov ecx, [rbx+8]; hlt
    let bytes = b"\x90\xc7\x43\x08\x05\0\0\0\x8b\x43\x20\xa8\x01\x75\xf9\x8b\x4b\x08\xf4";
    m.mem.write_phys(code, bytes).unwrap();
    let at = Va(0xffff_8000_0000_0000);
    let device = Va(0xffff_8000_1000_0000);
    m.mem.map_ram(at, code, 1, Prot::READ | Prot::EXEC);
    m.mem.map_device(device, Pa(base), 256, Prot::READ | Prot::WRITE);
    (m.cpus[0].regs.rip, m.cpus[0].regs.gpr[3]) = (at.0, device.0);
    assert_eq!(m.run_cpu(0, 1000), Exit::Device);
    assert_eq!(
        (m.now(), m.next_event_time()),
        (2, Some(10_002)),
        "the delay counts from the writing instruction"
    );
    while m.run_cpu(0, 1000) != Exit::Halt {
        assert!(m.now() < 11_000);
    }
    assert_eq!(m.cpus[0].regs.gpr[1], 120);
    assert!(m.now() >= 10_002);
}

#[test]
fn stub_answers_with_what_matters() {
    let mut m = machine(1);
    let values = PropValue::List(vec![PropValue::Int(0x1_5A00), PropValue::Int(7)]);
    let (_, base) = add(&mut m, "stub", &[("values", values)]);
    put(&mut m, base + 8, 7);
    let mut seen = vec![];
    for option in 0..6 {
        m.set_chooser(Box::new(common::Always("read", option)));
        seen.push(get(&mut m, base + 8));
    }
    // Last written, all ones, zero, the value (7 is there already), a single bit, and the default past the end.
    assert_eq!(seen, [7, u32::MAX, 0, 0x1_5A00, 1, 7]);
    m.set_chooser(Box::new(common::Always("read", 3)));
    assert_eq!(m.mmio_read(0, Pa(base + 8), 1), 1, "cut to the access, 0x00 is there already: a bit");
}
