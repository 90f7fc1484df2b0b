//! The stack machine that a pickle is a program for.

use std::{collections::HashMap, sync::Arc};

use super::{
    Callable, PickleValue, TorchStorage, TorchTensor, ValuePlace, kind_of, known, require_short,
};

/// The largest pickle that is read, in bytes; those of real checkpoints have a few hundred bytes per tensor.
const MOST_BYTES: usize = 4 << 20;

/// The largest number of values that are put on the stack, of marks, and of places in the memo. Each takes about 100
/// bytes of memory. A tensor of a checkpoint takes 21 values in at least 100 bytes, so `MOST_BYTES` have fewer than this.
const MOST_VALUES: usize = 1 << 20;

/// The largest number of dimensions of a tensor.
const MOST_DIMENSIONS: usize = 8;

/// The state of the machine.
pub(super) struct PickleMachine<'p> {
    bytes: &'p [u8],
    /// Whether the pickle may go on behind `bytes`.
    is_cut: bool,
    /// The place of the next byte.
    at: usize,
    values: Vec<PickleValue>,
    stack: Vec<ValuePlace>,
    /// The number of values that were put on the stack so far, new ones and others again.
    n_put: usize,
    /// The heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u32, ValuePlace>,
}

impl<'p> PickleMachine<'p> {
    /// Sets up the machine for the pickle at the start of `bytes`.
    pub(super) fn new(bytes: &'p [u8]) -> PickleMachine<'p> {
        PickleMachine {
            bytes: &bytes[..bytes.len().min(MOST_BYTES)],
            is_cut: bytes.len() > MOST_BYTES,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            n_put: 0,
            marks: Vec::new(),
            memo: HashMap::new(),
        }
    }

    /// Runs the pickle to its end. Returns the place of the value that it made.
    pub(super) fn run(&mut self) -> Result<ValuePlace, String> {
        loop {
            match self.byte()? {
                // STOP
                b'.' => return self.pop(),
                opcode => self.step(opcode)?,
            }
        }
    }

    /// Returns the number of bytes that were read.
    pub(super) fn n_read(&self) -> usize {
        self.at
    }

    /// Returns all values that were made.
    pub(super) fn into_values(self) -> Vec<PickleValue> {
        self.values
    }

    fn step(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            // PROTO
            0x80 => match self.byte()? {
                2..=5 => Ok(()),
                protocol => Err(format!("a pickle of protocol {protocol}")),
            },
            // FRAME: a length that only a reader of streams needs.
            0x95 => self.take(8).map(|_| ()),
            b'N' => self.push(PickleValue::Nothing),
            0x88 => self.push(PickleValue::Bool(true)),
            0x89 => self.push(PickleValue::Bool(false)),
            b'G' => {
                self.take(8)?;
                self.push(PickleValue::Float)
            }
            b'K' | b'M' | b'J' | 0x8a => {
                let number = self.int(opcode)?;
                self.push(PickleValue::Int(number))
            }
            b'X' | b'U' | b'T' | 0x8c => {
                let text = self.text(opcode)?;
                self.push(PickleValue::Text(text))
            }
            b')' => self.push(PickleValue::Tuple(Vec::new())),
            b']' => self.push(PickleValue::List(Vec::new())),
            b'}' => self.push(PickleValue::Dict(Vec::new())),
            b'(' => {
                self.marks.push(self.stack.len());
                require_few(self.marks.len())
            }
            b't' => {
                let items = self.since_mark()?;
                self.push(PickleValue::Tuple(items))
            }
            // TUPLE1 to TUPLE3
            0x85..=0x87 => {
                let items = self.pop_several(usize::from(opcode - 0x84))?;
                self.push(PickleValue::Tuple(items))
            }
            b'a' => {
                let items = self.pop_several(1)?;
                self.append(items)
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(items)
            }
            b's' => {
                let items = self.pop_several(2)?;
                self.set_items(&items)
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set_items(&items)
            }
            b'q' | b'r' | 0x94 => self.memoize(opcode),
            b'h' | b'j' => self.recall(opcode),
            b'c' | 0x93 => self.name(opcode),
            b'Q' => self.storage(),
            b'R' => self.call(),
            b'b' => self.set_state(),
            _ => Err(format!(
                "the pickle opcode {opcode:#04x}, which no dictionary of tensors needs"
            )),
        }
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.take(1).map(|byte| byte[0])
    }

