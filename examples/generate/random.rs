//! Chance that a seed repeats.

/// `SplitMix64` (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number from 0 to `end`, without `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// True once in `one_in` times, on average.
    pub(crate) fn once_in(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    /// True in this share of times, from 0 to 1.
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        const STEPS: u32 = 1 << 30;
        let step = u32::try_from(self.below(STEPS.into())).expect("it is below 2^30");
        f64::from(step) < share * f64::from(STEPS)
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let end = u64::try_from(choices.len()).expect("a length fits");
        choices[usize::try_from(self.below(end)).expect("it is below a length")]
    }
}
