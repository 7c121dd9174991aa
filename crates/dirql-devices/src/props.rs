//! Properties from a lab file: typed access, and those that all models share.

use std::collections::BTreeMap;

use dirql_machine::{BarSpec, Interrupts, MsiSpec, PciIdentity};

use crate::PropDoc;

/// The value of a property.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PropValue {
    /// A number.
    Int(u64),
    /// True or false.
    Bool(bool),
    /// Text.
    Str(String),
    /// Several.
    List(Vec<PropValue>),
}

/// Why a device could not be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BuildError {
    /// There is no such model.
    UnknownModel {
        /// What was asked for.
        model: String,
        /// What there is.
        valid: Vec<&'static str>,
    },
    /// The model has no such property.
    UnknownProperty {
        /// The model.
        model: &'static str,
        /// What was asked for.
        property: String,
        /// What it has.
        valid: Vec<&'static str>,
    },
    /// The value does not fit.
    Value {
        /// The property.
        property: &'static str,
        /// Why, in words.
        reason: String,
    },
}

impl std::fmt::Display for BuildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BuildError::UnknownModel { model, valid } => {
                write!(f, "there is no device model `{model}`; there are {}", valid.join(", "))
            }
            BuildError::UnknownProperty { model, property, valid } => {
                write!(f, "`{model}` has no property `{property}`; it has {}", valid.join(", "))
            }
            BuildError::Value { property, reason } => write!(f, "`{property}`: {reason}"),
        }
    }
}

impl std::error::Error for BuildError {}

pub(crate) const COMMON: &[PropDoc] = &[
    PropDoc {
        name: "interrupts",
        form: "\"line\", \"msi:N\", \"msix:N\" or \"none\"",
        default: "the model's",
        doc: "What the hardware offers. With messages the device has its pin INTA too.",
    },
    PropDoc {
        name: "id",
        form: "\"vvvv:dddd\"",
        default: "the model's",
        doc: "Vendor and device id, in hexadecimal.",
    },
    PropDoc {
        name: "subsystem",
        form: "\"vvvv:dddd\"",
        default: "the model's",
        doc: "Subsystem vendor and id.",
    },
    PropDoc {
        name: "bars",
        form: "list of sizes",
        default: "the model's",
        doc: "Sizes of its memory BARs: as large as the model's or larger, and more of them.",
    },
    PropDoc { name: "class", form: "0xCCSSII", default: "the model's", doc: "Class, subclass, interface." },
];

pub(crate) fn bad(property: &'static str, reason: impl Into<String>) -> BuildError {
    BuildError::Value { property, reason: reason.into() }
}

/// The properties of one device.
pub(crate) struct Props<'a>(pub(crate) &'a BTreeMap<String, PropValue>);

