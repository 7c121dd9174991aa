//! The registry: a tree of keys with typed values, in memory only.
//!
//! Names compare without case, as the configuration manager does; enumeration is in name order, so a run is the same
//! every time. Left out: security, symbolic links, notifications, hives on disk.

use std::collections::BTreeMap;

/// REG_SZ.
pub const REG_SZ: u32 = 1;
/// REG_EXPAND_SZ.
pub const REG_EXPAND_SZ: u32 = 2;
/// REG_BINARY.
pub const REG_BINARY: u32 = 3;
/// REG_DWORD.
pub const REG_DWORD: u32 = 4;
/// REG_NONE.
pub const REG_NONE: u32 = 0;
/// REG_QWORD.
pub const REG_QWORD: u32 = 11;
/// REG_MULTI_SZ.
pub const REG_MULTI_SZ: u32 = 7;

const MAX_BYTES: usize = 64 << 20;
const MAX_KEYS: usize = 1 << 16;
const MAX_HANDLES: usize = 1 << 16;
const FIRST_HANDLE: u64 = 0x8000_0000;

/// Number of a key; never used again after the key's deletion.
pub type KeyId = u32;

/// Why a change was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryError {
    /// No such key or value.
    NotFound,
    /// The key was deleted while it was open.
    KeyDeleted,
    /// A path or name that no key can have.
    BadName,
    /// The key has subkeys, or is the root.
    CannotDelete,
    /// The registry's limit is reached.
    Full,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Name as written when it was first set; empty for the default value.
    pub name: String,
    /// REG_ type.
    pub kind: u32,
    /// Data; strings are UTF-16LE with their terminator.
    pub data: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Key {
    name: String,
    class: String,
    written: u64,
    parent: Option<KeyId>,
    children: BTreeMap<String, KeyId>,
    values: BTreeMap<String, Value>,
}

/// The registry.
#[derive(Clone, Debug)]
pub struct Registry {
    keys: BTreeMap<KeyId, Key>,
    next: KeyId,
    bytes: usize,
    handles: BTreeMap<u64, KeyId>,
}

impl Default for Registry {
    fn default() -> Self {
        let root = Key {
            name: String::new(),
            class: String::new(),
            written: 0,
            parent: None,
            children: BTreeMap::new(),
            values: BTreeMap::new(),
        };
        Self { keys: BTreeMap::from([(0, root)]), next: 1, bytes: 0, handles: BTreeMap::new() }
    }
}

fn fold(name: &str) -> String {
    name.to_uppercase()
}

