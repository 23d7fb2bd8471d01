//! Operators' orders about devices and the keys in them. They need a running engine: devices are where it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actors::keymaster::refuse;
use actors::registrar::Ledger;
use actors::task::Task;
use hsm_pool::calibration::Calibration;
use hsm_pool::device::{DeviceConfig, Kek};
use hsm_pool::pool::{DeviceView, Pool};
use protocol::error_code::{Code, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Change, Reader};

/// What an operator wants done with a device.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "device-order", rename_all = "kebab-case")]
pub(crate) enum DeviceOrder {
    List,
    Add { name: String },
    Drain { name: String },
    Resume { name: String },
    Remove { name: String },
    Scale { name: String, processes: usize },
    Calibrate { name: String },
    Objects { name: String },
    MakeKek { name: String, label: String },
    ShareKek { from: String, to: String, label: String },
    Lanes { lanes: usize },
}

/// Where the configuration of a device that is to be added comes from.
pub(crate) trait DeviceSource: Send + Sync {
    fn device(&self, name: &str) -> Result<DeviceConfig, Refusal>;
}

/// Carries out orders about devices.
pub(crate) struct Devices<'a> {
    pub(crate) pool: &'a Pool<Task>,
    pub(crate) source: &'a dyn DeviceSource,
    pub(crate) ledger: &'a dyn Ledger,
    /// For what calibration has found before.
    pub(crate) reader: &'a Reader,
}

/// The knee that an earlier calibration has found.
pub(crate) fn stored_knee(reader: &Reader, device: &str) -> Option<u16> {
    let text = reader.calibration(device).ok().flatten()?;
    let found: Calibration = serde_json::from_str(&text).ok()?;
    Some(found.knee)
}

