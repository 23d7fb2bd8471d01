//! Jobs: one order for many documents, which are put in one by one, worked on in the order of their numbers, and fetched
//! one by one. Each has its own outcome and is charged by itself.

use std::sync::Arc;

use actors::document_vault::{DocumentKey, plan_label};
use actors::vault::{TenantVault, VaultError};
use protocol::error_code::{Code, Refusal};
use protocol::ids::IdempotencyKey;
use protocol::limits::JOB_KEPT_MS;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{
    App, Environment, ItemName, NewOperation, OPERATION_ITEMS_MAX, OperationCounts, OperationItem,
    OperationRow, OperationState, OperationWrite, Proof,
};
use utoipa::ToSchema;

use super::blobs::{BlobName, BlobReader, BlobWriter, Side, operation_name, operation_of};
use super::call::reused;
use super::carry::until;
use super::order::SealOrder;
use super::room::Desk;
use super::{Sealer, new_number};

/// A new job.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobBody {
    /// How each document is to be sealed.
    pub(crate) order: SealOrder,
    /// How many documents there will be, at most 1,000; they are numbered from 0.
    pub(crate) documents: u32,
}

/// A job's order as it is kept, and how whoever ordered it proved that: every signature's entry says so.
#[derive(Deserialize, Serialize)]
pub(super) struct Plan {
    pub(super) order: SealOrder,
    /// CBOR.
    proof: documents::sealing::Octets,
}

impl Plan {
    fn wrap(order: SealOrder, proof: &Proof, own: &TenantVault, operation: i64) -> Result<Vec<u8>, Refusal> {
        let internal = |_| Refusal::new(Code::Internal, "the order cannot be written down");
        let proof = proof.to_bytes().into();
        let json = serde_json::to_vec(&Self { order, proof }).map_err(internal)?;
        own.wrap(&json, plan_label(operation).as_bytes())
            .map_err(VaultError::refusal)
    }

    pub(super) fn open(row: &OperationRow, own: &TenantVault) -> Result<(SealOrder, Proof), Refusal> {
        let corrupt = || Refusal::new(Code::DataCorrupt, "the order of a job cannot be read");
        let wrapped = row.new.plan.as_deref().ok_or_else(corrupt)?;
        let json = own.unwrap(wrapped, plan_label(row.new.row).as_bytes());
        let plan: Self =
            serde_json::from_slice(&json.map_err(VaultError::refusal)?).map_err(|_| corrupt())?;
        let proof = Proof::from_bytes(&plan.proof.0).ok_or_else(corrupt)?;
        Ok((plan.order, proof))
    }
}

fn store_failed(error: store::StoreError) -> Refusal {
    error.refusal()
}

/// An operation of the app's tenant and environment; others are not found.
fn find(desk: &Desk, app: &App, name: &str) -> Result<OperationRow, Refusal> {
    let missing = || Refusal::new(Code::NotFound, "no such operation, or it is not kept any more");
    let number = operation_of(name).ok_or_else(missing)?;
    let row = desk
        .reader
        .operation(number)
        .map_err(store_failed)?
        .ok_or_else(missing)?;
    let is_own = row.new.tenant == app.tenant.row && environment_of(desk, &row) == Some(app.environment);
    // Calls are looked up by calling again.
    (is_own && row.new.plan.is_some())
        .then_some(row)
        .ok_or_else(missing)
}

fn environment_of(desk: &Desk, row: &OperationRow) -> Option<Environment> {
    let apps = desk.services.store.directory().apps();
    apps.iter()
        .find(|app| app.row == row.new.app)
        .map(|app| app.environment)
}

/// What an app is told of an operation.
fn show(row: &OperationRow, counts: &OperationCounts) -> Value {
    json!({
        "operation": operation_name(row.new.row),
        "state": row.state.name(),
        "documents": row.new.items,
        "uploaded": counts.uploaded(),
        "waiting": counts.waiting,
        "done": counts.done,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
        "created_ms": row.created.0,
        "erased_ms": row.new.until.0,
    })
}

fn show_item(item: &OperationItem) -> Value {
    let mut shown = json!({ "document": item.item, "state": item.state.name() });
    if let Some((bytes, _)) = item.document {
        shown["bytes"] = bytes.into();
    }
    if let Some(bytes) = item.result_bytes {
        shown["sealed_bytes"] = bytes.into();
    }
    if let Some((code, detail)) = &item.failure {
        shown["error"] = json!({ "code": code.name(), "detail": detail, "retryable": code.retryable() });
    }
    shown
}

/// A document of a job that is being put in.
pub(crate) struct Upload {
    of: ItemName,
    data_key: Vec<u8>,
    pub(crate) writer: BlobWriter,
}