    fn take(&mut self, n_bytes: usize) -> Result<&'p [u8], String> {
        let end = self.at.checked_add(n_bytes).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| {
            if self.is_cut {
                format!("a pickle of more than {MOST_BYTES} bytes")
            } else {
                "a pickle that is cut off".into()
            }
        })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// Takes an unsigned number of up to four bytes, little-endian.
    fn unsigned(&mut self, n_bytes: usize) -> Result<u32, String> {
        let bytes = self.take(n_bytes)?;
        Ok(bytes.iter().rev().fold(0u32, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn int(&mut self, opcode: u8) -> Result<i128, String> {
        let unsigned = match opcode {
            b'K' => self.unsigned(1)?,
            b'M' => self.unsigned(2)?,
            b'J' => return Ok(i128::from(self.unsigned(4)? as i32)),
            _ => {
                let length = usize::from(self.byte()?);
                if length > 16 {
                    return Err(format!("a number of {length} bytes"));
                }
                let bytes = self.take(length)?;
                let is_negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
                let filling = if is_negative { -1 } else { 0 };
                let join = |number: i128, byte: &u8| number << 8 | i128::from(*byte);
                return Ok(bytes.iter().rev().fold(filling, join));
            }
        };
        Ok(i128::from(unsigned))
    }

    fn text(&mut self, opcode: u8) -> Result<Arc<str>, String> {
        let n_bytes = match opcode {
            b'X' | b'T' => self.unsigned(4)?,
            _ => self.unsigned(1)?,
        };
        let bytes = self.take(n_bytes as usize)?;
        utf8(bytes).map(Arc::from)
    }

    fn line(&mut self) -> Result<&'p str, String> {
        let left = &self.bytes[self.at..];
        let length = left.iter().position(|byte| *byte == b'\n').unwrap_or(left.len());
        let line = self.take(length + 1)?;
        utf8(&line[..length])
    }

    fn push(&mut self, value: PickleValue) -> Result<(), String> {
        self.put(self.values.len())?;
        self.values.push(value);
        Ok(())
    }

    /// Puts a value on the stack. Items of containers come from there, so this limits their number too.
    fn put(&mut self, place: ValuePlace) -> Result<(), String> {
        self.n_put += 1;
        require_few(self.n_put)?;
        self.stack.push(place);
        Ok(())
    }

    /// The height below which the stack belongs to an open mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<ValuePlace, String> {
        self.pop_several(1).map(|places| places[0])
    }

    fn pop_several(&mut self, count: usize) -> Result<Vec<ValuePlace>, String> {
        let left = self.stack.len().checked_sub(count).filter(|left| *left >= self.floor());
        let left = left.ok_or("a pickle that takes more values than it has made")?;
        Ok(self.stack.split_off(left))
    }

    fn since_mark(&mut self) -> Result<Vec<ValuePlace>, String> {
        let mark = self.marks.pop().ok_or("a pickle that closes what it has not opened")?;
        Ok(self.stack.split_off(mark))
    }

    /// Returns the value on top, which stays there.
    fn top(&mut self) -> Result<ValuePlace, String> {
        let top = self.pop()?;
        self.stack.push(top);
        Ok(top)
    }

    fn append(&mut self, mut items: Vec<ValuePlace>) -> Result<(), String> {
        let list = self.top()?;
        match &mut self.values[list] {
            PickleValue::List(list) => list.append(&mut items),
            other => return Err(format!("{} that is appended to", kind_of(other))),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[ValuePlace]) -> Result<(), String> {
        let dict = self.top()?;
        match &mut self.values[dict] {
            PickleValue::Dict(dict) if items.len().is_multiple_of(2) => {
                dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
            }
            PickleValue::Dict(_) => return Err("a key without a value".into()),
            other => return Err(format!("{} into which items are put", kind_of(other))),
        }
        Ok(())
    }

    fn memoize(&mut self, opcode: u8) -> Result<(), String> {
        let number = match opcode {
            b'q' => self.unsigned(1)?,
            b'r' => self.unsigned(4)?,
            // The memo cannot be larger than the pickle.
            _ => self.memo.len() as u32,
        };
        let top = self.top()?;
        self.memo.insert(number, top);
        require_few(self.memo.len())
    }

    fn recall(&mut self, opcode: u8) -> Result<(), String> {
        let number = self.unsigned(if opcode == b'h' { 1 } else { 4 })?;
        let place = self.memo.get(&number).copied();
        self.put(place.ok_or("a pickle that recalls what it has not kept")?)
    }

    /// Looks up the name of a function or type.
    fn name(&mut self, opcode: u8) -> Result<(), String> {
        let callable = if opcode == b'c' {
            let (module, name) = (self.line()?, self.line()?);
            known(module, name)?
        } else {
            let names = self.pop_several(2)?;
            let text = |place: ValuePlace| match &self.values[place] {
                PickleValue::Text(text) => Ok(&**text),
                other => Err(format!("{} as the name of a function", kind_of(other))),
            };
            known(text(names[0])?, text(names[1])?)?
        };
        self.push(PickleValue::Callable(callable))
    }

    /// Makes a storage of `("storage", type, key, device, length)`, after which old files have a view of it, or `None`.
    fn storage(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let PickleValue::Tuple(parts) = &self.values[id] else {
            return Err(format!("{} as the name of a storage", kind_of(&self.values[id])));
        };
        let parts: Vec<&PickleValue> = parts.iter().map(|part| &self.values[*part]).collect();
        let (tag, dtype, key, length) = match parts[..] {
            [
                tag,
                PickleValue::Callable(Callable::Storage(dtype)),
                PickleValue::Text(key),
                _,
                PickleValue::Int(length),
            ]
            | [
                tag,
                PickleValue::Callable(Callable::Storage(dtype)),
                PickleValue::Text(key),
                _,
                PickleValue::Int(length),
                PickleValue::Nothing,
            ] => (tag, *dtype, key, *length),
            [_, _, _, _, _, _] => return Err("a storage that is a view of another".into()),
            _ => return Err("a storage that is not described as torch.save describes it".into()),
        };
        if !matches!(tag, PickleValue::Text(tag) if **tag == *"storage") {
            return Err("something outside the pickle that is not a storage".into());
        }
        require_short(key, "name of a storage")?;
        let length =
            usize::try_from(length).map_err(|_| format!("a storage of {length} values"))?;
        let storage = TorchStorage { key: key.clone(), dtype, length };
        self.push(PickleValue::Storage(storage))
    }

    /// Makes what a call of one of the known functions returns.
    fn call(&mut self) -> Result<(), String> {
        let called = self.pop_several(2)?;
        let (PickleValue::Callable(callable), PickleValue::Tuple(given)) =
            (&self.values[called[0]], &self.values[called[1]])
        else {
            return Err(format!("a call of {}", kind_of(&self.values[called[0]])));
        };
        match callable {
            Callable::OrderedDict if given.is_empty() => self.push(PickleValue::Dict(Vec::new())),
            Callable::OrderedDict => {
                Err("a collections.OrderedDict that is made of something".into())
            }
            Callable::RebuildTensor => {
                let tensor = self.tensor(given)?;
                self.push(PickleValue::Tensor(tensor))
            }
            Callable::RebuildParameter => match given.first().copied() {
                Some(tensor) if matches!(self.values[tensor], PickleValue::Tensor(_)) => {
                    self.put(tensor)
                }
                _ => Err("a parameter that is not made of a tensor".into()),
            },
            Callable::Storage(_) => Err("a call of the type of a storage".into()),
        }
    }

    /// Reads the arguments of `_rebuild_tensor_v2`: storage, offset, shape, strides, and what only training needs.
    fn tensor(&self, given: &[ValuePlace]) -> Result<TorchTensor, String> {
        let bad = || "a tensor that is not described as torch.save describes it".to_string();
        let [storage, offset, shape, strides, ..] = given else {
            return Err(bad());
        };
        let (PickleValue::Storage(storage), PickleValue::Int(offset)) =
            (&self.values[*storage], &self.values[*offset])
        else {
            return Err(bad());
        };
        let sizes = |place: &ValuePlace| {
            let PickleValue::Tuple(sizes) = &self.values[*place] else {
                return Err(bad());
            };
            if sizes.len() > MOST_DIMENSIONS {
                return Err(format!("a tensor of {} dimensions", sizes.len()));
            }
            let size = |place: &ValuePlace| match &self.values[*place] {
                PickleValue::Int(size) => {
                    usize::try_from(*size).map_err(|_| format!("a tensor with the size {size}"))
                }
                _ => Err(bad()),
            };
            sizes.iter().map(size).collect::<Result<Vec<usize>, String>>()
        };
        let (shape, strides) = (sizes(shape)?, sizes(strides)?);
        if shape.len() != strides.len() {
            return Err(bad());
        }
        let offset = usize::try_from(*offset)
            .map_err(|_| format!("a tensor that starts {offset} values into its storage"))?;
        Ok(TorchTensor { storage: storage.clone(), offset, shape, strides })
    }

    /// Drops the attributes of a dictionary; those of a `state_dict` are version numbers.
    fn set_state(&mut self) -> Result<(), String> {
        self.pop()?;
        let object = self.top()?;
        match &self.values[object] {
            PickleValue::Dict(_) => Ok(()),
            other => Err(format!("{} with attributes", kind_of(other))),
        }
    }
}

fn require_few(count: usize) -> Result<(), String> {
    if count > MOST_VALUES {
        return Err(format!("a pickle of more than {MOST_VALUES} values"));
    }
    Ok(())
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "a string that is not UTF-8".into())
}
