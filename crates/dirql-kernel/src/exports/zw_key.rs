//! Registry keys: the Zw routines of the configuration manager.
//!
//! After the Microsoft pages of each routine and of the KEY_ and KEY_VALUE_ information structures. Kernel-mode callers
//! are not checked for access. Left out: symbolic links between keys, notification, transactions, KeyFlagsInformation.

use crate::context::{Result, ret};
use crate::cx::Cx;
use crate::exports;
use crate::io::read_unicode;
use crate::registry::{KeyId, Registry, RegistryError, Value};
use crate::stop::Stop;
use crate::timer::system_time;

pub(crate) const INVALID_HANDLE: u64 = 0xC000_0008;
pub(crate) const INVALID_PARAMETER: u64 = 0xC000_000D;
pub(crate) const BUFFER_TOO_SMALL: u64 = 0xC000_0023;
pub(crate) const BUFFER_OVERFLOW: u64 = 0x8000_0005;
pub(crate) const NAME_NOT_FOUND: u64 = 0xC000_0034;
const OBJECT_NAME_INVALID: u64 = 0xC000_0033;
const PATH_SYNTAX_BAD: u64 = 0xC000_003B;
const NO_MORE_ENTRIES: u64 = 0x8000_001A;
const CANNOT_DELETE: u64 = 0xC000_0121;
const KEY_DELETED: u64 = 0xC000_017C;
const INSUFFICIENT_RESOURCES: u64 = 0xC000_009A;

type Res<T> = std::result::Result<T, Stop>;

/// The status that a refusal of the registry is.
pub(crate) fn status_of(e: RegistryError) -> u64 {
    match e {
        RegistryError::NotFound => NAME_NOT_FOUND,
        RegistryError::KeyDeleted => KEY_DELETED,
        RegistryError::BadName => OBJECT_NAME_INVALID,
        RegistryError::CannotDelete => CANNOT_DELETE,
        RegistryError::Full => INSUFFICIENT_RESOURCES,
    }
}

/// The key of an open handle, if it still exists.
pub(crate) fn by_handle(cx: &Cx<'_>, handle: u64) -> std::result::Result<KeyId, u64> {
    let key = cx.k.registry.by_handle(handle).ok_or(INVALID_HANDLE)?;
    if cx.k.registry.exists(key) { Ok(key) } else { Err(KEY_DELETED) }
}

/// Opens a handle to a key and stores it.
pub(crate) fn give_handle(cx: &mut Cx<'_>, key: KeyId, out: u64) -> Result {
    match cx.k.registry.open_handle(key) {
        Ok(handle) => {
            cx.w64(out, handle)?;
            ret(0)
        }
        Err(e) => ret(status_of(e)),
    }
}

/// Sets a value and the key's time.
pub(crate) fn set_value(cx: &mut Cx<'_>, key: KeyId, name: &str, kind: u32, data: &[u8]) -> u64 {
    let now = system_time(cx);
    match cx.k.registry.set(key, name, kind, data) {
        Ok(()) => {
            cx.k.registry.touch(key, now);
            0
        }
        Err(e) => status_of(e),
    }
}

/// Where OBJECT_ATTRIBUTES point: the key to start at and the path from there, or why they are wrong.
fn place(cx: &Cx<'_>, attributes: u64) -> Res<std::result::Result<(KeyId, String), u64>> {
    // Length, RootDirectory at 8, ObjectName at 16.
    if cx.r32(attributes)? != 48 {
        return Ok(Err(INVALID_PARAMETER));
    }
    let (root, name) = (cx.r64(attributes + 8)?, cx.r64(attributes + 16)?);
    let path = if name == 0 { String::new() } else { read_unicode(cx, name)? };
    if root != 0 {
        return Ok(match by_handle(cx, root) {
            Err(status) => Err(status),
            Ok(_) if path.starts_with('\\') => Err(PATH_SYNTAX_BAD),
            Ok(key) => Ok((key, path)),
        });
    }
    if !path.starts_with('\\') {
        return Ok(Err(PATH_SYNTAX_BAD));
    }
    Ok(Ok((Registry::ROOT, path)))
}

