//! The kernel's printf, for DbgPrint and the C run-time routines of `ntoskrnl.exe`.
//!
//! Models the format specification of Microsoft's C run time ("Format specification syntax: printf and wprintf
//! functions") with the kernel's `%Z` and `%wZ` for counted strings, on UTF-16 code units. A narrow text is taken as
//! Latin-1. Left out, and reported when used: floating point, which the kernel's formatter does not have for drivers
//! either, and `%n`.

use crate::cx::Cx;
use crate::stop::Stop;

/// Longest text that one call may produce, in code units.
const MAX_OUTPUT: usize = 1 << 20;

/// Where a formatter reads its arguments and the strings that they point to.
pub(crate) trait Source {
    /// The next argument.
    fn arg(&mut self) -> Result<u64, Stop>;
    /// A byte of guest memory.
    fn byte(&self, at: u64) -> Result<u8, Stop>;
    /// 16 bits of guest memory.
    fn word(&self, at: u64) -> Result<u16, Stop>;
    /// 64 bits of guest memory.
    fn quad(&self, at: u64) -> Result<u64, Stop>;
    /// What to stop with when a format needs something unimplemented.
    fn missing(&self, what: String) -> Stop;
}

/// Arguments of the export call being served.
pub(crate) struct CallArgs<'a, 'b> {
    cx: &'a Cx<'b>,
    next: usize,
}

impl<'a, 'b> CallArgs<'a, 'b> {
    /// From the argument after the first `fixed` on.
    pub(crate) fn after(cx: &'a Cx<'b>, fixed: usize) -> Self {
        Self { cx, next: fixed }
    }
}

/// Arguments of a `va_list`: on x64 a pointer to consecutive 8-byte slots.
pub(crate) struct ListArgs<'a, 'b> {
    cx: &'a Cx<'b>,
    at: u64,
}

impl<'a, 'b> ListArgs<'a, 'b> {
    /// From a `va_list`.
    pub(crate) fn new(cx: &'a Cx<'b>, list: u64) -> Self {
        Self { cx, at: list }
    }
}

macro_rules! guest_reads {
    () => {
        fn byte(&self, at: u64) -> Result<u8, Stop> {
            self.cx.r8(at)
        }
        fn word(&self, at: u64) -> Result<u16, Stop> {
            self.cx.r16(at)
        }
        fn quad(&self, at: u64) -> Result<u64, Stop> {
            self.cx.r64(at)
        }
        fn missing(&self, what: String) -> Stop {
            self.cx.missing(what)
        }
    };
}

impl Source for CallArgs<'_, '_> {
    fn arg(&mut self) -> Result<u64, Stop> {
        self.next += 1;
        self.cx.arg(self.next - 1)
    }
    guest_reads!();
}

impl Source for ListArgs<'_, '_> {
    fn arg(&mut self) -> Result<u64, Stop> {
        let value = self.cx.r64(self.at)?;
        self.at = self.at.wrapping_add(8);
        Ok(value)
    }
    guest_reads!();
}

#[derive(Clone, Copy, Default)]
struct Flags {
    left: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    zero: bool,
}

/// Size prefix.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    None,
    Byte,
    Short,
    Long,
    Quad,
    Wide,
}

