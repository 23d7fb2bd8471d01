//! Work that waits, in a line for each of those it is for. Each has its turn, one piece at a time: whoever sends much, or
//! something that takes long, waits behind himself and keeps nobody else waiting. Pure; the lock is its owner's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Why work is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// So much of the same one's waits already.
    #[error("too much of the same tenant's waits")]
    Line,
    /// So much waits in all.
    #[error("too much waits in all")]
    All,
}

/// The lines, by whose the work is.
#[derive(Debug)]
pub struct Lines<K, W> {
    waiting: BTreeMap<K, VecDeque<W>>,
    /// Whose turn it is; everybody whose work waits and is not being worked on.
    turns: VecDeque<K>,
    working: BTreeSet<K>,
    count: usize,
    line_max: usize,
    all_max: usize,
}

impl<K: Ord + Clone, W> Lines<K, W> {
    /// Empty ones, in which at most so much waits: of one, and of all.
    pub const fn new(line_max: usize, all_max: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            turns: VecDeque::new(),
            working: BTreeSet::new(),
            count: 0,
            line_max,
            all_max,
        }
    }

    /// Takes work in.
    pub fn push(&mut self, whose: K, work: W) -> Result<(), Full> {
        if self.count >= self.all_max {
            return Err(Full::All);
        }
        let line = self.waiting.entry(whose.clone()).or_default();
        if line.len() >= self.line_max {
            return Err(Full::Line);
        }
        line.push_back(work);
        self.count += 1;
        if line.len() == 1 && !self.working.contains(&whose) {
            self.turns.push_back(whose);
        }
        Ok(())
    }

    /// The next piece of work. Until it is [`Self::done`] there is no other one of the same.
    pub fn pop(&mut self) -> Option<(K, W)> {
        let whose = self.turns.pop_front()?;
        let line = self.waiting.get_mut(&whose)?;
        let work = line.pop_front()?;
        if line.is_empty() {
            self.waiting.remove(&whose);
        }
        self.count -= 1;
        self.working.insert(whose.clone());
        Some((whose, work))
    }

    /// What was taken out is done, however it ended.
    pub fn done(&mut self, whose: K) {
        self.working.remove(&whose);
        if self.waiting.contains_key(&whose) {
            self.turns.push_back(whose);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_sends_much_waits_behind_himself() {
        let mut lines = Lines::new(3, 10);
        for work in 1..=3 {
            lines.push("busy", work).unwrap();
        }
        assert_eq!(lines.push("busy", 4), Err(Full::Line));
        lines.push("calm", 10).unwrap();
        assert_eq!(lines.pop(), Some(("busy", 1)));
        assert_eq!(lines.pop(), Some(("calm", 10)), "one of the same at a time");
        assert_eq!(lines.pop(), None);
        lines.push("calm", 11).unwrap();
        assert_eq!(lines.pop(), None, "its first one is not done");
        lines.done("busy");
        lines.done("calm");
        assert_eq!(lines.pop(), Some(("busy", 2)));
        assert_eq!(lines.pop(), Some(("calm", 11)));
        lines.done("calm");
        lines.done("busy");
        assert_eq!(lines.pop(), Some(("busy", 3)));
        lines.done("busy");
        assert_eq!(lines.pop(), None);
    }

    #[test]
    fn no_more_waits_than_there_is_room_for() {
        let mut lines = Lines::new(2, 3);
        for (whose, work) in [(1, 1), (1, 2), (2, 1)] {
            lines.push(whose, work).unwrap();
        }
        assert_eq!(lines.push(3, 1), Err(Full::All));
        lines.pop().unwrap();
        lines.push(3, 1).unwrap();
    }
}
