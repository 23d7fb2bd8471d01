//! How the cores ask the threads of the certificate service: a bounded line to each of them, and a place where the answer
//! comes. A core waits for nobody; what would wait too long is refused when it comes.

use std::sync::atomic::{AtomicUsize, Ordering};

use protocol::error_code::{Code, Refusal};
use sla::answer::Outcome;
use store::ItemName;
use tokio::sync::{mpsc, oneshot};

use crate::stamp_callers::StampCaller;

/// Questions that may wait for one thread.
const WAITING_MAX: usize = 1024;

/// What a core asks.
pub enum Question {
    /// A time stamp for an app.
    Stamp {
        /// Which.
        caller: StampCaller,
        /// TimeStampReq (RFC 3161 2.4.1), in DER.
        query: Vec<u8>,
        /// By which authority; `None`: the one that fits the hash.
        authority: Option<Box<str>>,
        /// For which step of a document's operation, with which the answer is kept.
        kept_for: Option<(ItemName, u32)>,
    },
    /// How certificates stand: OCSPRequest (RFC 6960 4.1.1), in DER.
    Status(Vec<u8>),
}

/// TimeStampResp or OCSPResponse, in DER, and how it counts: a rejection can be our fault. Or why there is none.
pub type QuestionReply = Result<(Vec<u8>, Outcome), Refusal>;

/// A question and where its answer goes.
pub struct Asked {
    /// The question.
    pub question: Question,
    /// Who waits; it may have gone.
    pub reply: oneshot::Sender<QuestionReply>,
}

/// The cores' end of the lines.
#[derive(Debug)]
pub struct Lines {
    threads: Vec<mpsc::Sender<Asked>>,
    next: AtomicUsize,
}

impl Lines {
    /// Lines to so many threads, and the far ends.
    pub fn new(threads: usize) -> (Self, Vec<mpsc::Receiver<Asked>>) {
        let (near, far) = (0..threads).map(|_| mpsc::channel(WAITING_MAX)).unzip();
        let lines = Self {
            threads: near,
            next: AtomicUsize::new(0),
        };
        (lines, far)
    }

    /// Asks one thread after the other; refused at once where too many wait.
    pub fn ask(&self, question: Question) -> Result<oneshot::Receiver<QuestionReply>, Refusal> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.threads.len().max(1);
        ask(self.threads.get(turn % count).ok_or_else(full)?, question)
    }

    /// Asks every thread for a sign of life: a question that is none, which costs nothing to answer.
    pub fn sound(&self) -> Result<Vec<oneshot::Receiver<QuestionReply>>, Refusal> {
        let all = self.threads.iter();
        all.map(|line| ask(line, Question::Status(Vec::new()))).collect()
    }
}

fn full() -> Refusal {
    let text = "too many questions wait for the certificate service";
    Refusal::new(Code::Overloaded, text).retry_after_ms(100)
}

fn ask(line: &mpsc::Sender<Asked>, question: Question) -> Result<oneshot::Receiver<QuestionReply>, Refusal> {
    let (reply, answer) = oneshot::channel();
    line.try_send(Asked { question, reply }).map_err(|_| full())?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_full_refuses_and_the_next_one_takes() {
        let (lines, mut far) = Lines::new(2);
        for _ in 0..2 * WAITING_MAX {
            assert!(lines.ask(Question::Status(vec![1])).is_ok());
        }
        let refused = lines.ask(Question::Status(vec![1])).unwrap_err();
        assert_eq!(refused.code, Code::Overloaded);
        // It was the first one's turn; now it is the second one's, which has room again.
        assert!(matches!(far[1].try_recv().unwrap().question, Question::Status(_)));
        assert!(lines.ask(Question::Status(vec![1])).is_ok());
    }
}
