//! `cinnabar journal` and `cinnabar recover`: the journal without an engine.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppRow, Sequence};
use protocol::seal::DocumentKind;
use serde_json::{Value, json};
use store::{Entry, Item, Record, StoreError, StoreHandle};

use super::{print_json, print_line};
use crate::config::Config;
use crate::{master_key, serve};

fn failed(error: StoreError) -> Refusal {
    error.refusal()
}

fn open(config: &Config) -> Result<StoreHandle<actors::call::Ticket>, Refusal> {
    let store = serve::open_store(config, false)?;
    store
        .start(|_| {}, |error| tracing::error!(%error, "store"))
        .map_err(failed)
}

/// Checks the chain, and counts usage again from the entries.
pub(super) fn check(config: &Config) -> Result<(), Refusal> {
    let store = open(config)?;
    let result = check_open(&store);
    store.stop();
    print_json(&result?)
}

fn check_open(store: &StoreHandle<actors::call::Ticket>) -> Result<Value, Refusal> {
    let reader = store.reader().map_err(failed)?;
    let last = reader.check_journal().map_err(failed)?;
    let mut counted: BTreeMap<AppRow, u64> = BTreeMap::new();
    let mut keys = std::collections::HashSet::new();
    let mut twice = 0;
    let count = |entry: Entry| {
        match entry.record {
            Record::Signature { item, .. } => {
                *counted.entry(item.app).or_insert(0) += 1;
                twice += u64::from(!keys.insert(item.fingerprint()));
            }
            Record::TimeStamp { stamp, .. } => *counted.entry(stamp.app).or_insert(0) += 1,
            _ => {}
        }
        Ok(())
    };
    reader.entries(Sequence(1), count).map_err(failed)?;
    // What is archived is counted, and not in the journal any more.
    let archives = reader.archives().map_err(failed)?;
    let archived: Vec<u32> = archives.iter().map(|archived| archived.month).collect();
    for app in store.directory().apps() {
        let booked: u64 = reader
            .usage(app.row)
            .map_err(failed)?
            .iter()
            .filter(|row| !archived.contains(&row.month))
            .map(|row| row.units)
            .sum();
        let in_journal = counted.get(&app.row).copied().unwrap_or(0);
        if booked != in_journal {
            let text = format!(
                "app {}: {booked} signatures booked, {in_journal} in the journal",
                app.id
            );
            return Err(Refusal::new(Code::DataCorrupt, text));
        }
    }
    if twice > 0 {
        return Err(Refusal::new(
            Code::DataCorrupt,
            format!("{twice} idempotency keys were signed twice"),
        ));
    }
    let signatures: u64 = counted.values().sum();
    Ok(json!({ "last_entry": last, "signatures": signatures, "chain": "holds", "usage": "agrees" }))
}

/// Prints every entry as a line of JSON, signatures as they were released; those of destroyed tenants cannot be opened.
pub(super) fn export(config: &Config) -> Result<(), Refusal> {
    let vault = master_key::read(&config.master_key)?;
    let store = open(config)?;
    let reader = store.reader().map_err(failed)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let write = |entry: Entry| {
        let mut line = show(&entry);
        if let Record::Signature { item, sealed, .. } = &entry.record {
            let opened = vault.open_signature(&reader, item, sealed).ok();
            line["signature"] = json!(opened.map(|signature| STANDARD.encode(signature)));
        }
        writeln!(out, "{line}").map_err(|source| StoreError::File {
            path: "standard output".into(),
            source,
        })
    };
    let result = reader.entries(Sequence(1), write);
    store.stop();
    match result {
        // Whoever reads may stop reading.
        Err(StoreError::File { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(failed),
    }
}

/// An entry for people, as far as it can be read without any key.
pub(super) fn show(entry: &Entry) -> Value {
    let mut value = match &entry.record {
        Record::Signature {
            item,
            package,
            sha256,
            ..
        } => {
            let mut value = show_item("signature", item);
            value["package"] = json!(package);
            value["signature_sha256"] = STANDARD.encode(sha256).into();
            value
        }
        Record::Pending { item } => show_item("pending", item),
        Record::Failed { item, code } => {
            let mut value = show_item("failed", item);
            value["code"] = json!(Code::from_wire(*code));
            value
        }
        Record::Discarded { item, reason } => {
            let mut value = show_item("discarded", item);
            value["reason"] = format!("{reason:?}").to_lowercase().into();
            value
        }
        Record::Change {
            actor,
            action,
            subject,
        } => {
            json!({ "kind": "change", "actor": actor, "action": action, "subject": subject })
        }
        Record::Opened { version } => json!({ "kind": "opened", "version": version }),
        Record::LossAccepted { first, last } => {
            json!({ "kind": "loss-accepted", "first": first, "last": last })
        }
        Record::TimeStamp { stamp, package } => json!({
            "kind": "time-stamp",
            "tenant": stamp.tenant,
            "app": stamp.app,
            "authority": stamp.authority,
            "serial": stamp.serial,
            "algorithm": stamp.algorithm,
            "digest": STANDARD.encode(&stamp.imprint),
            "package": package,
        }),
    };
    value["sequence"] = entry.sequence.0.into();
    value["at_ms"] = entry.at.0.into();
    value
}

fn show_item(kind: &str, item: &Item) -> Value {
    let mut value = json!({
        "kind": kind,
        "tenant": item.tenant,
        "app": item.app,
        "credential": item.credential,
        "key": item.key,
        "item": item.item,
        "of": item.of,
        "algorithm": item.algorithm,
        "format": item.format,
        "digest": STANDARD.encode(&item.digest),
    });
    if let Some(under) = &item.seal {
        value["seal"] = json!(under.seal);
        value["grant"] = json!(under.grant);
        value["document"] = json!(DocumentKind::from_wire(under.document));
        value["agent"] = json!(under.agent);
    }
    value
}

/// Opens a store whose last entries are missing.
pub(super) fn recover(config: &Config, accept_loss: bool) -> Result<(), Refusal> {
    if !accept_loss {
        serve::open_store(config, false)?;
        return print_line("nothing is missing");
    }
    serve::open_store(config, true)?;
    print_line("the store opens again; what is missing is recorded as missing")
}
