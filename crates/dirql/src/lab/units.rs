//! Values with a notation of their own: numbers, times, bytes, interrupts, bus identities.

use super::Interrupts;

/// A whole number, decimal or 0x.
pub(super) fn number(text: &str) -> Result<u64, String> {
    let text = text.trim().replace('_', "");
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if !hex.starts_with('+') => u64::from_str_radix(hex, 16),
        _ => text.parse(),
    };
    parsed.map_err(|_| format!("`{text}` is not a whole number, decimal or 0x"))
}

/// The units of time, each with its length in nanoseconds.
const UNITS: [(&str, u64); 4] = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];

/// A time such as `10 ms`, in nanoseconds.
pub(super) fn time(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = (&text[..split], text[split..].trim());
    let help =
        || format!("`{text}` is not a time: write a whole number and ns, us, ms or s, as in \"10 ms\"");
    let scale = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(help)?.1;
    let count: u64 = digits.parse().map_err(|_| help())?;
    count.checked_mul(scale).ok_or_else(|| format!("`{text}` is longer than a run can be"))
}

/// A time as [`time`] reads it, in the largest unit that is exact.
pub(super) fn show_time(ns: u64) -> String {
    let (name, scale) = UNITS.iter().rev().find(|(_, scale)| ns.is_multiple_of(*scale)).unwrap_or(&UNITS[0]);
    format!("{} {name}", ns / scale)
}

/// The most bytes a byte string may have.
const MOST_BYTES: usize = 1 << 20;

/// Bytes such as `01 00 ff`; blanks may be left out between whole bytes.
pub(super) fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    for group in text.split_whitespace() {
        if !group.is_ascii() || group.len() % 2 != 0 {
            return Err(format!(
                "`{group}` is not whole bytes: two hexadecimal digits a byte, as in \"01 00\""
            ));
        }
        for i in (0..group.len()).step_by(2) {
            let pair = &group[i..i + 2];
            match (u8::from_str_radix(pair, 16), pair.starts_with('+')) {
                (Ok(byte), false) => out.push(byte),
                _ => return Err(format!("`{pair}` is not two hexadecimal digits")),
            }
        }
        if out.len() > MOST_BYTES {
            return Err(format!("more than {MOST_BYTES} bytes"));
        }
    }
    Ok(out)
}

/// Bytes as [`bytes`] reads them.
pub(super) fn show_bytes(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
}

/// `none`, `line`, `line:N`, `msi:N`, `msix:N`.
pub(super) fn interrupts(text: &str) -> Result<Interrupts, String> {
    let (kind, count) = match text.split_once(':') {
        Some((kind, count)) => (kind.trim(), Some(number(count)?)),
        None => (text.trim(), None),
    };
    let count = |low: u64, high: u64| {
        let n = count.unwrap_or(1);
        let in_range = (low..=high).contains(&n);
        let why = || format!("{kind} takes {low} to {high} interrupts, not {n}");
        if in_range { u32::try_from(n).map_err(|e| e.to_string()) } else { Err(why()) }
    };
    match kind {
        "none" => Ok(Interrupts::None),
        "line" => Ok(Interrupts::Line(count(1, 16)?)),
        // PCI: a power of two up to 32; Windows uses up to 16 (spec 6.3, D-14).
        "msi" => match count(1, 32)? {
            n if n.is_power_of_two() => Ok(Interrupts::Msi(n)),
            n => Err(format!("MSI offers 1, 2, 4, 8, 16 or 32 messages, not {n}")),
        },
        "msix" => Ok(Interrupts::Msix(count(1, 2048)?)),
        _ => Err(format!("`{text}` is none of line, line:N, msi:N, msix:N, none")),
    }
}

/// `vendor:device`, both hexadecimal, 16 bits.
pub(super) fn id(text: &str) -> Result<(u16, u16), String> {
    let half = |t: &str| {
        let t = t.trim();
        if t.is_empty() || t.starts_with('+') {
            None
        } else {
            u16::from_str_radix(t.trim_start_matches("0x"), 16).ok()
        }
    };
    text.split_once(':')
        .and_then(|(vendor, device)| Some((half(vendor)?, half(device)?)))
        .ok_or_else(|| format!("`{text}` is not vendor:device in hexadecimal, as in \"1234:11e8\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_carry_units() {
        assert_eq!(time("10 ms"), Ok(10_000_000));
        assert_eq!(time("3s"), Ok(3_000_000_000));
        for bad in
            ["10", "ms", "-1 ms", "1.5 ms", "1 minute", "99999999999999999999 s", "9999999999999999 s", ""]
        {
            assert!(time(bad).is_err(), "{bad}");
        }
        assert_eq!(show_time(10_000_000), "10 ms");
        assert_eq!(show_time(1_500), "1500 ns");
    }

    #[test]
    fn bytes_are_pairs_of_digits() {
        assert_eq!(bytes("01 00 fF"), Ok(vec![1, 0, 255]));
        assert_eq!(bytes("0100ff"), Ok(vec![1, 0, 255]));
        assert_eq!(bytes(""), Ok(vec![]));
        for bad in ["1", "0x01", "zz", "+1", "\u{e4}"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn interrupts_are_bounded() {
        assert_eq!(interrupts("line"), Ok(Interrupts::Line(1)));
        assert_eq!(interrupts("msi:16"), Ok(Interrupts::Msi(16)));
        assert_eq!(interrupts("msix:2048"), Ok(Interrupts::Msix(2048)));
        for bad in
            ["msi:3", "msi:64", "msix:0", "msix:2049", "msix:99999999999999999999", "gpio", "line:x", ""]
        {
            assert!(interrupts(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_are_two_halves() {
        assert_eq!(id("1234:11e8"), Ok((0x1234, 0x11e8)));
        for bad in ["1234", "12345:1", ":", "x:y", "+1:2"] {
            assert!(id(bad).is_err(), "{bad}");
        }
    }
}