fn open(cx: &mut Cx<'_>, out: u64, attributes: u64) -> Result {
    let (base, path) = match place(cx, attributes)? {
        Ok(p) => p,
        Err(status) => return ret(status),
    };
    match cx.k.registry.key_under(base, &path) {
        Some(key) => give_handle(cx, key, out),
        None => ret(NAME_NOT_FOUND),
    }
}

/// Creates the last key of a path; those above it must exist. True if it is new.
pub(crate) fn create_last(
    cx: &mut Cx<'_>,
    base: KeyId,
    path: &str,
) -> std::result::Result<(KeyId, bool), u64> {
    let path = path.trim_end_matches('\\');
    let (above, name) = path.rsplit_once('\\').unwrap_or(("", path));
    let parent = cx.k.registry.key_under(base, above).ok_or(NAME_NOT_FOUND)?;
    // Nobody makes keys beside \Registry's hives.
    if parent == Registry::ROOT && cx.k.registry.key_under(parent, name).is_none() {
        return Err(NAME_NOT_FOUND);
    }
    let (key, new) = cx.k.registry.create(parent, name).map_err(status_of)?;
    if new {
        let now = system_time(cx);
        cx.k.registry.touch(key, now);
        cx.k.registry.touch(parent, now);
    }
    Ok((key, new))
}

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Gives an information structure as the routines do: `fixed` bytes must fit, the rest as far as there is room.
pub(crate) fn give(
    cx: &mut Cx<'_>,
    data: &[u8],
    fixed: usize,
    buffer: u64,
    length: u32,
    needed: u64,
) -> Result {
    let length = length as usize;
    cx.w32(needed, data.len() as u32)?;
    if length < fixed {
        return ret(BUFFER_TOO_SMALL);
    }
    cx.put(buffer, &data[..data.len().min(length)])?;
    ret(if length < data.len() { BUFFER_OVERFLOW } else { 0 })
}

/// KEY_VALUE_*_INFORMATION and the size of its fixed part.
fn value_information(value: &Value, class: u32) -> Option<(Vec<u8>, usize)> {
    let name = wide(&value.name);
    let (kind, data) = (value.kind.to_le_bytes(), &value.data);
    let (size, length) = ((data.len() as u32).to_le_bytes(), (name.len() as u32).to_le_bytes());
    let mut out = vec![];
    let fixed = match class {
        // KeyValueBasicInformation.
        0 => {
            out.extend([0; 4]);
            out.extend(kind);
            out.extend(length);
            out.extend(name);
            12
        }
        // KeyValueFullInformation and its form with data aligned to 8 bytes.
        1 | 3 => {
            let align = if class == 1 { 4 } else { 8 };
            let offset = (20 + name.len()).next_multiple_of(align);
            out.extend([0; 4]);
            out.extend(kind);
            // An empty value has no offset.
            out.extend(if data.is_empty() { [0xff; 4] } else { (offset as u32).to_le_bytes() });
            out.extend(size);
            out.extend(length);
            out.extend(name);
            if !data.is_empty() {
                out.resize(offset, 0);
                out.extend(data);
            }
            20
        }
        // KeyValuePartialInformation.
        2 => {
            out.extend([0; 4]);
            out.extend(kind);
            out.extend(size);
            out.extend(data);
            12
        }
        // KeyValuePartialInformationAlign64 has no title index.
        4 => {
            out.extend(kind);
            out.extend(size);
            out.extend(data);
            8
        }
        _ => return None,
    };
    Some((out, fixed))
}

