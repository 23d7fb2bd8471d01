//! Slot ids as the caller sees them, and as the module behind knows them.

use cryptoki_sys::CK_SLOT_ID;
use fault_script::Renumber;

/// The id under which a slot is shown. `all` are the ids that the module behind gives, in its order.
pub(crate) fn shown(how: Option<Renumber>, real: CK_SLOT_ID, all: &[CK_SLOT_ID]) -> CK_SLOT_ID {
    match how {
        None => real,
        Some(Renumber::Offset(offset)) => real.wrapping_add(offset),
        Some(Renumber::Rotate) => neighbour(real, all, 1),
    }
}

/// The slot that is shown under this id; an id that is shown for none stays as it is, and the module behind will not
/// know it.
pub(crate) fn real(how: Option<Renumber>, shown: CK_SLOT_ID, all: &[CK_SLOT_ID]) -> CK_SLOT_ID {
    match how {
        None => shown,
        Some(Renumber::Offset(offset)) => shown.wrapping_sub(offset),
        Some(Renumber::Rotate) => neighbour(shown, all, all.len().saturating_sub(1)),
    }
}

fn neighbour(id: CK_SLOT_ID, all: &[CK_SLOT_ID], steps: usize) -> CK_SLOT_ID {
    let place = all.iter().position(|one| *one == id);
    place.map_or(id, |place| all[(place + steps) % all.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [CK_SLOT_ID; 3] = [1_730_000_001, 12, 5];

    #[test]
    fn what_is_shown_leads_back() {
        for how in [
            None,
            Some(Renumber::Offset(100)),
            Some(Renumber::Offset(u64::MAX)),
            Some(Renumber::Rotate),
        ] {
            for id in ALL {
                assert_eq!(real(how, shown(how, id, &ALL), &ALL), id, "{how:?}");
            }
        }
    }

    #[test]
    fn ids_move() {
        let all = |how| ALL.map(|id| shown(how, id, &ALL));
        assert_eq!(all(Some(Renumber::Offset(100))), [1_730_000_101, 112, 105]);
        assert_eq!(all(Some(Renumber::Rotate)), [12, 5, 1_730_000_001]);
        assert_eq!(shown(Some(Renumber::Rotate), 7, &ALL), 7);
        assert_eq!(real(Some(Renumber::Rotate), 7, &[]), 7);
    }
}
