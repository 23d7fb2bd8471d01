//! A blocked Bloom filter over fingerprints: 12 bits a key, six of them tested in one cache line.
//! Fingerprints are uniform already, so its hash functions are slices of them. About 1 % false positives.

const BITS_PER_KEY: usize = 12;
const WORDS_PER_BLOCK: usize = 8;

/// The filter of one run.
pub(super) struct Bloom {
    words: Box<[u64]>,
}

impl Bloom {
    pub(super) fn with_keys(keys: usize) -> Self {
        let blocks = (keys * BITS_PER_KEY).div_ceil(WORDS_PER_BLOCK * 64).max(1);
        Self {
            words: vec![0; blocks * WORDS_PER_BLOCK].into(),
        }
    }

    pub(super) fn from_words(words: Vec<u64>) -> Option<Self> {
        (!words.is_empty() && words.len().is_multiple_of(WORDS_PER_BLOCK))
            .then(|| Self { words: words.into() })
    }

    pub(super) const fn words(&self) -> &[u64] {
        &self.words
    }

    pub(super) fn insert(&mut self, key: &[u8; 16]) {
        let (start, bits) = self.place(key);
        for bit in bits {
            self.words[start + bit / 64] |= 1 << (bit % 64);
        }
    }

    pub(super) fn may_hold(&self, key: &[u8; 16]) -> bool {
        let (start, bits) = self.place(key);
        bits.into_iter()
            .all(|bit| self.words[start + bit / 64] & (1 << (bit % 64)) != 0)
    }

    /// The first word of a key's block, and six bits within the block.
    fn place(&self, key: &[u8; 16]) -> (usize, [usize; 6]) {
        let (high, low) = super::run::halves(key);
        let blocks = (self.words.len() / WORDS_PER_BLOCK) as u128;
        let block = ((u128::from(low) * blocks) >> 64) as usize;
        // The block comes from the top of the low half, so the bits mix both halves.
        let mixed = (high ^ low.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (
            block * WORDS_PER_BLOCK,
            std::array::from_fn(|i| (mixed >> (10 + 9 * i)) as usize & 511),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Fingerprint;
    use protocol::ids::AppRow;

    #[test]
    fn never_misses_and_seldom_cries_wolf() {
        let key = |n: u32| Fingerprint::of_call(AppRow(1), &n.to_string()).0;
        let mut bloom = Bloom::with_keys(20_000);
        (0..20_000).for_each(|n| bloom.insert(&key(n)));
        assert!((0..20_000).all(|n| bloom.may_hold(&key(n))));
        let false_positives = (20_000..60_000).filter(|n| bloom.may_hold(&key(*n))).count();
        assert!(false_positives < 40_000 / 50, "{false_positives} of 40,000");
    }
}