fn query_value(cx: &mut Cx<'_>, key: KeyId, index: Option<u32>, name: &str, q: [u64; 4]) -> Result {
    let [class, buffer, length, needed] = q;
    let found = match index {
        Some(i) => cx.k.registry.values(key).nth(i as usize),
        None => cx.k.registry.value(key, name),
    };
    let Some(value) = found.cloned() else {
        return ret(if index.is_some() { NO_MORE_ENTRIES } else { NAME_NOT_FOUND });
    };
    match value_information(&value, class as u32) {
        Some((data, fixed)) => give(cx, &data, fixed, buffer, length as u32, needed),
        None if class == 5 => Err(cx.missing("KeyValueLayerInformation")),
        None => ret(INVALID_PARAMETER),
    }
}

/// KEY_*_INFORMATION of a key and the size of its fixed part.
fn key_information(r: &Registry, key: KeyId, class: u32) -> Option<(Vec<u8>, usize)> {
    let (name, key_class) = (wide(r.name(key)?), wide(r.class(key)));
    let u32s = |out: &mut Vec<u8>, values: &[usize]| {
        for &v in values {
            out.extend((v as u32).to_le_bytes());
        }
    };
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
    let max_name = longest(&mut r.subkeys(key).filter_map(|k| r.name(k)).map(|n| wide(n).len()));
    let max_class = longest(&mut r.subkeys(key).map(|k| wide(r.class(k)).len()));
    let max_value = longest(&mut r.values(key).map(|v| wide(&v.name).len()));
    let max_data = longest(&mut r.values(key).map(|v| v.data.len()));
    let (subkeys, values) = (r.subkeys(key).len(), r.values(key).len());
    let mut out = r.written(key).to_le_bytes().to_vec();
    let none = u32::MAX as usize;
    let fixed = match class {
        // KeyBasicInformation.
        0 => {
            u32s(&mut out, &[0, name.len()]);
            out.extend(name);
            16
        }
        // KeyNodeInformation: the class after the name, aligned.
        1 => {
            let offset = (24 + name.len()).next_multiple_of(4);
            let at = if key_class.is_empty() { none } else { offset };
            u32s(&mut out, &[0, at, key_class.len(), name.len()]);
            out.extend(name);
            if !key_class.is_empty() {
                out.resize(offset, 0);
                out.extend(key_class);
            }
            24
        }
        // KeyFullInformation.
        2 => {
            let at = if key_class.is_empty() { none } else { 44 };
            u32s(
                &mut out,
                &[0, at, key_class.len(), subkeys, max_name, max_class, values, max_value, max_data],
            );
            out.extend(key_class);
            44
        }
        // KeyNameInformation: the absolute path.
        3 => {
            let path = wide(&r.path(key)?);
            out.clear();
            u32s(&mut out, &[path.len()]);
            out.extend(path);
            4
        }
        // KeyCachedInformation, padded to a multiple of 8.
        4 => {
            u32s(&mut out, &[0, subkeys, max_name, values, max_value, max_data, name.len(), 0]);
            40
        }
        // KeyVirtualizationInformation and KeyHandleTagsInformation: nothing is virtual or tagged.
        6 | 7 => {
            out.clear();
            u32s(&mut out, &[0]);
            4
        }
        _ => return None,
    };
    Some((out, fixed))
}

fn query_key(cx: &mut Cx<'_>, key: KeyId, class: u32, buffer: u64, length: u32, needed: u64) -> Result {
    match key_information(&cx.k.registry, key, class) {
        Some((data, fixed)) => give(cx, &data, fixed, buffer, length, needed),
        None if matches!(class, 5 | 8 | 9) => Err(cx.missing(format!("key information class {class}"))),
        None => ret(INVALID_PARAMETER),
    }
}

/// The key of a handle, or the status to return.
macro_rules! key {
    ($cx:ident, $handle:expr) => {
        match by_handle($cx, $handle) {
            Ok(key) => key,
            Err(status) => return ret(status),
        }
    };
}

