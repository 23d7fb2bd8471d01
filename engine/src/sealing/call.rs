//! One document whose caller waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use documents::sealing::Form;
use protocol::error_code::{Code, Refusal};
use protocol::ids::IdempotencyKey;
use protocol::limits::{ANSWER_MS_MAX, REPLY_KEPT_MS};
use store::{App, ItemName, NewOperation, OperationItem, OperationRow, OperationWrite, Proof};

use super::carry::{self, Item};
use super::order::SealOrder;
use super::room::Desk;
use super::{Sealer, new_number};

/// What a caller wants.
pub(crate) struct SealCall {
    pub(crate) app: Arc<App>,
    pub(crate) proof: Proof,
    pub(crate) key: IdempotencyKey,
    pub(crate) order: SealOrder,
    pub(crate) document: Vec<u8>,
    /// When the last byte was there.
    pub(crate) received: Instant,
}

/// A sealed document.
pub(crate) struct Sealed {
    pub(crate) form: Form,
    pub(crate) bytes: Vec<u8>,
}

/// What is known of a call.
struct Found {
    number: i64,
    known: Option<OperationItem>,
    open: Option<NewOperation>,
}

impl Sealer {
    /// Seals a document. Called again with the same key, order and document it brings the same bytes.
    pub(crate) async fn seal(&self, call: SealCall) -> Result<Sealed, Refusal> {
        let deadline = call.received + Duration::from_millis(ANSWER_MS_MAX);
        let form = call.order.form_of(&call.document)?;
        let _alone = self.lock(call.app.row, call.key.as_str(), deadline).await?;
        let order = Arc::new(call.order);
        let (app, key) = (Arc::clone(&call.app), call.key.as_str().to_owned());
        let (of, document) = (
            ItemName {
                operation: 0,
                item: 0,
            },
            call.document,
        );
        let mut item = Item {
            app,
            proof: call.proof,
            key,
            of,
            items: 1,
            order,
            deadline,
        };
        let begin = move |desk: &Desk| {
            let found = find(desk, &item, &document)?;
            item.of.operation = found.number;
            let begun = carry::begin(desk, &item, found.known.as_ref(), document)?;
            Ok((item, begun, found.open))
        };
        let (item, mut begun, open) = self.room.work(deadline, begin).await?;
        let writes = open
            .map(OperationWrite::Open)
            .into_iter()
            .chain(begun.writes.take());
        let writes: Vec<_> = writes.collect();
        if !writes.is_empty() {
            self.check_room()?;
            self.write(writes).await?;
        }
        let bytes = self.carry(&self.room, &item, begun).await?;
        Ok(Sealed { form, bytes })
    }

    /// Whether the engine takes requests.
    pub(crate) fn check_services(&self) -> Result<(), Refusal> {
        self.services.closed().map_or(Ok(()), Err)
    }

    /// Whether something new can be taken.
    pub(super) fn check_room(&self) -> Result<(), Refusal> {
        self.check_services()?;
        if self.services.store.is_full() {
            let text = "the disk is full; recorded signatures can still be read";
            return Err(Refusal::new(Code::StorageFull, text).retry_after_ms(5_000));
        }
        Ok(())
    }
}

fn find(desk: &Desk, item: &Item, document: &[u8]) -> Result<Found, Refusal> {
    let request = item.order.digest(Some(&store::sha256(document)), 1);
    let row = desk.reader.operation_by_key(item.app.row, &item.key);
    let Some(OperationRow { new, .. }) = row.map_err(|error| error.refusal())? else {
        let new = NewOperation {
            row: new_number()?,
            tenant: item.app.tenant.row,
            app: item.app.row,
            key: item.key.clone(),
            request,
            plan: None,
            items: 1,
            until: carry::until(REPLY_KEPT_MS),
        };
        return Ok(Found {
            number: new.row,
            known: None,
            open: Some(new),
        });
    };
    if new.request != request || new.plan.is_some() {
        return Err(reused());
    }
    let of = ItemName {
        operation: new.row,
        item: 0,
    };
    let known = desk.reader.operation_item(of).map_err(|error| error.refusal())?;
    Ok(Found {
        number: new.row,
        known,
        open: None,
    })
}

pub(super) fn reused() -> Refusal {
    let text = "the idempotency key was used for another order or another document";
    Refusal::new(Code::IdempotencyKeyReused, text)
}
