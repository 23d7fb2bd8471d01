//! Works on jobs: a thread of its own, a few documents at a time, those of several jobs in turn. What an earlier life has
//! begun it goes on with. It also clears away what nobody needs any more.
//!
//! A document whose outcome is a refusal of its caller's has failed. Anything else is tried again until the job is erased:
//! a device that is away, a full disk, an engine that stops.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::document_vault::DocumentKey;
use actors::vault::VaultError;
use futures_util::StreamExt;
use futures_util::stream;
use protocol::clock;
use protocol::error_code::{Blame, Code, Refusal};
use protocol::limits::ANSWER_MS_MAX;
use store::{ItemName, OperationItem, OperationRow, OperationWrite};

use super::Sealer;
use super::blobs::{BlobName, Side};
use super::carry::{self, Item, SPARE_BYTES};
use super::job::{Plan, blocking};
use super::room::Desk;

/// Documents that are worked on at the same time.
const TOGETHER: usize = 4;
/// Documents that are looked up in one go.
const ROUND: usize = 64;
/// Jobs that take turns.
const JOBS: u32 = 256;
/// How long to wait where there is nothing to do, or after a round in which something has to be tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often what nobody needs any more is cleared away.
const CLEARED: Duration = Duration::from_secs(5);
/// Operations that are erased in one go.
const ERASED: u32 = 256;
/// How long a document of a job may be worked on: nobody waits for it.
const DOCUMENT_MAX: Duration = Duration::from_secs(60);

/// Until when somebody waits who has just asked.
pub(super) fn soon() -> Instant {
    clock::monotonic() + Duration::from_millis(ANSWER_MS_MAX)
}

/// Starts the thread. It lives as long as the process.
pub(super) fn start(sealer: Arc<Sealer>) -> Result<(), Refusal> {
    let failed = |error: std::io::Error| Refusal::new(Code::Internal, format!("the thread jobs: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    let run = move || {
        super::room::lower_priority();
        runtime.block_on(run(sealer));
    };
    let started = std::thread::Builder::new().name("jobs".into()).spawn(run);
    started.map(drop).map_err(failed)
}

async fn run(sealer: Arc<Sealer>) {
    let mut cleared: Option<Instant> = None;
    loop {
        let now = clock::monotonic();
        if cleared.is_none_or(|cleared| now.saturating_duration_since(cleared) >= CLEARED) {
            sealer.clear_away().await;
            cleared = Some(now);
        }
        let progress = match sealer.round().await {
            Ok(progress) => progress,
            Err(error) => {
                tracing::warn!(%error, "jobs cannot be worked on; it is tried again");
                false
            }
        };
        if !progress {
            // Whether there is work or the time is over makes no difference: it is looked up.
            let _ = tokio::time::timeout(PAUSE, sealer.work.notified()).await;
        }
    }
}

/// A document that has no outcome, and the order that it belongs to.
struct Turn {
    row: Arc<OperationRow>,
    item: u32,
}

impl Sealer {
    async fn for_jobs<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Desk) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.job_room.work(clock::monotonic() + DOCUMENT_MAX, work).await
    }

    /// Works on some documents. Whether any got its outcome.
    async fn round(&self) -> Result<bool, Refusal> {
        if self.services.closed().is_some() {
            return Ok(false);
        }
        let turns = self.for_jobs(turns).await?;
        let outcomes = stream::iter(turns).map(|turn| self.take_turn(turn));
        let outcomes: Vec<bool> = outcomes.buffer_unordered(TOGETHER).collect().await;
        Ok(outcomes.contains(&true))
    }

    /// Brings a document to its outcome; false: it has to be tried again.
    async fn take_turn(&self, turn: Turn) -> bool {
        let of = ItemName {
            operation: turn.row.new.row,
            item: turn.item,
        };
        let outcome = match self.seal_item(&turn.row, of).await {
            Ok(bytes) => Ok(bytes),
            Err(refusal) if is_final(&refusal) => Err((refusal.code, refusal.message.into_owned())),
            Err(refusal) => {
                tracing::debug!(operation = of.operation, item = of.item, %refusal, "tried again");
                return false;
            }
        };
        let written = self.write(vec![OperationWrite::Finish { of, outcome }]).await;
        written.is_ok()
    }

    async fn seal_item(&self, row: &Arc<OperationRow>, of: ItemName) -> Result<u64, Refusal> {
        self.check_room()?;
        let (blobs, asked) = (self.blobs.clone(), Arc::clone(row));
        let bytes = self.for_jobs(move |desk| document_bytes(desk, of)).await?;
        let _memory = self.wait_for_memory(bytes + SPARE_BYTES).await?;
        let begin = move |desk: &Desk| {
            let (item, known, files) = item_of(desk, &asked, of)?;
            let document = blobs.read(files.name, &files.key, SPARE_BYTES)?;
            let begun = carry::begin(desk, &item, Some(&known), document)?;
            Ok((item, files, begun))
        };
        let (item, files, mut begun) = self.for_jobs(begin).await?;
        if let Some(write) = begun.writes.take() {
            self.write(vec![write]).await?;
        }
        let sealed = self.carry(&self.job_room, &item, begun).await?;
        let blobs = self.blobs.clone();
        blocking(move || {
            let mut writer = blobs.create(files.name, Side::Out, &files.key)?;
            writer.write(&sealed)?;
            writer.finish().map(|(bytes, _)| bytes)
        })
        .await
    }

    /// Erases operations whose time is over, and files that belong to none: what a destroyed tenant, a crash or a restored
    /// copy has left.
    async fn clear_away(&self) {
        let expired = self.for_jobs(|desk| {
            let expired = desk.reader.expired_operations(clock::wall(), ERASED);
            expired.map_err(|error| error.refusal())
        });
        for row in expired.await.unwrap_or_default() {
            let write = OperationWrite::Erase {
                operation: row.new.row,
            };
            if let Err(error) = self.write(vec![write]).await {
                tracing::warn!(%error, "an operation could not be erased; it is tried again");
            }
        }
        let blobs = self.blobs.clone();
        let cleared = self.for_jobs(move |desk| {
            // The files first: a job that is made in between has its row before its files.
            let with_files = blobs.operations();
            let jobs: HashSet<i64> = desk.reader.jobs().map_err(|error| error.refusal())?;
            let mut left = with_files
                .into_iter()
                .filter(|operation| !jobs.contains(operation));
            left.try_for_each(|operation| blobs.remove(operation))
        });
        if let Err(error) = cleared.await {
            tracing::warn!(%error, "files of documents could not be cleared away; it is tried again");
        }
    }
}

