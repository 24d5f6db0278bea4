//! Slots addressed by index and generation, so that a late event for something closed is recognised.
//!
//! Descriptor numbers are reused at once by the kernel, and an event fetched before a close may be looked at after it. A token
//! carries the slot's generation; a slot's generation moves on when it is freed, so an old token finds nothing.

/// Names one use of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Token {
    /// Packs the token into what a driver lets the kernel carry. The top `64 - 32 - GENERATION_BITS` bits are zero.
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn unpack(packed: u64) -> Self {
        Self { index: packed as u32, generation: (packed >> 32) as u32 & GENERATION_MASK }
    }
}

/// A slab with generations. Freed slots are reused last-freed first, which keeps the memory in use dense and warm.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    pub(crate) fn insert(&mut self, value: T) -> Token {
        if let Some(index) = self.free.pop() {
            let entry = &mut self.entries[index as usize];
            debug_assert!(entry.value.is_none());
            entry.value = Some(value);
            return Token { index, generation: entry.generation };
        }
        let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 descriptors");
        self.entries.push(Entry { generation: 0, value: Some(value) });
        Token { index, generation: 0 }
    }

    pub(crate) fn get(&self, token: Token) -> Option<&T> {
        let entry = self.entries.get(token.index as usize)?;
        if entry.generation == token.generation { entry.value.as_ref() } else { None }
    }

    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let entry = self.entries.get_mut(token.index as usize)?;
        if entry.generation == token.generation { entry.value.as_mut() } else { None }
    }

    /// Everything there is, with its slot.
    pub(crate) fn indexed(&self) -> impl Iterator<Item = (u32, &T)> {
        self.entries.iter().zip(0..).filter_map(|(entry, index)| Some((index, entry.value.as_ref()?)))
    }

    /// Whatever is in the slot now, of whichever generation.
    pub(crate) fn occupant(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index as usize)?.value.as_mut()
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<T> {
        let entry = self.entries.get_mut(token.index as usize)?;
        if entry.generation != token.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        self.free.push(token.index);
        Some(value)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().filter_map(|entry| entry.value.as_mut())
    }
}

/// Bits of a generation; the rest of a packed token's upper half belongs to the driver (the kind of an operation).
pub(crate) const GENERATION_BITS: u32 = 28;
const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_token_finds_nothing() {
        let mut slots = Slots::default();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(first.index, second.index, "the slot is reused");
        assert!(slots.get_mut(first).is_none());
        assert!(slots.remove(first).is_none());
        assert_eq!(slots.get_mut(second), Some(&mut "second"));
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn tokens_survive_packing() {
        let token = Token { index: u32::MAX, generation: GENERATION_MASK };
        assert_eq!(Token::unpack(token.pack()), token);
        assert_eq!(token.pack() >> (32 + GENERATION_BITS), 0);
    }
}
