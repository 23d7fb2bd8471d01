//! The server's own CPU time, read from its metrics where the profile says where they are.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(2);

/// CPU seconds the engine's process has used, if they can be read.
pub(crate) async fn cpu_seconds(admin: Option<SocketAddr>) -> Option<f64> {
    let text = tokio::time::timeout(PATIENCE, fetch(admin?)).await.ok()??;
    let line = text
        .lines()
        .find(|line| line.starts_with("process_cpu_seconds_total "))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

async fn fetch(admin: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(admin).await.ok()?;
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .await
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    Some(text)
}