impl Sealer {
    async fn desk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Desk) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.room.work(super::runner::soon(), work).await
    }

    /// Makes a job, or finds the one of the same key and order.
    pub(crate) async fn new_job(
        &self,
        (app, proof): (Arc<App>, Proof),
        key: IdempotencyKey,
        body: JobBody,
    ) -> Result<Value, Refusal> {
        if body.documents == 0 || body.documents > OPERATION_ITEMS_MAX {
            let text = format!("a job has 1 to {OPERATION_ITEMS_MAX} documents");
            return Err(Refusal::new(Code::BatchTooLarge, text));
        }
        self.check_room()?;
        let request = body.order.digest(None, body.documents);
        let own = self
            .services
            .vault
            .of_tenant(&app.tenant)
            .map_err(VaultError::refusal)?;
        let row = new_number()?;
        let new = NewOperation {
            row,
            tenant: app.tenant.row,
            app: app.row,
            key: key.as_str().to_owned(),
            request,
            plan: Some(Plan::wrap(body.order, &proof, &own, row)?),
            items: body.documents,
            until: until(JOB_KEPT_MS),
        };
        self.write(vec![OperationWrite::Open(new)]).await?;
        self.desk(move |desk| {
            let row = desk
                .reader
                .operation_by_key(app.row, key.as_str())
                .map_err(store_failed)?;
            let row = row.ok_or_else(|| Refusal::new(Code::Internal, "the job is not on record"))?;
            if row.new.request != request || row.new.plan.is_none() {
                return Err(reused());
            }
            let counts = desk.reader.operation_counts(row.new.row).map_err(store_failed)?;
            Ok(show(&row, &counts))
        })
        .await
    }

    /// How an operation stands.
    pub(crate) async fn operation(&self, app: Arc<App>, name: String) -> Result<Value, Refusal> {
        self.desk(move |desk| {
            let row = find(desk, &app, &name)?;
            let counts = desk.reader.operation_counts(row.new.row).map_err(store_failed)?;
            Ok(show(&row, &counts))
        })
        .await
    }

    /// Its documents from a number on.
    pub(crate) async fn operation_documents(
        &self,
        app: Arc<App>,
        name: String,
        from: u32,
    ) -> Result<Value, Refusal> {
        self.desk(move |desk| {
            let row = find(desk, &app, &name)?;
            let items = desk
                .reader
                .operation_items(row.new.row, from, OPERATION_ITEMS_MAX);
            let items: Vec<Value> = items.map_err(store_failed)?.iter().map(show_item).collect();
            Ok(json!({ "documents": items }))
        })
        .await
    }

    /// Begins to put in a document.
    pub(crate) async fn begin_upload(
        &self,
        app: Arc<App>,
        name: String,
        number: u32,
    ) -> Result<Upload, Refusal> {
        self.check_room()?;
        let blobs = self.blobs.clone();
        self.desk(move |desk| {
            let row = find(desk, &app, &name)?;
            check_open(&row, number)?;
            let of = ItemName {
                operation: row.new.row,
                item: number,
            };
            let own = desk
                .services
                .vault
                .of_tenant(&app.tenant)
                .map_err(VaultError::refusal)?;
            let (key, data_key) = DocumentKey::make(&own, of).map_err(VaultError::refusal)?;
            let writer = blobs.create(BlobName::new(of, &data_key), Side::In, &key)?;
            Ok(Upload { of, data_key, writer })
        })
        .await
    }

    /// Ends it: the document counts from now on.
    pub(crate) async fn end_upload(&self, upload: Upload) -> Result<Value, Refusal> {
        let Upload { of, data_key, writer } = upload;
        let (bytes, sha256) = blocking(move || writer.finish()).await?;
        let write = OperationWrite::Upload {
            of,
            data_key,
            bytes,
            sha256,
        };
        self.write(vec![write]).await?;
        let digest: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(json!({ "document": of.item, "bytes": bytes, "sha256": digest }))
    }

    /// Starts a job whose documents are there.
    pub(crate) async fn start(&self, app: Arc<App>, name: String) -> Result<Value, Refusal> {
        self.check_room()?;
        self.turn(app, name, |operation| OperationWrite::Start { operation })
            .await
    }

    /// Cancels a job: what has not begun is not done.
    pub(crate) async fn cancel(&self, app: Arc<App>, name: String) -> Result<Value, Refusal> {
        self.turn(app, name, |operation| OperationWrite::Cancel { operation })
            .await
    }

    async fn turn(
        &self,
        app: Arc<App>,
        name: String,
        write: impl FnOnce(i64) -> OperationWrite,
    ) -> Result<Value, Refusal> {
        let (asked, wanted) = (Arc::clone(&app), name.clone());
        let row = self.desk(move |desk| find(desk, &asked, &wanted)).await?;
        self.write(vec![write(row.new.row)]).await?;
        self.work.notify_one();
        self.operation(app, name).await
    }

    /// Erases an operation that is not running, with its documents.
    pub(crate) async fn erase(&self, app: Arc<App>, name: String) -> Result<Value, Refusal> {
        let row = self
            .desk(move |desk| {
                let row = find(desk, &app, &name)?;
                let counts = desk.reader.operation_counts(row.new.row).map_err(store_failed)?;
                let is_running = row.state == OperationState::Running
                    || (row.state == OperationState::Cancelled && counts.waiting > 0);
                if is_running {
                    let text = "the operation is running; cancel it and wait until it has ended";
                    return Err(Refusal::new(Code::WrongState, text));
                }
                Ok(row)
            })
            .await?;
        let (blobs, operation) = (self.blobs.clone(), row.new.row);
        // Rows first: files without rows are cleared away.
        self.write(vec![OperationWrite::Erase { operation }]).await?;
        blocking(move || blobs.remove(operation)).await?;
        Ok(json!({}))
    }

    /// Opens a sealed document to be fetched; says how many bytes it has.
    pub(crate) async fn result(
        &self,
        app: Arc<App>,
        name: String,
        number: u32,
    ) -> Result<(BlobReader, u64), Refusal> {
        let blobs = self.blobs.clone();
        self.desk(move |desk| {
            let row = find(desk, &app, &name)?;
            let of = ItemName {
                operation: row.new.row,
                item: number,
            };
            let missing = || Refusal::new(Code::NotFound, format!("the operation has no document {number}"));
            let item = desk
                .reader
                .operation_item(of)
                .map_err(store_failed)?
                .ok_or_else(missing)?;
            let (Some(bytes), Some(data_key)) = (item.result_bytes, &item.data_key) else {
                return Err(no_result(&item));
            };
            let own = desk
                .services
                .vault
                .of_tenant(&app.tenant)
                .map_err(VaultError::refusal)?;
            let key = DocumentKey::open(&own, data_key, of).map_err(VaultError::refusal)?;
            Ok((blobs.open(BlobName::new(of, data_key), Side::Out, &key)?, bytes))
        })
        .await
    }

    /// A document that is too large to be waited for: a job of one.
    pub(crate) async fn seal_later(&self, call: super::call::SealCall) -> Result<Value, Refusal> {
        let body = JobBody {
            order: call.order,
            documents: 1,
        };
        let asked = (Arc::clone(&call.app), call.proof);
        let made = self.new_job(asked, call.key, body).await?;
        let name = made["operation"].as_str().unwrap_or_default().to_owned();
        let sha256 = store::sha256(&call.document);
        if made["uploaded"] != 0 {
            self.check_same(Arc::clone(&call.app), name.clone(), sha256)
                .await?;
        }
        if made["state"] == OperationState::Open.name() {
            let mut upload = self.begin_upload(Arc::clone(&call.app), name.clone(), 0).await?;
            let document = call.document;
            let upload = blocking(move || {
                upload.writer.write(&document)?;
                Ok(upload)
            })
            .await?;
            self.end_upload(upload).await?;
            return self.start(call.app, name).await;
        }
        Ok(made)
    }

    /// A retry brings the same document.
    async fn check_same(&self, app: Arc<App>, name: String, sha256: [u8; 32]) -> Result<(), Refusal> {
        self.desk(move |desk| {
            let row = find(desk, &app, &name)?;
            let of = ItemName {
                operation: row.new.row,
                item: 0,
            };
            let item = desk.reader.operation_item(of).map_err(store_failed)?;
            let known = item.and_then(|item| item.document);
            match known {
                Some((_, before)) if before != sha256 => Err(reused()),
                _ => Ok(()),
            }
        })
        .await
    }
}

fn check_open(row: &OperationRow, number: u32) -> Result<(), Refusal> {
    if row.state != OperationState::Open {
        let text = format!(
            "the operation is {}; documents are taken while it is open",
            row.state.name()
        );
        return Err(Refusal::new(Code::WrongState, text));
    }
    if number >= row.new.items {
        let text = format!("the operation has {} documents, numbered from 0", row.new.items);
        return Err(Refusal::new(Code::NotFound, text));
    }
    Ok(())
}

fn no_result(item: &OperationItem) -> Refusal {
    match &item.failure {
        Some((code, detail)) => Refusal::new(*code, detail.clone()),
        None if item.state == store::ItemState::Cancelled => Refusal::new(
            Code::OperationCancelled,
            "the operation was cancelled before its turn",
        ),
        None => Refusal::new(Code::WrongState, "the document is not sealed yet"),
    }
}

/// Work on files, which may take as long as the disk takes.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let lost = |_| Refusal::new(Code::Internal, "work on a document's file was lost");
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}