/// Documents without an outcome: the first of each job, the second of each, and so on.
fn turns(desk: &Desk) -> Result<Vec<Turn>, Refusal> {
    let failed = |error: store::StoreError| error.refusal();
    let rows = desk.reader.unfinished_operations(JOBS).map_err(failed)?;
    let mut turns = Vec::new();
    for row in rows {
        let waiting = desk.reader.operation_waiting(row.new.row).map_err(failed)?;
        let row = Arc::new(row);
        let own = waiting.into_iter().take(ROUND).enumerate();
        turns.extend(own.map(|(place, item)| {
            let row = Arc::clone(&row);
            (place, Turn { row, item })
        }));
    }
    turns.sort_by_key(|(place, _)| *place);
    turns.truncate(ROUND);
    Ok(turns.into_iter().map(|(_, turn)| turn).collect())
}

fn document_bytes(desk: &Desk, of: ItemName) -> Result<usize, Refusal> {
    let item = desk.reader.operation_item(of).map_err(|error| error.refusal())?;
    let bytes = item.and_then(|item| item.document).map_or(0, |(bytes, _)| bytes);
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Where a document of a job is kept.
struct Files {
    name: BlobName,
    key: DocumentKey,
}

/// What a document of a job needs, what is known of it, and where it is.
fn item_of(desk: &Desk, row: &OperationRow, of: ItemName) -> Result<(Item, OperationItem, Files), Refusal> {
    let apps = desk.services.store.directory().apps();
    let app = apps.iter().find(|app| app.row == row.new.app);
    let app = app.ok_or_else(|| Refusal::new(Code::AppRevoked, "the app is gone"))?;
    let own = desk
        .services
        .vault
        .of_tenant(&app.tenant)
        .map_err(VaultError::refusal)?;
    let (order, proof) = Plan::open(row, &own)?;
    let missing = || Refusal::new(Code::NotFound, "the document is not kept any more");
    let known = desk.reader.operation_item(of).map_err(|error| error.refusal())?;
    let known = known.ok_or_else(missing)?;
    let data_key = known.data_key.as_deref().ok_or_else(missing)?;
    let files = Files {
        name: BlobName::new(of, data_key),
        key: DocumentKey::open(&own, data_key, of).map_err(VaultError::refusal)?,
    };
    let item = Item {
        app: Arc::clone(app),
        proof,
        key: row.new.key.clone(),
        of,
        items: row.new.items,
        order: Arc::new(order),
        deadline: clock::monotonic() + DOCUMENT_MAX,
    };
    Ok((item, known, files))
}

/// Whether trying again is of no use: the fault is the caller's, or what is on the disk contradicts itself.
fn is_final(refusal: &Refusal) -> bool {
    match refusal.code.blame() {
        // A month's contract or a suspension may end; a job of an hour ago is not wanted then.
        Blame::Caller | Blame::Data => true,
        Blame::Overload | Blame::Device => false,
        // A fault of ours is one each time; what has restarted is not.
        Blame::Bug => !matches!(refusal.code, Code::Connection),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_better_later_is_tried_again() {
        let said = |code| is_final(&Refusal::new(code, "so"));
        for code in [
            Code::StorageFull,
            Code::DeviceUnavailable,
            Code::OutcomePending,
            Code::RateLimited,
            Code::Restarted,
        ] {
            assert!(!said(code), "{code}");
        }
        for code in [
            Code::DocumentRefused,
            Code::QuotaExhausted,
            Code::DataCorrupt,
            Code::Internal,
        ] {
            assert!(said(code), "{code}");
        }
    }
}
