//! Every form a report can take, and where each goes.

mod hgrm;
pub(crate) mod html;
mod junit;
mod plot;
pub(crate) mod text;

use protocol::error_code::Refusal;

use crate::args::Outputs;
use crate::files;
use crate::report::Report;

/// Writes the report in every form that was asked for, but the interval log, which is written as it happens.
pub(crate) fn write(outputs: &Outputs, report: &Report) -> Result<(), Refusal> {
    if let Some(path) = outputs.path(outputs.json.as_ref(), "json") {
        let text = serde_json::to_string_pretty(report).map_err(|error| files::failed("JSON", error))?;
        files::write(&path, text + "\n")?;
    }
    if let Some(path) = outputs.path(outputs.hgrm.as_ref(), "hgrm") {
        let latencies = report
            .latencies()
            .map_err(|error| files::failed("report", error))?;
        files::write(&path, hgrm::text(&latencies))?;
    }
    if let Some(path) = outputs.path(outputs.html.as_ref(), "html") {
        let page = html::page(report, outputs.language).map_err(|error| files::failed("report", error))?;
        files::write(&path, page)?;
    }
    if let Some(path) = outputs.path(outputs.junit.as_ref(), "xml") {
        files::write(
            &path,
            junit::text(report).map_err(|error| files::failed("JUnit", error))?,
        )?;
    }
    Ok(())
}
