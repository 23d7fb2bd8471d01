//! The forms in which /metrics is given, and which of them a scraper asks for: OpenMetrics 1.0 text, the older Prometheus
//! text (0.0.4), or Prometheus protobuf, which alone carries native histograms.

/// A form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    OpenMetrics,
    Prometheus,
    Protobuf,
}

impl Form {
    /// The media type.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// The form that an Accept header wants most (RFC 9110 12.5.1); OpenMetrics where it does not say.
    pub(crate) fn accepted(header: Option<&str>) -> Self {
        let wanted = header.unwrap_or_default().split(',').filter_map(offer);
        // Of equals the first counts, as scrapers list them.
        let best = wanted.fold(None, |best: Option<(Self, u16)>, (form, weight)| match best {
            Some((_, known)) if known >= weight => best,
            _ if weight == 0 => best,
            _ => Some((form, weight)),
        });
        best.map_or(Self::OpenMetrics, |(form, _)| form)
    }
}

/// One offer of an Accept header, with its weight in thousandths.
fn offer(text: &str) -> Option<(Form, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next()?;
    let (mut weight, mut is_metric_family, mut is_delimited) = (1_000, false, false);
    for part in parts {
        match part.split_once('=') {
            Some(("q", value)) => weight = (value.parse::<f64>().ok()?.clamp(0.0, 1.0) * 1e3) as u16,
            Some(("proto", value)) => is_metric_family = value == "io.prometheus.client.MetricFamily",
            Some(("encoding", value)) => is_delimited = value == "delimited",
            _ => {}
        }
    }
    let form = match kind {
        "application/openmetrics-text" => Form::OpenMetrics,
        "application/vnd.google.protobuf" if is_metric_family && is_delimited => Form::Protobuf,
        "text/plain" | "text/*" => Form::Prometheus,
        _ => return None,
    };
    Some((form, weight))
}

/// OpenMetrics text as the older format has it: a counter's family has its sample's name, and there is neither a unit nor
/// an end.
pub(crate) fn to_prometheus(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut help: Option<(&str, &str)> = None;
    for line in open.lines() {
        if let Some((name, text)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            // How the family is called is known with its type, on the next line.
            help = Some((name, text));
            continue;
        }
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let kind = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '));
        if let Some((name, kind)) = kind {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((helped, text)) = help.take()
                && helped == name
            {
                out += &format!("# HELP {name}{suffix} {text}\n");
            }
            out += &format!("# TYPE {name}{suffix} {kind}\n");
            continue;
        }
        out += line;
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_what_it_wants_most() {
        let prometheus_2_42 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let with_native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (header, form) in [
            (None, Form::OpenMetrics),
            (Some("*/*"), Form::OpenMetrics),
            (Some("text/plain"), Form::Prometheus),
            (
                Some("text/plain; version=0.0.4; q=0.5, application/openmetrics-text; q=0.4"),
                Form::Prometheus,
            ),
            (Some("text/plain;q=0, */*"), Form::OpenMetrics),
            (Some("application/vnd.google.protobuf"), Form::OpenMetrics),
            (Some("text/plain;q=x"), Form::OpenMetrics),
            (Some(prometheus_2_42), Form::OpenMetrics),
            (Some(with_native), Form::Protobuf),
        ] {
            assert_eq!(Form::accepted(header), form, "{header:?}");
        }
    }

    #[test]
    fn the_older_text_names_counters_by_their_samples() {
        let open = "# HELP a Some.\n# TYPE a counter\na_total{b=\"# EOF\"} 1\n# HELP c_seconds Time.\n# TYPE c_seconds gauge\n# UNIT c_seconds seconds\nc_seconds 2\n# EOF\n";
        let older = "# HELP a_total Some.\n# TYPE a_total counter\na_total{b=\"# EOF\"} 1\n# HELP c_seconds Time.\n# TYPE c_seconds gauge\nc_seconds 2\n";
        assert_eq!(to_prometheus(open), older);
    }
}
