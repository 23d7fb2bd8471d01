//! The minute strip as text: a letter and a count for each stretch of equal minutes, like `a43195s5`.
//!
//! `a` available, `s` signing down, `c` certificates down, `b` both down, `n` no record, `x` excluded,
//! `o` outside the term, `f` not over yet.

use crate::calendar::MINUTES_A_DAY;
use crate::state::State;

/// No month has more minutes.
const MINUTES_MAX: u32 = 31 * MINUTES_A_DAY;

/// Why a text is not a strip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StripError {
    /// A letter that stands for no state.
    #[error("{0:?} is no state of a minute")]
    Letter(char),
    /// A letter without a count, or with none that is above zero.
    #[error("the count after {0:?} is missing, zero or too large")]
    Count(char),
    /// Longer than any month.
    #[error("the strip has more minutes than a month")]
    TooLong,
}

/// The letter of a state.
pub const fn letter(state: State) -> char {
    match state {
        State::Available => 'a',
        State::Signing => 's',
        State::Certificates => 'c',
        State::Both => 'b',
        State::NoRecord => 'n',
        State::Excluded => 'x',
        State::OutsideTerm => 'o',
        State::Future => 'f',
    }
}

/// Stretches of equal minutes, in order.
pub fn stretches(states: &[State]) -> impl Iterator<Item = (State, usize)> {
    states
        .chunk_by(|one, next| one == next)
        .map(|stretch| (stretch[0], stretch.len()))
}

/// Writes a strip.
pub fn encode(states: &[State]) -> String {
    let stretch = |(state, count): (State, usize)| format!("{}{count}", letter(state));
    stretches(states).map(stretch).collect()
}

/// Reads a strip.
pub fn decode(text: &str) -> Result<Vec<State>, StripError> {
    let mut states = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let known = State::ALL.into_iter().find(|state| letter(*state) == first);
        let state = known.ok_or(StripError::Letter(first))?;
        let counted = &rest[1..];
        let end = counted
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(counted.len());
        let count: u32 = counted[..end].parse().map_err(|_| StripError::Count(first))?;
        if count == 0 {
            return Err(StripError::Count(first));
        }
        if count > MINUTES_MAX || states.len() + count as usize > MINUTES_MAX as usize {
            return Err(StripError::TooLong);
        }
        states.resize(states.len() + count as usize, state);
        rest = &counted[end..];
    }
    Ok(states)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_comes_back() {
        let mut states = vec![State::Available; 43_000];
        states.extend(State::ALL);
        assert_eq!(encode(&states), "a43001s1c1b1n1x1o1f1");
        assert_eq!(decode(&encode(&states)), Ok(states));
        assert_eq!(decode(""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_strip_is_refused() {
        assert_eq!(decode("z1"), Err(StripError::Letter('z')));
        assert_eq!(decode("a"), Err(StripError::Count('a')));
        assert_eq!(decode("a0"), Err(StripError::Count('a')));
        assert_eq!(decode("a99999999999"), Err(StripError::Count('a')));
        assert_eq!(decode("a44640s1"), Err(StripError::TooLong));
        assert_eq!(decode("秒1"), Err(StripError::Letter('秒')));
    }
}
