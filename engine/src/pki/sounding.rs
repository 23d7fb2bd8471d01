//! Whether the certificate service is there: every one of its threads and the registration desk are asked for a sign of life
//! once a second, and have until the next time to give it. What they say is no matter.

use std::sync::Arc;

use actors::questions::QuestionReply;
use actors::services::Services;
use protocol::error_code::Refusal;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::registration::Registration;

/// What was asked.
struct Asked {
    threads: Vec<oneshot::Receiver<QuestionReply>>,
    desk: oneshot::Receiver<Result<Value, Refusal>>,
}

/// Asks for signs of life.
pub(crate) struct Sounding {
    services: Arc<Services>,
    desk: Registration,
    asked: Option<Asked>,
}

impl Sounding {
    pub(crate) const fn new(services: Arc<Services>, desk: Registration) -> Self {
        Self {
            services,
            desk,
            asked: None,
        }
    }

    /// Whether everybody who was asked the last time has answered; asks again. The first time nobody was, and that they can
    /// be asked is enough.
    pub(crate) fn sound(&mut self) -> bool {
        let heard = self.asked.take().is_none_or(|mut asked| {
            let threads = asked.threads.iter_mut().all(|reply| reply.try_recv().is_ok());
            threads && asked.desk.try_recv().is_ok()
        });
        self.asked = self.ask();
        heard && self.asked.is_some()
    }

    fn ask(&self) -> Option<Asked> {
        let threads = self.services.certificates.get()?.sound().ok()?;
        let desk = self.desk.sound().ok()?;
        Some(Asked { threads, desk })
    }
}