/// UTF-16LE bytes of a string with its terminator, as REG_SZ data has them.
#[must_use]
pub fn sz(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

impl Registry {
    /// The root, above `\Registry`.
    pub const ROOT: KeyId = 0;

    /// The key at an absolute path such as `\Registry\Machine\System`.
    #[must_use]
    pub fn key(&self, path: &str) -> Option<KeyId> {
        self.key_under(Self::ROOT, path)
    }

    /// The key at a path under another key; the empty path is the key itself.
    #[must_use]
    pub fn key_under(&self, base: KeyId, path: &str) -> Option<KeyId> {
        let mut at = base;
        self.keys.get(&at)?;
        for part in path.split('\\').filter(|p| !p.is_empty()) {
            at = *self.keys.get(&at)?.children.get(&fold(part))?;
        }
        Some(at)
    }

    /// Creates a key and those above it that are missing; true if the key is new.
    ///
    /// # Errors
    /// The base is deleted, a name is too long, or the registry is full.
    pub fn create(&mut self, base: KeyId, path: &str) -> Result<(KeyId, bool), RegistryError> {
        let mut at = base;
        let mut new = false;
        for part in path.split('\\').filter(|p| !p.is_empty()) {
            if part.encode_utf16().count() > 255 {
                return Err(RegistryError::BadName);
            }
            let folded = fold(part);
            new = false;
            let key = self.keys.get(&at).ok_or(RegistryError::KeyDeleted)?;
            at = if let Some(&child) = key.children.get(&folded) {
                child
            } else {
                if self.keys.len() >= MAX_KEYS {
                    return Err(RegistryError::Full);
                }
                new = true;
                let id = self.next;
                self.next = self.next.checked_add(1).ok_or(RegistryError::Full)?;
                let child = Key {
                    name: part.to_owned(),
                    class: String::new(),
                    written: 0,
                    parent: Some(at),
                    children: BTreeMap::new(),
                    values: BTreeMap::new(),
                };
                self.keys.insert(id, child);
                if let Some(parent) = self.keys.get_mut(&at) {
                    parent.children.insert(folded, id);
                }
                id
            };
        }
        if self.keys.contains_key(&at) { Ok((at, new)) } else { Err(RegistryError::KeyDeleted) }
    }

    /// Sets a value of a key at an absolute path, creating the key.
    ///
    /// # Errors
    /// As [`Registry::create`].
    pub fn set_value(&mut self, path: &str, name: &str, kind: u32, data: &[u8]) -> Result<(), RegistryError> {
        let (key, _) = self.create(Self::ROOT, path)?;
        self.set(key, name, kind, data)
    }

    /// Sets a value.
    ///
    /// # Errors
    /// The key is deleted, or the registry is full.
    pub fn set(&mut self, key: KeyId, name: &str, kind: u32, data: &[u8]) -> Result<(), RegistryError> {
        let values = &mut self.keys.get_mut(&key).ok_or(RegistryError::KeyDeleted)?.values;
        let old = values.get(&fold(name)).map_or(0, |v| v.data.len() + v.name.len());
        let bytes = self.bytes - old + data.len() + name.len();
        if bytes > MAX_BYTES || (old == 0 && values.len() >= MAX_KEYS) {
            return Err(RegistryError::Full);
        }
        self.bytes = bytes;
        let value = values.entry(fold(name)).or_insert_with(|| Value {
            name: name.to_owned(),
            kind,
            data: Vec::new(),
        });
        value.kind = kind;
        value.data = data.to_vec();
        Ok(())
    }

    /// A value of a key.
    #[must_use]
    pub fn value(&self, key: KeyId, name: &str) -> Option<&Value> {
        self.keys.get(&key)?.values.get(&fold(name))
    }

    /// The values of a key, in name order; none if it is deleted.
    pub fn values(&self, key: KeyId) -> impl ExactSizeIterator<Item = &Value> + use<'_> {
        static NONE: BTreeMap<String, Value> = BTreeMap::new();
        self.keys.get(&key).map_or(&NONE, |k| &k.values).values()
    }

    /// The subkeys of a key, in name order; none if it is deleted.
    pub fn subkeys(&self, key: KeyId) -> impl ExactSizeIterator<Item = KeyId> + use<'_> {
        static NONE: BTreeMap<String, KeyId> = BTreeMap::new();
        self.keys.get(&key).map_or(&NONE, |k| &k.children).values().copied()
    }

    /// The last component of a key's path.
    #[must_use]
    pub fn name(&self, key: KeyId) -> Option<&str> {
        Some(&self.keys.get(&key)?.name)
    }

    /// The absolute path of a key.
    #[must_use]
    pub fn path(&self, key: KeyId) -> Option<String> {
        let mut parts = Vec::new();
        let mut at = self.keys.get(&key)?;
        while let Some(parent) = at.parent {
            parts.push(at.name.as_str());
            at = self.keys.get(&parent)?;
        }
        Some(parts.iter().rev().map(|p| format!("\\{p}")).collect())
    }

    /// The class that a key's maker gave it; empty for most.
    #[must_use]
    pub fn class(&self, key: KeyId) -> &str {
        self.keys.get(&key).map_or("", |k| &k.class)
    }

    /// Gives a key a class.
    pub fn set_class(&mut self, key: KeyId, class: &str) {
        if let Some(k) = self.keys.get_mut(&key) {
            class.clone_into(&mut k.class);
        }
    }

    /// When a key was last written, in 100 ns units since 1601; 0 for what was there before the run.
    #[must_use]
    pub fn written(&self, key: KeyId) -> u64 {
        self.keys.get(&key).map_or(0, |k| k.written)
    }

    /// Notes that a key was written now.
    pub fn touch(&mut self, key: KeyId, now: u64) {
        if let Some(k) = self.keys.get_mut(&key) {
            k.written = now;
        }
    }

    /// The key above another.
    #[must_use]
    pub fn parent(&self, key: KeyId) -> Option<KeyId> {
        self.keys.get(&key)?.parent
    }

    /// Does the key still exist?
    #[must_use]
    pub fn exists(&self, key: KeyId) -> bool {
        self.keys.contains_key(&key)
    }

    /// Deletes a value.
    ///
    /// # Errors
    /// There is none of that name, or the key is deleted.
    pub fn delete_value(&mut self, key: KeyId, name: &str) -> Result<(), RegistryError> {
        let key = self.keys.get_mut(&key).ok_or(RegistryError::KeyDeleted)?;
        let old = key.values.remove(&fold(name)).ok_or(RegistryError::NotFound)?;
        self.bytes -= old.data.len() + old.name.len();
        Ok(())
    }

    /// Deletes a key that has no subkeys, with its values.
    ///
    /// # Errors
    /// It has subkeys, is the root, or is deleted already.
    pub fn delete_key(&mut self, key: KeyId) -> Result<(), RegistryError> {
        let node = self.keys.get(&key).ok_or(RegistryError::KeyDeleted)?;
        let Some(parent) = node.parent.filter(|_| node.children.is_empty()) else {
            return Err(RegistryError::CannotDelete);
        };
        let folded = fold(&node.name);
        self.bytes -= node.values.values().map(|v| v.data.len() + v.name.len()).sum::<usize>();
        self.keys.remove(&key);
        if let Some(parent) = self.keys.get_mut(&parent) {
            parent.children.remove(&folded);
        }
        Ok(())
    }

    /// Opens a handle to a key; the lowest free one, as multiples of 4 from 0x80000000.
    ///
    /// # Errors
    /// There are too many open handles.
    pub fn open_handle(&mut self, key: KeyId) -> Result<u64, RegistryError> {
        if self.handles.len() >= MAX_HANDLES {
            return Err(RegistryError::Full);
        }
        let mut handle = FIRST_HANDLE;
        for &used in self.handles.keys() {
            if used != handle {
                break;
            }
            handle += 4;
        }
        self.handles.insert(handle, key);
        Ok(handle)
    }

    /// The key of an open handle, which may have been deleted since.
    #[must_use]
    pub fn by_handle(&self, handle: u64) -> Option<KeyId> {
        self.handles.get(&handle).copied()
    }

    /// Closes a handle; false if it is none of the registry's.
    pub fn close_handle(&mut self, handle: u64) -> bool {
        self.handles.remove(&handle).is_some()
    }

    /// Open handles and their keys: what a driver leaks when nothing should be left.
    pub fn open_handles(&self) -> impl Iterator<Item = (u64, KeyId)> + '_ {
        self.handles.iter().map(|(&h, &k)| (h, k))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_without_case_and_keep_their_case() {
        let mut r = Registry::default();
        r.set_value(r"\Registry\Machine\System\X", "Start", REG_DWORD, &3u32.to_le_bytes()).unwrap();
        let key = r.key(r"\REGISTRY\machine\SYSTEM\x").unwrap();
        assert_eq!(r.value(key, "sTART").unwrap().data, [3, 0, 0, 0]);
        r.set(key, "START", REG_DWORD, &[4, 0, 0, 0]).unwrap();
        assert_eq!(r.values(key).len(), 1);
        assert_eq!(r.value(key, "start").unwrap().name, "Start");
        assert_eq!(r.path(key).unwrap(), r"\Registry\Machine\System\X");
    }

    #[test]
    fn deletion_keeps_the_tree_sound() {
        let mut r = Registry::default();
        let (a, new) = r.create(Registry::ROOT, r"\A").unwrap();
        assert!(new);
        let (b, _) = r.create(a, "B").unwrap();
        assert!(!r.create(a, "b").unwrap().1);
        assert_eq!(r.delete_key(a), Err(RegistryError::CannotDelete));
        let h = r.open_handle(b).unwrap();
        r.delete_key(b).unwrap();
        assert_eq!(r.set(r.by_handle(h).unwrap(), "x", REG_SZ, &[]), Err(RegistryError::KeyDeleted));
        assert!(r.close_handle(h) && !r.close_handle(h));
        r.delete_key(a).unwrap();
        assert_eq!(r.delete_key(Registry::ROOT), Err(RegistryError::CannotDelete));
    }

    #[test]
    fn handles_are_multiples_of_four_and_reused_lowest_first() {
        let mut r = Registry::default();
        let hs: Vec<u64> = (0..3).map(|_| r.open_handle(Registry::ROOT).unwrap()).collect();
        assert_eq!(hs, [0x8000_0000, 0x8000_0004, 0x8000_0008]);
        r.close_handle(hs[1]);
        assert_eq!(r.open_handle(Registry::ROOT).unwrap(), hs[1]);
    }
}