/// Formats. `wide`: the format is of a wide-character routine, in which `%s` and `%c` are wide.
pub(crate) fn format(source: &mut impl Source, text: &[u16], wide: bool) -> Result<Vec<u16>, Stop> {
    let mut out = Vec::new();
    let mut at = 0;
    let peek = |i: usize| text.get(i).and_then(|&u| u8::try_from(u).ok()).map_or('\0', char::from);
    while at < text.len() {
        if text[at] != u16::from(b'%') {
            out.push(text[at]);
            at += 1;
            continue;
        }
        at += 1;
        let mut flags = Flags::default();
        loop {
            match peek(at) {
                '-' => flags.left = true,
                '+' => flags.plus = true,
                ' ' => flags.space = true,
                '#' => flags.alternate = true,
                '0' => flags.zero = true,
                _ => break,
            }
            at += 1;
        }
        let number = |at: &mut usize, source: &mut dyn FnMut() -> Result<u64, Stop>| {
            if peek(*at) == '*' {
                *at += 1;
                return Ok(Some(i64::from(source()? as i32)));
            }
            let mut n = None;
            while let Some(d) = peek(*at).to_digit(10) {
                n = Some((n.unwrap_or(0i64) * 10 + i64::from(d)).min(i64::from(i32::MAX)));
                *at += 1;
            }
            Ok::<_, Stop>(n)
        };
        let mut width = number(&mut at, &mut || source.arg())?.unwrap_or(0);
        if width < 0 {
            flags.left = true;
            width = -width;
        }
        let mut precision = None;
        if peek(at) == '.' {
            at += 1;
            precision = Some(number(&mut at, &mut || source.arg())?.unwrap_or(0)).filter(|&p| p >= 0);
        }
        if width.max(precision.unwrap_or(0)) as usize > MAX_OUTPUT && width as usize > MAX_OUTPUT {
            return Err(source.missing(format!("printf field of {width} characters")));
        }
        let width = width as usize;
        let precision = precision.map(|p| p as usize);

        let (size, used) = match (peek(at), peek(at + 1), peek(at + 2)) {
            ('I', '6', '4') => (Size::Quad, 3),
            ('I', '3', '2') => (Size::Long, 3),
            ('I' | 'j' | 'z' | 't', ..) => (Size::Quad, 1),
            ('l', 'l', _) => (Size::Quad, 2),
            ('l', ..) => (Size::Long, 1),
            ('h', 'h', _) => (Size::Byte, 2),
            ('h', ..) => (Size::Short, 1),
            ('w', ..) => (Size::Wide, 1),
            _ => (Size::None, 0),
        };
        at += used;
        let conversion = peek(at);
        if at >= text.len() {
            break;
        }
        at += 1;

        let is_wide = |swapped: bool| match size {
            Size::Short | Size::Byte => false,
            Size::Long | Size::Wide => true,
            _ => wide != swapped,
        };
        match conversion {
            'd' | 'i' => {
                let v = match size {
                    Size::Quad => source.arg()? as i64,
                    Size::Short => i64::from(source.arg()? as i16),
                    Size::Byte => i64::from(source.arg()? as i8),
                    _ => i64::from(source.arg()? as i32),
                };
                let sign = if v < 0 {
                    "-"
                } else if flags.plus {
                    "+"
                } else if flags.space {
                    " "
                } else {
                    ""
                };
                integer(&mut out, sign, &v.unsigned_abs().to_string(), flags, width, precision)?;
            }
            'u' | 'x' | 'X' | 'o' => {
                let raw = source.arg()?;
                let v = match size {
                    Size::Quad => raw,
                    Size::Short => u64::from(raw as u16),
                    Size::Byte => u64::from(raw as u8),
                    _ => u64::from(raw as u32),
                };
                let (prefix, digits) = match conversion {
                    'u' => ("", v.to_string()),
                    'x' => (if flags.alternate && v != 0 { "0x" } else { "" }, format!("{v:x}")),
                    'X' => (if flags.alternate && v != 0 { "0X" } else { "" }, format!("{v:X}")),
                    _ => (if flags.alternate && v != 0 { "0" } else { "" }, format!("{v:o}")),
                };
                integer(&mut out, prefix, &digits, flags, width, precision)?;
            }
            'p' | 'P' => {
                let digits = format!("{:016X}", source.arg()?);
                integer(&mut out, if flags.alternate { "0X" } else { "" }, &digits, flags, width, None)?;
            }
            'c' | 'C' => {
                let raw = source.arg()?;
                let unit = if is_wide(conversion == 'C') { raw as u16 } else { u16::from(raw as u8) };
                pad(&mut out, &[unit], flags, width)?;
            }
            's' | 'S' => {
                let pointer = source.arg()?;
                let units = string(source, pointer, is_wide(conversion == 'S'), precision)?;
                pad(&mut out, &units, flags, width)?;
            }
            'Z' => {
                let pointer = source.arg()?;
                let wide = matches!(size, Size::Wide | Size::Long);
                let units = counted(source, pointer, wide, precision)?;
                pad(&mut out, &units, flags, width)?;
            }
            'a' | 'A' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'n' => {
                return Err(source.missing(format!("printf conversion %{conversion}")));
            }
            // `%%`, and as Microsoft's run time does, any other character stands for itself.
            _ => out.push(text[at - 1]),
        }
        if out.len() > MAX_OUTPUT {
            return Err(source.missing(format!("printf text of more than {MAX_OUTPUT} characters")));
        }
    }
    Ok(out)
}

