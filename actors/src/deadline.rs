//! What happens when a call's time is up (SEMANTICS 1.3). The answer never waits for the device: at the deadline what
//! still runs is recorded as pending, and the client hears that; if even the record does not come back from the disk,
//! the client hears at the hard limit that the outcome is unknown.

use std::sync::Arc;

use protocol::error_code::{Code, Refusal};
use store::{Attempt, Draft, Fingerprint};

use crate::call::{Call, ItemState, Patience, Ticket, unknown_outcome};
use crate::core::Core;
use crate::shard::fail_call;

pub(crate) fn expire(core: &Core, ticket: Ticket) {
    let patience = match core.table.borrow_mut().get(ticket) {
        Some(call) => std::mem::replace(&mut call.patience, Patience::Due),
        None => return,
    };
    match patience {
        Patience::Waiting => record_pending(core, ticket),
        Patience::Due => give_up(core, ticket),
    }
}

/// An item that is still open when its call is due.
struct OpenItem {
    fingerprint: Fingerprint,
    attempt: Option<Arc<Attempt>>,
}

fn open_items(core: &Core, ticket: Ticket) -> Vec<OpenItem> {
    let mut table = core.table.borrow_mut();
    let Some(call) = table.get(ticket) else {
        return Vec::new();
    };
    let open = |item: &ItemState| match item {
        ItemState::Open {
            fingerprint, attempt, ..
        } => Some(OpenItem {
            fingerprint: *fingerprint,
            attempt: attempt.clone(),
        }),
        _ => None,
    };
    call.items.iter().filter_map(open).collect()
}

fn record_pending(core: &Core, ticket: Ticket) {
    let open = open_items(core, ticket);
    if open.is_empty() || core.waits_for_units(ticket) {
        // It was not even begun: nothing runs, nothing to record.
        let refusal = Refusal::new(
            Code::DeadlineExceeded,
            "the deadline passed before the request was begun",
        );
        fail_call(core, ticket, &refusal);
        return;
    }
    let index = core.services.store.index();
    let mut drafts = Vec::new();
    for item in open {
        // Without an attempt the item is only being read from the journal: its outcome is on its way. So it is when
        // somebody else has asked already, or the item has just been settled.
        if let Some(attempt) = item.attempt
            && index.ask_pending(item.fingerprint) == Some(true)
        {
            drafts.push(Draft::Pending(attempt));
        }
    }
    if !drafts.is_empty() && core.services.store.try_commit(drafts).is_err() {
        tracing::error!("the committing thread is too far behind to record pending items");
    }
}

fn give_up(core: &Core, ticket: Ticket) {
    let index = core.services.store.index();
    for item in open_items(core, ticket) {
        index.forget_waiter(item.fingerprint, |waiter| waiter.same_call(&ticket));
    }
    let items = match core.table.borrow_mut().get(ticket) {
        Some(call) => call.take_items(),
        None => return,
    };
    let result = if items.is_empty() {
        Err(unknown_outcome())
    } else {
        Call::result(items)
    };
    core.answer(ticket, result);
}
