//! Alerts and messages to the outside.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use store::Channel;

use super::{Families, load};
use crate::alerts::Alarms;
use crate::outgoing::Counters;

/// Reads them.
pub(crate) struct Outgoing {
    pub(crate) counters: Arc<Counters>,
    pub(crate) alarms: Arc<Alarms>,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").finish_non_exhaustive()
    }
}

impl Collector for Outgoing {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut families = Families(encoder);
        self.encode_attempts(&mut families)?;
        let help = "Messages that wait to be sent";
        let waiting = load(&self.counters.waiting) as f64;
        families.gauge("cinnabar_outgoing_waiting", help, None, waiting)?;
        let mut raised: BTreeMap<&str, u32> = BTreeMap::new();
        let alerts = self.alarms.raised();
        for alert in &alerts {
            *raised.entry(alert.condition.name()).or_default() += 1;
        }
        let raised = raised
            .into_iter()
            .map(|(name, count)| ([("alert", name)], f64::from(count)));
        families.gauges("cinnabar_alerts", "What is wrong now, by alert", raised)
    }
}

impl Outgoing {
    fn encode_attempts(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let help = "Attempts to send a message, by channel and by how they ended";
        let kind = MetricType::Counter;
        let mut metric = families
            .0
            .encode_descriptor("cinnabar_outgoing_attempts", help, None, kind)?;
        let outcomes = [
            ("delivered", &self.counters.delivered),
            ("failed", &self.counters.failed),
            ("given_up", &self.counters.given_up),
        ];
        for channel in [Channel::Webhook, Channel::Email] {
            for (outcome, counters) in outcomes {
                metric
                    .encode_family(&[("channel", channel.name()), ("outcome", outcome)])?
                    .encode_counter::<NoLabelSet, _, u64>(&load(&counters[channel as usize]), None)?;
            }
        }
        Ok(())
    }
}