exports! {
    [0] fn ZwOpenKey(cx, out: u64, _access: u32, attributes: u64) { open(cx, out, attributes) }
    [0] fn ZwOpenKeyEx(cx, out: u64, _access: u32, attributes: u64, options: u32) {
        // REG_OPTION_BACKUP_RESTORE and REG_OPTION_OPEN_LINK change nothing for a key that is no link.
        if options & !0xc != 0 {
            return ret(INVALID_PARAMETER);
        }
        open(cx, out, attributes)
    }
    [0] fn ZwCreateKey(
        cx, out: u64, _access: u32, attributes: u64, _title: u32, class: u64, options: u32, disposition: u64
    ) {
        // REG_OPTION_CREATE_LINK.
        if options & 2 != 0 {
            return Err(cx.missing("a symbolic link between registry keys"));
        }
        let (base, path) = match place(cx, attributes)? {
            Ok(p) => p,
            Err(status) => return ret(status),
        };
        let (key, new) = if path.is_empty() {
            (base, false)
        } else {
            match create_last(cx, base, &path) {
                Ok(made) => made,
                Err(status) => return ret(status),
            }
        };
        if new && class != 0 {
            let text = read_unicode(cx, class)?;
            cx.k.registry.set_class(key, &text);
        }
        if disposition != 0 {
            // REG_CREATED_NEW_KEY or REG_OPENED_EXISTING_KEY.
            cx.w32(disposition, if new { 1 } else { 2 })?;
        }
        give_handle(cx, key, out)
    }
    [0] fn ZwQueryValueKey(cx, handle: u64, name: u64, class: u32, buffer: u64, length: u32, needed: u64) {
        let key = key!(cx, handle);
        let name = read_unicode(cx, name)?;
        query_value(cx, key, None, &name, [u64::from(class), buffer, u64::from(length), needed])
    }
    [0] fn ZwEnumerateValueKey(cx, handle: u64, index: u32, class: u32, buffer: u64, length: u32, needed: u64) {
        let key = key!(cx, handle);
        query_value(cx, key, Some(index), "", [u64::from(class), buffer, u64::from(length), needed])
    }
    [0] fn ZwSetValueKey(cx, handle: u64, name: u64, _title: u32, kind: u32, data: u64, size: u32) {
        let key = key!(cx, handle);
        let name = read_unicode(cx, name)?;
        let data = cx.bytes(data, size as usize)?;
        ret(set_value(cx, key, &name, kind, &data))
    }
    [0] fn ZwDeleteValueKey(cx, handle: u64, name: u64) {
        let key = key!(cx, handle);
        let name = read_unicode(cx, name)?;
        let now = system_time(cx);
        match cx.k.registry.delete_value(key, &name) {
            Ok(()) => {
                cx.k.registry.touch(key, now);
                ret(0)
            }
            Err(e) => ret(status_of(e)),
        }
    }
    [0] fn ZwEnumerateKey(cx, handle: u64, index: u32, class: u32, buffer: u64, length: u32, needed: u64) {
        let key = key!(cx, handle);
        if class > 2 {
            return ret(INVALID_PARAMETER);
        }
        let Some(child) = cx.k.registry.subkeys(key).nth(index as usize) else { return ret(NO_MORE_ENTRIES) };
        query_key(cx, child, class, buffer, length, needed)
    }
    [0] fn ZwQueryKey(cx, handle: u64, class: u32, buffer: u64, length: u32, needed: u64) {
        let key = key!(cx, handle);
        query_key(cx, key, class, buffer, length, needed)
    }
    [0] fn ZwDeleteKey(cx, handle: u64) {
        let key = key!(cx, handle);
        let (now, parent) = (system_time(cx), cx.k.registry.parent(key));
        match cx.k.registry.delete_key(key) {
            Ok(()) => {
                if let Some(parent) = parent {
                    cx.k.registry.touch(parent, now);
                }
                ret(0)
            }
            Err(e) => ret(status_of(e)),
        }
    }
    // Nothing is ever lazy here, so there is nothing to write.
    [0] fn ZwFlushKey(cx, handle: u64) {
        let _ = key!(cx, handle);
        ret(0)
    }
}
