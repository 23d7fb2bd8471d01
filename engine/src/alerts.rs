//! The watch: looks once a second at what can go wrong, tells the operators what has begun and what is over, and lets
//! proposals expire. What an alert is, and when it is told, is decided in `actors::alerts`.

use std::sync::Arc;
use std::time::Duration;

use actors::agreement;
use actors::alerts::{Alert, Condition, Watch};
use actors::call::Ticket;
use actors::expiry;
use actors::outgoing;
use actors::services::Services;
use crossbeam_channel::Sender;
use hsm_pool::device::life::State;
use parking_lot::Mutex;
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use serde_json::{Value, json};
use sla::calendar::MinuteIndex;
use sla::policy::Policy;
use store::{
    ApprovalChange, CertificateChange, CertificateRow, Change, Channel, Decision, NewMessage, OutboxChange,
    OutboxWrite, Owner, Reader, StoreError, StoreHandle,
};

const BEAT: Duration = Duration::from_secs(1);
/// How often certificates that end are looked at, in milliseconds.
const ENDS_LOOKED_AT_MS: u64 = 60_000;
/// Certificates that are told of in one commit.
const WARNED_MAX: u32 = 64;
const DAY_MS: u64 = 24 * 3_600_000;
/// The record of a minute is complete so many seconds after it.
const MINUTE_SETTLED_S: u64 = 5;

/// Where alerts go.
pub(crate) struct Alarms {
    watch: Mutex<Watch>,
    store: Arc<StoreHandle<Ticket>>,
    /// Whether there is somebody to send e-mail to.
    email: bool,
    give_up_ms: u64,
    /// Takes what the disk has no room for.
    aside: Sender<NewMessage>,
}

impl Alarms {
    pub(crate) fn new(
        store: Arc<StoreHandle<Ticket>>,
        email: bool,
        give_up_ms: u64,
        aside: Sender<NewMessage>,
    ) -> Self {
        Self {
            watch: Mutex::default(),
            store,
            email,
            give_up_ms,
            aside,
        }
    }

    /// What is wrong now.
    pub(crate) fn raised(&self) -> Vec<Alert> {
        self.watch.lock().raised()
    }

    /// The same as operators see it.
    pub(crate) fn show(&self) -> Value {
        let raised = self.raised();
        Value::Array(raised.iter().map(Alert::data).collect())
    }

    /// Sends something that is not wrong, to see whether it arrives.
    pub(crate) fn test(&self, now: UnixMillis) -> Result<(), Refusal> {
        let data = json!({ "alert": "test", "subject": "", "text": "an operator asked for this message" });
        if self.send("alert.test", &data, now)? == 0 {
            let text =
                "operators have neither a webhook (`cinnabar webhook set`) nor an e-mail address (email_to)";
            return Err(Refusal::new(Code::WrongState, text));
        }
        Ok(())
    }

    fn look(&self, seen: Vec<(Condition, String)>, now: UnixMillis) {
        let alerts = self.watch.lock().look(seen, now);
        for alert in alerts {
            let (name, subject) = (alert.condition.name(), alert.condition.subject());
            let text = &alert.text;
            match alert.is_over {
                false => tracing::error!(alert = name, subject, text, "alert_raised"),
                true => tracing::info!(alert = name, subject, text, "alert_resolved"),
            }
            if let Err(error) = self.send(alert.kind(), &alert.data(), now) {
                tracing::error!(alert = name, %error, "an alert could not be sent");
            }
        }
    }

    /// Posts a message to each way that leads to the operators; returns how many there are.
    fn send(&self, kind: &str, data: &Value, now: UnixMillis) -> Result<usize, Refusal> {
        let body = outgoing::payload(kind, now, data);
        let ways = self.ways().map_err(|error| error.refusal())?;
        for &channel in &ways {
            let message = NewMessage {
                id: outgoing::new_id()?,
                channel,
                owner: Owner::Operators,
                kind: kind.to_owned(),
                body: body.clone(),
                give_up: UnixMillis(now.0 + self.give_up_ms),
            };
            self.post(message)?;
        }
        Ok(ways.len())
    }