fn null(precision: Option<usize>) -> Vec<u16> {
    "(null)".encode_utf16().take(precision.unwrap_or(usize::MAX)).collect()
}

fn string(source: &impl Source, at: u64, wide: bool, precision: Option<usize>) -> Result<Vec<u16>, Stop> {
    if at == 0 {
        return Ok(null(precision));
    }
    let mut units = Vec::new();
    while units.len() < precision.unwrap_or(MAX_OUTPUT).min(MAX_OUTPUT) {
        let i = units.len() as u64;
        let unit = if wide {
            source.word(at.wrapping_add(2 * i))?
        } else {
            u16::from(source.byte(at.wrapping_add(i))?)
        };
        if unit == 0 {
            break;
        }
        units.push(unit);
    }
    Ok(units)
}

/// The text of an ANSI_STRING or UNICODE_STRING, which ends at its length and not at a zero.
fn counted(source: &impl Source, at: u64, wide: bool, precision: Option<usize>) -> Result<Vec<u16>, Stop> {
    if at == 0 {
        return Ok(null(precision));
    }
    let bytes = u64::from(source.word(at)?);
    let buffer = source.quad(at.wrapping_add(8))?;
    if buffer == 0 {
        return Ok(null(precision));
    }
    let n = if wide { bytes / 2 } else { bytes }.min(precision.map_or(u64::MAX, |p| p as u64));
    (0..n)
        .map(|i| {
            if wide {
                source.word(buffer.wrapping_add(2 * i))
            } else {
                Ok(u16::from(source.byte(buffer.wrapping_add(i))?))
            }
        })
        .collect()
}

fn integer(
    out: &mut Vec<u16>,
    prefix: &str,
    digits: &str,
    flags: Flags,
    width: usize,
    precision: Option<usize>,
) -> Result<(), Stop> {
    let digits = if precision == Some(0) && digits == "0" { "" } else { digits };
    let mut zeros = precision.unwrap_or(1).min(MAX_OUTPUT).saturating_sub(digits.len());
    if flags.zero && !flags.left && precision.is_none() {
        zeros = zeros.max(width.saturating_sub(prefix.len() + digits.len()));
    }
    let units: Vec<u16> =
        prefix.bytes().chain(std::iter::repeat_n(b'0', zeros)).chain(digits.bytes()).map(u16::from).collect();
    pad(out, &units, Flags { zero: false, ..flags }, width)
}

