//! Logs: to standard error, through `tracing`. No secret, digest or personal data is ever handed to it.

use tracing_subscriber::EnvFilter;

/// Starts logging with a filter such as `info` or `engine=debug,store=info`.
pub(crate) fn start(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}