    fn ways(&self) -> Result<Vec<Channel>, StoreError> {
        let webhook = self.store.reader()?.webhook(Owner::Operators)?;
        let webhook = webhook.map(|_| Channel::Webhook);
        let email = self.email.then_some(Channel::Email);
        Ok(webhook.into_iter().chain(email).collect())
    }

    /// What cannot be kept is sent all the same: that the disk is full must be heard.
    fn post(&self, message: NewMessage) -> Result<(), Refusal> {
        let kept = self.store.write_outbox(vec![OutboxWrite::Post(message.clone())]);
        if kept.is_ok() {
            return Ok(());
        }
        let full = |_| Refusal::new(Code::Overloaded, "too many messages wait to be sent");
        self.aside.try_send(message).map_err(full)
    }
}

/// Starts the thread. It ends when the engine stops taking requests.
pub(crate) fn start(
    services: &Arc<Services>,
    alarms: &Arc<Alarms>,
    warn_days: Arc<[u32]>,
) -> Result<(), Refusal> {
    let (services, alarms) = (Arc::clone(services), Arc::clone(alarms));
    let reader = services.store.reader().map_err(|error| error.refusal())?;
    let watcher = Watcher {
        services,
        alarms,
        reader,
        policies: Policy::builtin(),
        looked_at: MinuteIndex::of_unix_seconds(clock::wall().seconds()),
        bad: Vec::new(),
        warn_days,
        ends_looked_at: UnixMillis(0),
        ending: Vec::new(),
    };
    std::thread::Builder::new()
        .name("watch".into())
        .spawn(move || watcher.run())
        .map(drop)
        .map_err(|error| Refusal::new(Code::Internal, format!("the watch's thread: {error}")))
}

struct Watcher {
    services: Arc<Services>,
    alarms: Arc<Alarms>,
    reader: Reader,
    policies: Vec<Policy>,
    /// The last minute that was looked at; at first the one in which the engine started, of which it saw a part.
    looked_at: MinuteIndex,
    /// What was wrong with it.
    bad: Vec<(Condition, String)>,
    /// Days before a certificate's end at which it is told of, the most first.
    warn_days: Arc<[u32]>,
    /// When certificates were looked at last.
    ends_looked_at: UnixMillis,
    /// What was found of those that end.
    ending: Vec<(Condition, String)>,
}

impl Watcher {
    fn run(mut self) {
        while self.services.closed().is_none() {
            let now = clock::wall();
            match self.see(now) {
                Ok(seen) => self.alarms.look(seen, now),
                Err(error) => tracing::error!(%error, "the watch cannot see"),
            }
            if let Err(error) = self.expire(now) {
                tracing::error!(%error, "proposals cannot expire");
            }
            std::thread::sleep(BEAT);
        }
    }

    fn see(&mut self, now: UnixMillis) -> Result<Vec<(Condition, String)>, Refusal> {
        let mut seen = self.see_devices();
        if self.services.store.is_full() {
            let text = "the disk is full; new requests are refused";
            seen.push((Condition::StorageFull, text.to_owned()));
        }
        self.see_frozen(&mut seen).map_err(|error| error.refusal())?;
        self.see_minute(now)?;
        seen.extend(self.bad.iter().cloned());
        if let Err(error) = self.see_ends(now) {
            tracing::error!(%error, "certificates that end cannot be told of");
        }
        seen.extend(self.ending.iter().cloned());
        Ok(seen)
    }

    fn see_devices(&self) -> Vec<(Condition, String)> {
        let mut seen = Vec::new();
        for view in self.services.pool.devices() {
            let name = || view.name.to_string();
            if view.state.is_latched() {
                let text = "the PIN was refused; `cinnabar device resume` tries it again".to_owned();
                seen.push((Condition::PinLatched(name()), text));
            }
            if view.state.state() == State::Quarantined {
                let condition = Condition::DeviceQuarantined(name());
                seen.push((condition, view.state.reason()));
            }
        }
        seen
    }

    /// Reconciliation freezes the statements of a month in which it finds a difference.
    fn see_frozen(&self, seen: &mut Vec<(Condition, String)>) -> Result<(), StoreError> {
        for (month, reason) in self.reader.all_frozen()? {
            seen.push((Condition::ReconciliationDifference(month), reason));
        }
        Ok(())
    }