impl Props<'_> {
    pub(crate) fn get(&self, name: &'static str) -> Option<&PropValue> {
        self.0.get(name)
    }

    pub(crate) fn int(&self, name: &'static str, most: u64) -> Result<Option<u64>, BuildError> {
        match self.get(name) {
            None => Ok(None),
            Some(PropValue::Int(n)) if *n <= most => Ok(Some(*n)),
            Some(PropValue::Int(n)) => Err(bad(name, format!("{n} is more than {most}"))),
            Some(_) => Err(bad(name, "a number is wanted")),
        }
    }

    pub(crate) fn flag(&self, name: &'static str) -> Result<Option<bool>, BuildError> {
        match self.get(name) {
            None => Ok(None),
            Some(PropValue::Bool(b)) => Ok(Some(*b)),
            Some(_) => Err(bad(name, "true or false is wanted")),
        }
    }

    pub(crate) fn text(&self, name: &'static str) -> Result<Option<&str>, BuildError> {
        match self.get(name) {
            None => Ok(None),
            Some(PropValue::Str(s)) => Ok(Some(s)),
            Some(_) => Err(bad(name, "text is wanted")),
        }
    }

    /// Numbers, at most `most` of them. One number alone is a list of one.
    pub(crate) fn ints(&self, name: &'static str, most: usize) -> Result<Option<Vec<u64>>, BuildError> {
        let list = match self.get(name) {
            None => return Ok(None),
            Some(PropValue::Int(n)) => return Ok(Some(vec![*n])),
            Some(PropValue::List(list)) => list,
            Some(_) => return Err(bad(name, "a list of numbers is wanted")),
        };
        if list.len() > most {
            return Err(bad(name, format!("{} numbers; at most {most} are taken", list.len())));
        }
        let number = |v: &PropValue| match v {
            PropValue::Int(n) => Ok(*n),
            _ => Err(bad(name, "a list of numbers is wanted")),
        };
        list.iter().map(number).collect::<Result<_, _>>().map(Some)
    }

    fn pair(&self, name: &'static str) -> Result<Option<(u16, u16)>, BuildError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let half = |s: &str| u16::from_str_radix(s, 16).ok();
        let pair = text.split_once(':').and_then(|(a, b)| Some((half(a)?, half(b)?)));
        pair.map(Some).ok_or_else(|| bad(name, format!("`{text}` is not of the form 1234:abcd")))
    }

    fn interrupts(&self) -> Result<Option<Interrupts>, BuildError> {
        const NAME: &str = "interrupts";
        let Some(text) = self.text(NAME)? else { return Ok(None) };
        let (kind, count) = text.split_once(':').map_or((text, None), |(k, n)| (k, Some(n)));
        let number: u16 = match count {
            None => 1,
            Some(n) => n.parse().map_err(|_| bad(NAME, format!("`{n}` is not a count")))?,
        };
        Ok(Some(match kind {
            "none" if count.is_none() => Interrupts::none(),
            "line" if number == 1 => Interrupts::line(),
            "line" => return Err(bad(NAME, "a PCI function has one line")),
            "msi" => {
                if !number.is_power_of_two() || number > 32 {
                    return Err(bad(NAME, "MSI has 1, 2, 4, 8, 16 or 32 messages"));
                }
                Interrupts {
                    pin: true,
                    msi: Some(MsiSpec { messages: number as u8, maskable: false }),
                    msix: None,
                }
            }
            "msix" if (1..=2048).contains(&number) => Interrupts::msix(number),
            "msix" => return Err(bad(NAME, "an MSI-X table has 1 to 2048 entries")),
            _ => return Err(bad(NAME, format!("`{text}` is none of line, msi:N, msix:N, none"))),
        }))
    }

    /// A model's identity with what the lab file overrides.
    pub(crate) fn identity(&self, own: PciIdentity) -> Result<PciIdentity, BuildError> {
        let (vendor, device) = self.pair("id")?.unwrap_or((own.vendor, own.device));
        let mut bars = own.bars;
        for (i, bar) in self.bars("bars")?.into_iter().flatten().enumerate() {
            match (bars.get_mut(i), bar) {
                (None, bar) => bars.push(bar),
                (Some(BarSpec::Memory { len, .. }), BarSpec::Memory { len: new, .. }) if new >= *len => {
                    *len = new;
                }
                (Some(own), _) => {
                    return Err(bad("bars", format!("BAR {i} of the model is {own:?}; it can only grow")));
                }
            }
        }
        Ok(PciIdentity {
            vendor,
            device,
            subsystem: self.pair("subsystem")?.unwrap_or(own.subsystem),
            class: self.int("class", 0xff_ffff)?.map_or(own.class, |c| c as u32),
            bars,
            interrupts: self.interrupts()?.unwrap_or(own.interrupts),
            ..own
        })
    }

    /// The sizes of memory BARs, from a list of numbers.
    pub(crate) fn bars(&self, name: &'static str) -> Result<Option<Vec<BarSpec>>, BuildError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let PropValue::List(list) = value else { return Err(bad(name, "a list of sizes is wanted")) };
        let mut bars = Vec::new();
        for size in list {
            let PropValue::Int(len) = size else { return Err(bad(name, "a size is a number of bytes")) };
            let bar = BarSpec::memory(*len);
            if !bar.valid() {
                return Err(bad(name, format!("{len} is not a power of two from 16 bytes to 256 MiB")));
            }
            bars.push(bar);
        }
        Ok(Some(bars))
    }
}