fn pad(out: &mut Vec<u16>, units: &[u16], flags: Flags, width: usize) -> Result<(), Stop> {
    let fill = width.min(MAX_OUTPUT).saturating_sub(units.len());
    // With the flag 0, Microsoft's run time also pads strings with zeros.
    let filler = std::iter::repeat_n(u16::from(if flags.zero && !flags.left { b'0' } else { b' ' }), fill);
    if flags.left {
        out.extend_from_slice(units);
        out.extend(filler);
    } else {
        out.extend(filler);
        out.extend_from_slice(units);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Strings at address 0x1000 times their index plus one.
    struct Mock {
        args: Vec<u64>,
        memory: Vec<Vec<u8>>,
    }

    impl Source for Mock {
        fn arg(&mut self) -> Result<u64, Stop> {
            Ok(self.args.remove(0))
        }
        fn byte(&self, at: u64) -> Result<u8, Stop> {
            let block = self.memory.get((at / 0x1000).wrapping_sub(1) as usize);
            block
                .and_then(|b| b.get(at as usize % 0x1000))
                .copied()
                .ok_or_else(|| Stop::Internal(format!("read of {at:#x}")))
        }
        fn word(&self, at: u64) -> Result<u16, Stop> {
            Ok(u16::from_le_bytes([self.byte(at)?, self.byte(at + 1)?]))
        }
        fn quad(&self, at: u64) -> Result<u64, Stop> {
            (0..8).try_fold(0, |v, i| Ok(v | u64::from(self.byte(at + i)?) << (8 * i)))
        }
        fn missing(&self, what: String) -> Stop {
            Stop::MissingFeature { what, caller: 0 }
        }
    }

    fn wide_bytes(s: &str) -> Vec<u8> {
        s.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
    }

    fn run(text: &str, wide: bool, args: &[u64], memory: Vec<Vec<u8>>) -> String {
        let units: Vec<u16> = text.encode_utf16().collect();
        let mut source = Mock { args: args.to_vec(), memory };
        let out = format(&mut source, &units, wide).unwrap();
        assert!(source.args.is_empty(), "arguments left");
        String::from_utf16(&out).unwrap()
    }

    fn f(text: &str, args: &[u64]) -> String {
        run(text, false, args, vec![])
    }

    #[test]
    fn integers() {
        assert_eq!(f("%d %u", &[-5i32 as u32 as u64, 0xFFFF_FFFF]), "-5 4294967295");
        assert_eq!(f("%lx %I64x %llX", &[0x1_2345_6789, 0x1_2345_6789, 0xAB]), "23456789 123456789 AB");
        assert_eq!(f("%hx %hhx", &[0x12345, 0x1234]), "2345 34");
        assert_eq!(
            f("[%5d][%-5d][%05d][%+d][% d]", &[42, 42, 42, 42, 42]),
            "[   42][42   ][00042][+42][ 42]"
        );
        assert_eq!(f("[%.4x][%8.4x][%#x][%#o]", &[0xab, 0xab, 0xab, 8]), "[00ab][    00ab][0xab][010]");
        assert_eq!(f("[%*d][%-*d]", &[4, 7, 4, 7]), "[   7][7   ]");
        assert_eq!(f("[%*d]", &[-4i32 as u32 as u64, 7]), "[7   ]");
        assert_eq!(f("%08lx|%.0d|%05d", &[0xC000_00BB, 0, -42i32 as u32 as u64]), "c00000bb||-0042");
        assert_eq!(f("%I64d", &[i64::MIN as u64]), "-9223372036854775808");
        assert_eq!(f("%p", &[0xFFFF_A000_0000_0010]), "FFFFA00000000010");
    }

    #[test]
    fn strings_by_width() {
        let memory = || vec![b"abc\0".to_vec(), wide_bytes("wxyz")];
        assert_eq!(
            run("%s|%S|%ws|%ls|%hs", false, &[0x1000, 0x2000, 0x2000, 0x2000, 0x1000], memory()),
            "abc|wxyz|wxyz|wxyz|abc"
        );
        assert_eq!(run("%s|%S|%hs", true, &[0x2000, 0x1000, 0x1000], memory()), "wxyz|abc|abc");
        assert_eq!(
            run("[%5s][%-5s][%.2s]", false, &[0x1000, 0x1000, 0x1000], memory()),
            "[  abc][abc  ][ab]"
        );
        assert_eq!(f("%s %Z%c%%", &[0, 0, 65]), "(null) (null)A%");
    }

    #[test]
    fn counted_strings_end_at_their_length() {
        let mut header = vec![6, 0, 8, 0, 0, 0, 0, 0];
        header.extend(0x2000u64.to_le_bytes());
        assert_eq!(run("<%wZ>", false, &[0x1000], vec![header, wide_bytes("PCIX")]), "<PCI>");
    }

    #[test]
    fn a_precision_keeps_reads_inside_an_unterminated_string() {
        assert_eq!(run("%.3s", false, &[0x1000], vec![b"abc".to_vec()]), "abc");
    }

    #[test]
    fn what_is_lacking_is_named() {
        let units: Vec<u16> = "%f".encode_utf16().collect();
        let mut source = Mock { args: vec![0], memory: vec![] };
        assert!(matches!(format(&mut source, &units, false), Err(Stop::MissingFeature { .. })));
        let units: Vec<u16> = "%99999999d".encode_utf16().collect();
        assert!(matches!(format(&mut source, &units, false), Err(Stop::MissingFeature { .. })));
        assert_eq!(f("100%", &[]), "100");
    }
}
