//! Retries that do not make an overload worse: few (a budget of a tenth of what is asked), spread out (full jitter), not
//! before the server wants them (Retry-After), and always with the same idempotency key, so that nothing is signed,
//! counted or charged twice.
//!
//! [`Retries`] decides and is pure; [`RetryingClient`] waits, connects anew and asks again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use super::{Client, Profile, SignRequest, Transport};
use crate::clock;
use crate::error_code::{Code, Refusal};
use crate::message::ItemOutcome;

/// How patient a client is.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Times a call is sent at most.
    pub tries_max: u32,
    /// From the first try on; a retry that would begin later is not begun.
    pub patience: Duration,
    /// The first wait is anything up to this, each next one up to twice as much.
    pub base: Duration,
    /// No wait of our own choice is longer.
    pub cap: Duration,
    /// Retries for each hundred calls, in the long run.
    pub percent: u32,
    /// Retries that may be saved up, and that a new client has.
    pub saved_max: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            tries_max: 4,
            patience: Duration::from_secs(10),
            base: Duration::from_millis(50),
            cap: Duration::from_secs(2),
            percent: 10,
            saved_max: 10,
        }
    }
}

/// What a retry costs; a call earns `percent` of these.
const PRICE: u32 = 100;

/// Decides whether a call is tried again, and when.
#[derive(Debug)]
pub struct Retries {
    policy: RetryPolicy,
    saved: u32,
}

/// How a call stands.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// How often it has been sent.
    pub tries: u32,
    /// How long ago that began.
    pub since: Duration,
}

impl Retries {
    /// With a full budget.
    pub const fn new(policy: RetryPolicy) -> Self {
        Self {
            saved: policy.saved_max * PRICE,
            policy,
        }
    }

    /// A call is sent for the first time.
    pub fn earn(&mut self) {
        self.saved = (self.saved + self.policy.percent).min(self.policy.saved_max * PRICE);
    }

    /// How long to wait before the call is sent again; `None`: it is not. `dice` is any number, evenly spread.
    pub fn decide(&mut self, refusal: &Refusal, tried: Tried, dice: u32) -> Option<Duration> {
        if !refusal.code.retryable() || tried.tries >= self.policy.tries_max {
            return None;
        }
        let wait = self.wait(refusal, tried.tries, dice);
        if tried.since + wait > self.policy.patience {
            return None;
        }
        self.saved = self.saved.checked_sub(PRICE)?;
        Some(wait)
    }

    /// Full jitter, on top of what the server asks for: clients that were refused together do not come back together.
    fn wait(&self, refusal: &Refusal, tries: u32, dice: u32) -> Duration {
        let doubled = self.policy.base * 2u32.saturating_pow(tries.saturating_sub(1).min(16));
        let jitter = doubled
            .min(self.policy.cap)
            .mul_f64(f64::from(dice) / f64::from(u32::MAX));
        let asked = Duration::from_millis(u64::from(refusal.retry_after_ms.unwrap_or(0)));
        asked + jitter
    }
}

/// Why an answer is not final: the first item that is still running, or that failed and may succeed later.
fn unsettled(items: &[ItemOutcome]) -> Option<Refusal> {
    items.iter().find_map(|item| match item {
        ItemOutcome::Pending => Some(Refusal::new(Code::OutcomePending, "an item is still running")),
        ItemOutcome::Failed(refusal) if refusal.code.retryable() => Some(refusal.clone()),
        _ => None,
    })
}

fn dice() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness there is no jitter, which is no reason not to retry.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

/// A client that connects again when its connection is lost, and tries again within its budget.
#[derive(Debug)]
pub struct RetryingClient {
    profile: Profile,
    transport: Transport,
    connections: usize,
    retries: Mutex<Retries>,
    /// Held while one is being opened, so that many calls open one.
    current: AsyncMutex<Option<Arc<Client>>>,
}

impl RetryingClient {
    /// One that connects when it is first asked.
    pub fn new(profile: Profile, transport: Transport, connections: usize, policy: RetryPolicy) -> Self {
        Self {
            profile,
            transport,
            connections,
            retries: Mutex::new(Retries::new(policy)),
            current: AsyncMutex::new(None),
        }
    }

