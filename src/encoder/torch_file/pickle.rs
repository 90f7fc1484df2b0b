//! Reads the pickle of a PyTorch checkpoint as data. A pickle is a program that may call any function of Python; this
//! reader knows the opcodes for plain values and containers, and the few names that tensors consist of. It calls
//! nothing, and refuses everything else by its name.
//!
//! Values are in one list and refer to each other by their places in it, so neither nesting nor a value that contains
//! itself costs anything.

mod machine;

use std::{collections::BTreeMap, sync::Arc};

use frostbert_cache::wording::shorten;
use machine::PickleMachine;
use safetensors::Dtype as StoredType;

/// The longest name of a tensor or storage, in bytes.
const LONGEST_NAME: usize = 1000;

/// The place of a value in [`Unpickled::values`].
type ValuePlace = usize;

/// A value of a pickle.
#[derive(Debug)]
enum PickleValue {
    Nothing,
    Bool(bool),
    /// The first number of an old file has 77 bits.
    Int(i128),
    Float,
    Text(Arc<str>),
    Tuple(Vec<ValuePlace>),
    List(Vec<ValuePlace>),
    Dict(Vec<(ValuePlace, ValuePlace)>),
    Callable(Callable),
    Storage(TorchStorage),
    Tensor(TorchTensor),
}

/// The names that a pickle may mention, besides the types of storages.
#[derive(Clone, Copy, Debug)]
enum Callable {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(StoredType),
}

/// A run of numbers of one type that tensors are views of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TorchStorage {
    /// The name of its bytes in the file. It is shared, because a pickle of a few bytes may name it again.
    pub(super) key: Arc<str>,
    pub(super) dtype: StoredType,
    /// The number of its values.
    pub(super) length: usize,
}

impl TorchStorage {
    /// The number of its bytes; `None` if no file has that many.
    pub(super) fn n_bytes(&self) -> Option<usize> {
        self.length.checked_mul(self.dtype.bitsize() / 8)
    }
}

/// A tensor: a view of a storage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TorchTensor {
    pub(super) storage: TorchStorage,
    /// The number of values before the first.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    /// The number of values from one place to the next in each dimension.
    pub(super) strides: Vec<usize>,
}

/// What a pickle contains.
#[derive(Debug)]
pub(super) struct Unpickled {
    values: Vec<PickleValue>,
    root: ValuePlace,
    /// The number of bytes up to the end of the pickle.
    pub(super) n_bytes: usize,
}

impl Unpickled {
    /// Returns the tensors of a dictionary by their names.
    ///
    /// # Errors
    /// Describes what the pickle has in place of a dictionary of tensors.
    pub(super) fn tensors(&self) -> Result<BTreeMap<String, TorchTensor>, String> {
        let PickleValue::Dict(items) = &self.values[self.root] else {
            return Err(format!("{} in place of a dictionary of tensors", self.kind(self.root)));
        };
        let mut tensors = BTreeMap::new();
        for (name, value) in items {
            let PickleValue::Text(name) = &self.values[*name] else {
                return Err(format!("{} as the name of a tensor", self.kind(*name)));
            };
            require_short(name, "name of a tensor")?;
            let PickleValue::Tensor(tensor) = &self.values[*value] else {
                let kind = self.kind(*value);
                return Err(format!("{kind} as `{}`, in place of a tensor", shorten(name, 80)));
            };
            tensors.insert(name.to_string(), tensor.clone());
        }
        Ok(tensors)
    }

    /// Returns all storages that the pickle mentions.
    pub(super) fn storages(&self) -> impl Iterator<Item = &TorchStorage> {
        self.values.iter().filter_map(|value| match value {
            PickleValue::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// Returns the number that the pickle consists of.
    pub(super) fn number(&self) -> Option<i128> {
        match &self.values[self.root] {
            PickleValue::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns the strings of the list that the pickle consists of.
    pub(super) fn texts(&self) -> Option<Vec<&str>> {
        let PickleValue::List(items) = &self.values[self.root] else {
            return None;
        };
        let text = |item: &ValuePlace| match &self.values[*item] {
            PickleValue::Text(text) => Some(&**text),
            _ => None,
        };
        items.iter().map(text).collect()
    }

    /// Returns the truth value under a key of the dictionary that the pickle consists of.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        let PickleValue::Dict(items) = &self.values[self.root] else {
            return None;
        };
        let is_key = |place: ValuePlace| matches!(&self.values[place], PickleValue::Text(text) if **text == *key);
        let (_, value) = items.iter().find(|(name, _)| is_key(*name))?;
        match &self.values[*value] {
            PickleValue::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    fn kind(&self, place: ValuePlace) -> &'static str {
        kind_of(&self.values[place])
    }
}

fn kind_of(value: &PickleValue) -> &'static str {
    match value {
        PickleValue::Nothing => "None",
        PickleValue::Bool(_) => "a truth value",
        PickleValue::Int(_) | PickleValue::Float => "a number",
        PickleValue::Text(_) => "a string",
        PickleValue::Tuple(_) => "a tuple",
        PickleValue::List(_) => "a list",
        PickleValue::Dict(_) => "a dictionary",
        PickleValue::Callable(_) => "a function or type",
        PickleValue::Storage(_) => "a storage",
        PickleValue::Tensor(_) => "a tensor",
    }
}

fn require_short(name: &str, what: &str) -> Result<(), String> {
    if name.len() > LONGEST_NAME {
        return Err(format!("a {what} of {} bytes, above {LONGEST_NAME}", name.len()));
    }
    Ok(())
}

/// Reads the pickle at the start of `bytes`.
///
/// # Errors
/// Describes what is damaged, or is neither a tensor, a container nor a plain value.
pub(super) fn read(bytes: &[u8]) -> Result<Unpickled, String> {
    let mut machine = PickleMachine::new(bytes);
    let root = machine.run()?;
    Ok(Unpickled { n_bytes: machine.n_read(), values: machine.into_values(), root })
}

/// Returns what a name stands for, if it is on the list.
fn known(module: &str, name: &str) -> Result<Callable, String> {
    Ok(match (module, name) {
        ("collections", "OrderedDict") => Callable::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2") => Callable::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Callable::RebuildParameter,
        ("torch", "FloatStorage") => Callable::Storage(StoredType::F32),
        ("torch", "HalfStorage") => Callable::Storage(StoredType::F16),
        ("torch", "BFloat16Storage") => Callable::Storage(StoredType::BF16),
        ("torch", "DoubleStorage") => Callable::Storage(StoredType::F64),
        ("torch", "LongStorage") => Callable::Storage(StoredType::I64),
        ("torch", "IntStorage") => Callable::Storage(StoredType::I32),
        ("torch", "ShortStorage") => Callable::Storage(StoredType::I16),
        ("torch", "CharStorage") => Callable::Storage(StoredType::I8),
        ("torch", "ByteStorage") => Callable::Storage(StoredType::U8),
        ("torch", "BoolStorage") => Callable::Storage(StoredType::BOOL),
        _ => {
            let (module, name) = (shorten(module, 80), shorten(name, 80));
            return Err(format!("`{module}.{name}`, which no dictionary of tensors needs"));
        }
    })
}
