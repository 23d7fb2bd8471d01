//! Orders about incidents.

use actors::registrar::Ledger;
use protocol::clock;
use protocol::error_code::Refusal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sla::calendar::MinuteIndex;
use store::{Change, IncidentChange, IncidentRow, IncidentStep, Reader};

/// Incidents in a list.
const LISTED_MAX: u32 = 1_000;

/// What is wanted of incidents. Times that are not given are now.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "incident-order", rename_all = "kebab-case")]
pub(crate) enum IncidentOrder {
    Open {
        id: String,
        grade: u8,
        text: String,
        began: Option<MinuteIndex>,
    },
    Step {
        id: String,
        step: IncidentStep,
        at: Option<MinuteIndex>,
    },
    List,
}

/// Carries an order out.
pub(crate) fn obey(ledger: &dyn Ledger, reader: &Reader, order: IncidentOrder) -> Result<Value, Refusal> {
    let minute = |given: Option<MinuteIndex>| {
        let now = || MinuteIndex::of_unix_seconds(clock::wall().seconds());
        given.unwrap_or_else(now).number()
    };
    let change = match order {
        IncidentOrder::Open {
            id,
            grade,
            text,
            began,
        } => IncidentChange::Open {
            id,
            grade,
            text,
            began: minute(began),
        },
        IncidentOrder::Step { id, step, at } => IncidentChange::Step {
            id,
            step,
            at: minute(at),
        },
        IncidentOrder::List => {
            let list = reader.incidents(LISTED_MAX).map_err(|error| error.refusal())?;
            return Ok(Value::Array(list.iter().map(show).collect()));
        }
    };
    ledger.change(Change::Incidents(change))?;
    Ok(json!({}))
}

/// An incident as operators see it. How its clocks stand under an agreement is in the tenants' reports.
fn show(incident: &IncidentRow) -> Value {
    let at = |minute: Option<u32>| minute.map(|minute| MinuteIndex::new(minute).to_string());
    let minutes = |end: Option<u32>| end.map(|end| end.saturating_sub(incident.began));
    json!({
        "id": incident.id,
        "grade": incident.grade,
        "text": incident.text,
        "began": at(Some(incident.began)),
        "responded": at(incident.responded),
        "repaired": at(incident.repaired),
        "closed": at(incident.closed),
        "response_minutes": minutes(incident.responded),
        "repair_minutes": minutes(incident.repaired),
    })
}
