//! The names that one kind of device brings to its script.

/// The functions and codes of one C interface. A function is known by its place in `functions`.
#[derive(Clone, Copy, Debug)]
pub struct Vocabulary {
    /// Every function that a clause may name, at most 64.
    pub functions: &'static [&'static str],
    /// What a clause without functions means, and the only one that `wrong` fits.
    pub signing: &'static str,
    /// The functions that need a session: what `lost` means without functions.
    pub sessions: &'static [&'static str],
    /// Codes by name.
    pub codes: &'static [(&'static str, u64)],
    /// The code of `removed` without one.
    pub removed: u64,
    /// The states that the device knows, of `removed`, `sessions` and `renumber`.
    pub states: &'static [&'static str],
}

/// A set of functions, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Functions(u64);

impl Functions {
    pub(crate) fn contains(self, function: usize) -> bool {
        self.0 >> function & 1 == 1
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Vocabulary {
    /// The functions of this name, or of names with this beginning where it ends with `*`; `None` where there is none.
    pub(crate) fn named(&self, name: &str) -> Option<Functions> {
        let fits = |function: &str| match name.strip_suffix('*') {
            Some(beginning) => function.starts_with(beginning),
            None => function == name,
        };
        let bits = self
            .functions
            .iter()
            .enumerate()
            .filter(|(_, function)| fits(function));
        let set = bits.fold(0, |set, (place, _)| set | 1 << place);
        (set != 0).then_some(Functions(set))
    }

    pub(crate) fn all_of(&self, names: &[&str]) -> Functions {
        let sets = names.iter().filter_map(|name| self.named(name));
        sets.fold(Functions::default(), Functions::union)
    }

    /// A code by name, or a number in hexadecimal with or without `0x`.
    pub(crate) fn code(&self, word: &str) -> Option<u64> {
        let named = self
            .codes
            .iter()
            .find(|(name, _)| *name == word)
            .map(|(_, code)| *code);
        named.or_else(|| u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok())
    }
}
