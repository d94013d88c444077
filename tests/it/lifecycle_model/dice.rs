//! Chance that is the same every time.

use std::time::Duration;

/// A generator of numbers that is the same everywhere (SplitMix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }

    pub(super) fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }

    pub(super) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())].clone()
    }

    /// One of these, each as likely as its weight says.
    pub(super) fn weigh<T: Copy>(&mut self, of: &[(usize, T)]) -> T {
        let mut rest = self.roll(of.iter().map(|(weight, _)| weight).sum());
        for (weight, one) in of {
            if rest < *weight {
                return *one;
            }
            rest -= weight;
        }
        unreachable!("the roll is below the sum of the weights")
    }

    /// A whole number of milliseconds.
    pub(super) fn millis(&mut self, below: usize) -> Duration {
        Duration::from_millis(self.roll(below) as u64)
    }
}