    /// Looks at the last minute that is over, once.
    fn see_minute(&mut self, now: UnixMillis) -> Result<(), Refusal> {
        let settled = now.seconds().saturating_sub(MINUTE_SETTLED_S);
        let Some(last) = MinuteIndex::of_unix_seconds(settled).before() else {
            return Ok(());
        };
        if last <= self.looked_at {
            return Ok(());
        }
        self.looked_at = last;
        let paged = agreement::look_at_minute(&self.reader, last, &self.policies)?;
        let bad = |name: String| {
            let text = format!("minute {last} was unavailable under policy {name}");
            (Condition::BadMinute(name), text)
        };
        let busy = |name: String| {
            let text =
                format!("minute {last}: so many requests were refused with 503 that policy {name} pages");
            (Condition::BusyMinute(name), text)
        };
        let bad = paged.unavailable.into_iter().map(bad);
        self.bad = bad.chain(paged.busy.into_iter().map(busy)).collect();
        Ok(())
    }

    /// Looks at certificates that end, once a minute, and tells their holders.
    fn see_ends(&mut self, now: UnixMillis) -> Result<(), Refusal> {
        if now.0.abs_diff(self.ends_looked_at.0) < ENDS_LOOKED_AT_MS {
            return Ok(());
        }
        self.ends_looked_at = now;
        let until = |days: u32| UnixMillis(now.0.saturating_add(u64::from(days) * DAY_MS));
        let failed = |error: StoreError| error.refusal();
        let mut ending = Vec::new();
        // The fewest days first: of those that end tomorrow nobody is told that they end in a month.
        let mut from = now;
        for &days in self.warn_days.iter().rev() {
            let span = (from, until(days));
            let count = self.reader.count_ending(span).map_err(failed)?;
            let first = self
                .reader
                .certificates_ending(span.0, span.1, 1)
                .map_err(failed)?;
            ending.extend(expiry::condition(days, count, first.first()));
            self.warn_all(span, days, now)?;
            from = UnixMillis(span.1.0 + 1);
        }
        ending.reverse();
        self.ending = ending;
        Ok(())
    }

    /// Tells of everything that ends in a span, however much that is, so many at a time.
    fn warn_all(&self, span: (UnixMillis, UnixMillis), days: u32, now: UnixMillis) -> Result<(), Refusal> {
        loop {
            let rows = self.reader.certificates_unwarned(span, days, WARNED_MAX);
            let rows = rows.map_err(|error| error.refusal())?;
            let mut changes = Vec::new();
            for row in &rows {
                changes.extend(self.warning(row, days, now)?);
            }
            if changes.is_empty() || self.services.closed().is_some() {
                return Ok(());
            }
            // Told and noted in one step: nobody is told twice of the same.
            let told = self.services.store.changes("engine", changes);
            told.map_err(|error| error.refusal())?;
        }
    }

    fn warning(&self, row: &CertificateRow, days: u32, now: UnixMillis) -> Result<Vec<Change>, Refusal> {
        let mut changes = vec![Change::Certificates(CertificateChange::Warn {
            issuer: row.issuer.clone(),
            serial: row.serial.clone(),
            days,
        })];
        if let Some(holder) = &row.holder {
            changes.push(Change::Outbox(OutboxChange::Tell {
                tenant: holder.tenant.clone(),
                id: outgoing::new_id()?,
                kind: expiry::KIND.to_owned(),
                body: outgoing::payload(expiry::KIND, now, &expiry::message(row, days)),
                give_up: UnixMillis(now.0 + self.alarms.give_up_ms),
            }));
        }
        Ok(changes)
    }

    fn expire(&self, now: UnixMillis) -> Result<(), StoreError> {
        for id in self.reader.overdue_proposals(now)? {
            let change = ApprovalChange::Decide {
                id,
                decision: Decision::Expire,
                by: "engine".to_owned(),
            };
            match self.services.store.change("engine", Change::Approvals(change)) {
                // Somebody decided it meanwhile.
                Err(StoreError::Refused(_)) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
