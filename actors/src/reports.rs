//! Reports: a thread that answers questions which take longer than a request may: statements, months of the agreement,
//! packages. Neither a core nor the reader of the request path waits for it; it reads beside everybody.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use serde_json::{Value, json};
use sla::calendar::Month;
use sla::policy::Policy;
use store::{Directory, Reader, StoreError, Tenant};
use tokio::sync::oneshot;

use crate::{agreement, bill};

/// Questions that may wait.
const QUEUE: usize = 64;

/// A question about one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Its packages.
    Packages,
    /// Its statement.
    Statement(Month),
    /// Its month under the agreement.
    Agreement(Month),
    /// The notices of maintenance.
    Notices,
}

struct Asked {
    tenant: Arc<Tenant>,
    question: Question,
    reply: oneshot::Sender<Result<Value, Refusal>>,
}

/// Where to ask.
#[derive(Debug)]
pub struct Reports(Sender<Asked>);

impl Reports {
    pub(crate) fn start(reader: Reader, directory: Arc<Directory>) -> Self {
        let (sender, asked) = bounded(QUEUE);
        let started = std::thread::Builder::new()
            .name("reports".into())
            .spawn(move || run(&asked, &reader, &directory));
        if let Err(error) = started {
            tracing::error!(%error, "the reports thread could not be started");
        }
        Self(sender)
    }

    /// Asks for a tenant's own.
    pub async fn ask(&self, tenant: Arc<Tenant>, question: Question) -> Result<Value, Refusal> {
        let (reply, answer) = oneshot::channel();
        let asked = Asked {
            tenant,
            question,
            reply,
        };
        self.0.try_send(asked).map_err(|_| {
            Refusal::new(Code::Overloaded, "too many reports are being made").retry_after_ms(1_000)
        })?;
        let lost = |_| Refusal::new(Code::Restarted, "the report was not made").retry_after_ms(1_000);
        answer.await.map_err(lost)?
    }
}

fn run(asked: &Receiver<Asked>, reader: &Reader, directory: &Directory) {
    while let Ok(asked) = asked.recv() {
        let answer = answer(reader, directory, &asked.tenant, asked.question);
        // Whoever asked may have gone.
        let _ = asked.reply.send(answer);
    }
}

fn failed(error: &StoreError) -> Refusal {
    tracing::error!(%error, "the store could not be read");
    error.refusal()
}

fn to_json(value: &impl serde::Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(value).map_err(|error| Refusal::new(Code::Internal, error.to_string()))
}

/// Answers a question about a tenant.
pub fn answer(
    reader: &Reader,
    directory: &Directory,
    tenant: &Tenant,
    question: Question,
) -> Result<Value, Refusal> {
    let now = clock::wall();
    match question {
        Question::Packages => {
            let packages = bill::packages(reader, tenant, now).map_err(|error| failed(&error))?;
            Ok(json!({ "packages": to_json(&packages)? }))
        }
        Question::Statement(month) => {
            let statement = bill::statement(reader, directory, tenant, month, now);
            to_json(&statement.map_err(|error| failed(&error))?)
        }
        Question::Agreement(month) => to_json(&agreement::month_report(
            reader,
            tenant,
            month,
            &Policy::builtin(),
            now,
        )?),
        Question::Notices => Ok(json!({ "notices": to_json(&agreement::notices(reader)?)? })),
    }
}