    /// Signs; one outcome per input, in order. Returns the last answer when it gives up: an item of it may still be
    /// pending or have failed, and the same key may be used later.
    pub async fn sign(&self, request: &SignRequest) -> Result<Vec<ItemOutcome>, Refusal> {
        self.retries.lock().earn();
        let began = clock::monotonic();
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = self.try_sign(request).await;
            let refusal = match &answer {
                Ok(items) => unsettled(items),
                Err(refusal) => Some(refusal.clone()),
            };
            let Some(refusal) = refusal else { return answer };
            let Some(wait) = self.decide(&refusal, tries, began) else {
                return answer;
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn decide(&self, refusal: &Refusal, tries: u32, began: Instant) -> Option<Duration> {
        let since = clock::monotonic().saturating_duration_since(began);
        self.retries
            .lock()
            .decide(refusal, Tried { tries, since }, dice())
    }

    async fn try_sign(&self, request: &SignRequest) -> Result<Vec<ItemOutcome>, Refusal> {
        let client = self.client().await?;
        let answer = client.sign(request).await;
        if let Err(refusal) = &answer
            && matches!(
                refusal.code,
                Code::Connection | Code::Restarted | Code::ShuttingDown
            )
        {
            self.forget(&client).await;
        }
        answer
    }

    async fn client(&self) -> Result<Arc<Client>, Refusal> {
        let mut current = self.current.lock().await;
        if let Some(client) = &*current {
            return Ok(Arc::clone(client));
        }
        let client = Client::connect(&self.profile, self.transport, self.connections).await?;
        let client = Arc::new(client);
        *current = Some(Arc::clone(&client));
        Ok(client)
    }

    /// Another call may have opened a new one meanwhile; that one stays.
    async fn forget(&self, lost: &Arc<Client>) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|client| Arc::ptr_eq(client, lost)) {
            *current = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy() -> Refusal {
        Refusal::new(Code::Overloaded, "")
    }

    fn tried(tries: u32) -> Tried {
        Tried {
            tries,
            since: Duration::ZERO,
        }
    }

    #[test]
    fn a_tenth_of_the_calls_may_be_retried_and_a_few_that_were_saved_up() {
        let mut retries = Retries::new(RetryPolicy::default());
        let mut retried = 0;
        for _ in 0..1_000 {
            retries.earn();
            retried += u32::from(retries.decide(&busy(), tried(1), 0).is_some());
        }
        assert_eq!(
            retried, 109,
            "ten that were saved up, and those that 999 calls earn"
        );
    }

    #[test]
    fn waits_are_spread_and_begin_when_the_server_says() {
        let mut retries = Retries::new(RetryPolicy::default());
        let asked = busy().retry_after_ms(300);
        let mut ms = |refusal: &Refusal, tries, dice| {
            let wait = retries.decide(refusal, tried(tries), dice);
            wait.map(|wait| wait.as_millis())
        };
        assert_eq!(ms(&busy(), 1, 0), Some(0));
        assert_eq!(ms(&busy(), 1, u32::MAX), Some(50));
        assert_eq!(ms(&busy(), 3, u32::MAX), Some(200));
        assert_eq!(ms(&asked, 1, 0), Some(300));
        assert_eq!(ms(&asked, 2, u32::MAX), Some(400));
        assert_eq!(ms(&busy(), 4, 0), None, "that was the last try");
        assert_eq!(
            ms(&Refusal::new(Code::DigestLength, ""), 1, 0),
            None,
            "it will not get better"
        );
        assert_eq!(
            ms(&busy().retry_after_ms(11_000), 1, 0),
            None,
            "so long nobody waits"
        );
    }

    #[test]
    fn an_answer_is_final_when_every_item_is() {
        let done = || ItemOutcome::Done {
            signature: Vec::new(),
            sequence: crate::ids::Sequence(1),
        };
        let failed = |code| ItemOutcome::Failed(Refusal::new(code, ""));
        let code = |items: &[ItemOutcome]| unsettled(items).map(|refusal| refusal.code);
        assert_eq!(code(&[done(), failed(Code::QuotaExhausted)]), None);
        assert_eq!(code(&[done(), ItemOutcome::Pending]), Some(Code::OutcomePending));
        assert_eq!(code(&[failed(Code::DeviceFailed)]), Some(Code::DeviceFailed));
    }
}
