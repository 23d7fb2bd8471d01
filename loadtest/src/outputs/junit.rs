//! JUnit XML: one test case for each limit of the SLA, and one for the generator itself, for systems that show test results.

use std::time::Duration;

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use crate::report::Report;

pub(super) fn text(report: &Report) -> Result<String, quick_junit::SerializeError> {
    let mut suite = TestSuite::new(report.run.title.as_str());
    suite.set_time(Duration::from_secs_f64(report.seconds));
    let lag = &report.send_lag_ms;
    let lag = format!(
        "the generator sent up to {:.1} ms late, {:.1} ms at the 99th percentile",
        lag.max, lag.p99
    );
    suite.add_test_case(case(
        "generator_kept_its_schedule",
        !report.saturated,
        &lag,
        NonSuccessKind::Error,
    ));
    for check in &report.checks {
        let found = check
            .found
            .map_or_else(|| "not seen".to_owned(), |found| format!("{found:.4}"));
        let says = format!("{} {found}, limit {}", check.name, check.limit);
        suite.add_test_case(case(&check.name, check.kept, &says, NonSuccessKind::Failure));
    }
    let mut all = quick_junit::Report::new("cinnabar-load");
    all.add_test_suite(suite);
    all.to_string()
}

fn case(name: &str, passed: bool, says: &str, kind: NonSuccessKind) -> TestCase {
    let status = if passed {
        TestCaseStatus::success()
    } else {
        let mut status = TestCaseStatus::non_success(kind);
        status.set_message(says);
        status
    };
    let mut case = TestCase::new(name, status);
    case.set_classname("sla");
    case.set_system_out(says);
    case
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sla::Sla;
    use crate::tally::tests::{SECOND, ms, totals};

    #[test]
    fn a_broken_limit_is_a_failure_and_a_late_generator_an_error() {
        let mut report = Report::of(&totals(&[(5_000, true)], ms(20)), SECOND);
        report.run.title = "night <1> & more".into();
        Sla::default().judge(&mut report);
        let text = text(&report).unwrap();
        assert!(
            text.contains(r#"tests="4""#) && text.contains(r#"failures="2""#),
            "{text}"
        );
        assert!(text.contains(r#"errors="1""#), "{text}");
        assert!(text.contains("night &lt;1&gt; &amp; more"), "{text}");
        assert!(text.contains("max_ms 5"), "{text}");
    }
}