impl Devices<'_> {
    pub(crate) fn obey(&self, order: DeviceOrder) -> Result<Value, Refusal> {
        let pool = self.pool;
        let done = match order {
            DeviceOrder::List => return Ok(self.list()),
            DeviceOrder::Calibrate { name } => return self.calibrate(&name),
            DeviceOrder::Objects { name } => return self.objects(&name),
            DeviceOrder::MakeKek { name, label } => return self.make_kek(&name, &label),
            DeviceOrder::ShareKek { from, to, label } => return self.share_kek(&from, &to, &label),
            DeviceOrder::Lanes { lanes } => return self.set_lanes(lanes),
            DeviceOrder::Scale { processes: 0, .. } => {
                return Err(Refusal::new(
                    Code::Usage,
                    "at least one process is needed; drain the device instead",
                ));
            }
            DeviceOrder::Add { name } => {
                let knee = stored_knee(self.reader, &name);
                pool.add_device(self.source.device(&name)?, knee)
            }
            DeviceOrder::Drain { name } => pool.drain_device(&name),
            DeviceOrder::Resume { name } => pool.resume_device(&name),
            DeviceOrder::Remove { name } => pool.remove_device(&name),
            DeviceOrder::Scale { name, processes } => pool.scale_device(&name, processes),
        };
        done.map(|()| json!({})).map_err(|error| refuse(&error))
    }

    fn list(&self) -> Value {
        let lanes = self.pool.counters();
        json!({
            "lanes": {
                "size": self.pool.lanes(),
                "waiting": self.pool.waiting(),
                "signed": load(&lanes.signed),
                "failed": load(&lanes.failed),
            },
            "devices": self.pool.devices().iter().map(show).collect::<Vec<_>>(),
        })
    }

    fn calibrate(&self, name: &str) -> Result<Value, Refusal> {
        let found = self.pool.calibrate_device(name).map_err(|error| refuse(&error))?;
        let text =
            serde_json::to_string(&found).map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
        self.ledger.change(Change::SetCalibration {
            device: name.to_owned(),
            found: text,
        })?;
        Ok(show_calibration(&found))
    }

    fn objects(&self, name: &str) -> Result<Value, Refusal> {
        let objects = self.pool.objects(name).map_err(|error| refuse(&error))?;
        let show =
            |object: &hsm_pool::device::DeviceObject| json!({ "id": hex(&object.id), "label": object.label });
        Ok(Value::Array(objects.iter().map(show).collect()))
    }

    fn make_kek(&self, name: &str, label: &str) -> Result<Value, Refusal> {
        self.has_no_kek(name, label)?;
        let kek = self.pool.make_kek(name, label).map_err(|error| refuse(&error))?;
        Ok(show_kek(&kek))
    }

    fn share_kek(&self, from: &str, to: &str, label: &str) -> Result<Value, Refusal> {
        let missing = || {
            Refusal::new(
                Code::NotFound,
                format!("device '{from}' has no wrapping key '{label}'"),
            )
        };
        let kek = self.kek(from, label)?.ok_or_else(missing)?;
        self.has_no_kek(to, label)?;
        let shared = self
            .pool
            .share_kek(from, to, &kek.id)
            .map_err(|error| refuse(&error))?;
        if !kek.check.is_empty() && !shared.check.is_empty() && kek.check != shared.check {
            let text = "the wrapping key has another check value in the second device; do not use it";
            return Err(Refusal::new(Code::DeviceFailed, text));
        }
        Ok(show_kek(&shared))
    }

    /// Two wrapping keys of one label in a device could not be told apart.
    fn has_no_kek(&self, device: &str, label: &str) -> Result<(), Refusal> {
        if self.kek(device, label)?.is_none() {
            return Ok(());
        }
        let text = format!("device '{device}' has a wrapping key '{label}' already");
        Err(Refusal::new(Code::AlreadyExists, text))
    }

    fn kek(&self, device: &str, label: &str) -> Result<Option<Kek>, Refusal> {
        let devices = self.pool.devices();
        let missing = || Refusal::new(Code::NotFound, format!("no device '{device}'"));
        let device = devices
            .iter()
            .find(|view| *view.name == *device)
            .ok_or_else(missing)?;
        Ok(device
            .state
            .facts()
            .keks
            .into_iter()
            .find(|kek| kek.label == label))
    }

    fn set_lanes(&self, lanes: usize) -> Result<Value, Refusal> {
        if lanes == 0 {
            return Err(Refusal::new(Code::Usage, "at least one software lane is needed"));
        }
        self.pool
            .set_lanes(lanes)
            .map_err(|error| Refusal::new(Code::Internal, format!("a lane could not be started: {error}")))?;
        Ok(json!({ "lanes": self.pool.lanes() }))
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn show_kek(kek: &Kek) -> Value {
    json!({ "id": hex(&kek.id), "label": kek.label, "check_value": hex(&kek.check) })
}

fn show(view: &DeviceView) -> Value {
    let state: &Arc<_> = &view.state;
    let facts = state.facts();
    json!({
        "name": &*view.name,
        "state": state.state().name(),
        "reason": state.reason(),
        "share_percent": state.share(),
        "pin_latched": state.is_latched(),
        "token": facts.label,
        "serial": facts.serial,
        "model": facts.model,
        "interface": facts.interface,
        "wrapping_keys": facts.keks.iter().map(show_kek).collect::<Vec<_>>(),
        "processes": view.processes,
        "processes_up": state.workers_up(),
        "in_flight": state.in_flight.load(Ordering::Relaxed),
        "in_flight_limit": state.limit.load(Ordering::Relaxed),
        "waiting": view.waiting,
        "service_us": state.service_us().round(),
        "signed": load(&state.signed),
        "refused": load(&state.refused),
        "faults": load(&state.faults),
        "rejected": load(&state.rejected),
        "expired": load(&state.expired),
        "failovers": load(&state.failovers),
        "kills": load(&state.kills),
        "starts": load(&state.starts),
        "probes": load(&state.probes),
        "probes_failed": load(&state.probes_failed),
        "cache_hits": load(&state.cache_hits),
        "cache_misses": load(&state.cache_misses),
    })
}

fn show_calibration(found: &Calibration) -> Value {
    let point = |point: &hsm_pool::calibration::Point| {
        json!({
            "in_flight": point.depth,
            "per_second": point.per_second.round(),
            "average_ms": point.average.as_secs_f64() * 1e3,
            "p99_ms": point.p99.as_secs_f64() * 1e3,
        })
    };
    json!({
        "points": found.points.iter().map(point).collect::<Vec<_>>(),
        "knee": found.knee,
        "per_second_at_knee": found.per_second.round(),
        "promise_per_second": found.promise.map(f64::round),
    })
}
