//! Device models of dirql: pulse, edu, ring, uart16550, stub.
//!
//! [`MODELS`] says which there are and which properties each takes; [`build`] makes one from the properties of a
//! lab file. Data sheets are in `docs/devices/`. What every device has in common (`interrupts`, `id`, `subsystem`,
//! `class`) is in `props`.

mod edu;
mod freedom;
mod props;
mod pulse;
mod ring;
mod stub;
mod uart;

use std::collections::BTreeMap;

use dirql_machine::Device;

pub use edu::Edu;
pub use props::{BuildError, PropValue};
pub use pulse::Pulse;
pub use ring::Ring;
pub use stub::Stub;
pub use uart::Uart;

/// A property a model takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PropDoc {
    /// Its key in a lab file.
    pub name: &'static str,
    /// The form of its value.
    pub form: &'static str,
    /// What it is when absent.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
}

/// A model that can be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Model {
    /// Its name in a lab file.
    pub name: &'static str,
    /// One line about it.
    pub doc: &'static str,
    /// Its own properties; [`COMMON`] ones come on top.
    pub props: &'static [PropDoc],
}

/// Properties every model takes.
pub const COMMON: &[PropDoc] = props::COMMON;

/// Every model.
pub const MODELS: &[Model] = &[pulse::MODEL, edu::MODEL, ring::MODEL, uart::MODEL, stub::MODEL];

/// Makes a device from a model's name and its properties.
///
/// # Errors
/// An unknown model or property, with the names that are valid; or a value that does not fit, with why.
pub fn build(model: &str, props: &BTreeMap<String, PropValue>) -> Result<Box<dyn Device>, BuildError> {
    let Some(found) = MODELS.iter().find(|m| m.name == model) else {
        let valid = MODELS.iter().map(|m| m.name).collect();
        return Err(BuildError::UnknownModel { model: model.to_string(), valid });
    };
    let valid: Vec<&'static str> = found.props.iter().chain(COMMON).map(|p| p.name).collect();
    if let Some(property) = props.keys().find(|k| !valid.contains(&k.as_str())) {
        return Err(BuildError::UnknownProperty { model: found.name, property: property.clone(), valid });
    }
    let props = props::Props(props);
    Ok(match found.name {
        "pulse" => Box::new(Pulse::build(&props)?),
        "edu" => Box::new(Edu::build(&props)?),
        "ring" => Box::new(Ring::build(&props)?),
        "uart16550" => Box::new(Uart::build(&props)?),
        _ => Box::new(Stub::build(&props)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_builds_with_no_properties() {
        for model in MODELS {
            let dev = build(model.name, &BTreeMap::new()).map_err(|e| e.to_string()).unwrap();
            assert_eq!(dev.model(), model.name);
        }
    }

    #[test]
    fn what_is_unknown_is_an_error_that_lists_what_is_valid() {
        let error = build("puls", &BTreeMap::new()).err().unwrap().to_string();
        assert!(error.contains("pulse, edu, ring, uart16550, stub"), "{error}");
        let props = BTreeMap::from([("arivals".to_string(), PropValue::Int(1))]);
        let error = build("pulse", &props).err().unwrap().to_string();
        assert!(error.contains("arivals") && error.contains("arrivals"), "{error}");
    }
}
