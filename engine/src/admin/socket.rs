//! `admin.sock` in the data folder: how the command line reaches a running engine (SEMANTICS 2.6). Mode 0600, and the
//! peer must be our own user or root. One order a connection, as a line of JSON each way.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::error_code::{Code, Refusal};

use super::operator::{Operator, Order, Reply};

/// A thousand wrapped RSA-4096 keys, which is what one commit takes, are half of this.
const ORDER_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Generating a key in a device can take long; a client that says nothing may not.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(120);

/// The socket's path.
pub(crate) fn path(home: &Path) -> PathBuf {
    home.join("admin.sock")
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Refusal + use<> {
    let path = path.to_owned();
    move |error| Refusal::new(Code::File, format!("{}: {error}", path.display()))
}

/// Binds the socket. A file left by a dead engine is removed: the store's lock says that no other one lives.
pub(crate) fn bind(home: &Path) -> Result<UnixListener, Refusal> {
    let path = path(home);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&path)(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed(&path))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed(&path))?;
    Ok(listener)
}

/// Serves the socket on its own thread for as long as the process lives, one order at a time.
pub(crate) fn serve(listener: UnixListener, operator: Arc<Operator>) -> std::io::Result<()> {
    let run = move || {
        for stream in listener.incoming().flatten() {
            if let Err(error) = answer(&operator, &stream) {
                tracing::warn!(%error, "admin socket");
            }
        }
    };
    std::thread::Builder::new()
        .name("admin".into())
        .spawn(run)
        .map(drop)
}

fn answer(operator: &Operator, mut stream: &UnixStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    let reply = match take_order(stream, peer.uid.as_raw()) {
        Ok(order) => match operator.obey(&format!("uid {}", peer.uid.as_raw()), order) {
            Ok(value) => Reply::Done(value),
            Err(refusal) => Reply::Refused(refusal),
        },
        Err(refusal) => Reply::Refused(refusal),
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn take_order(stream: &UnixStream, uid: u32) -> Result<Order, Refusal> {
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(Refusal::new(
            Code::Unauthenticated,
            "this socket is for the engine's own user",
        ));
    }
    let mut line = String::new();
    let unreadable = |error| {
        Refusal::new(
            Code::MalformedRequest,
            format!("the order cannot be read: {error}"),
        )
    };
    BufReader::new(stream.take(ORDER_BYTES_MAX))
        .read_line(&mut line)
        .map_err(unreadable)?;
    serde_json::from_str(&line).map_err(|error| Refusal::new(Code::MalformedRequest, error.to_string()))
}

/// Sends an order to a running engine. `None`: no engine listens.
pub(crate) fn send(home: &Path, order: &Order) -> Option<Result<serde_json::Value, Refusal>> {
    let stream = UnixStream::connect(path(home)).ok()?;
    Some(talk(&stream, order).unwrap_or_else(|error| {
        Err(Refusal::new(
            Code::Connection,
            format!("the engine did not answer: {error}"),
        ))
    }))
}

fn talk(mut stream: &UnixStream, order: &Order) -> std::io::Result<Result<serde_json::Value, Refusal>> {
    stream.set_read_timeout(Some(ANSWER))?;
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(match serde_json::from_str(&answer)? {
        Reply::Done(value) => Ok(value),
        Reply::Refused(refusal) => Err(refusal),
    })
}
