//! The worker process: loads one module, opens one token, and signs what it is sent until its socket closes.
//!
//! It takes its orders on standard input, which is a socket. It writes no core dumps and cannot be looked into by
//! others. Any error that leaves the session in doubt ends the process; a new one is cheaper than a wrong key.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use cryptoki::types::AuthPin;
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::clock;
use protocol::frame::FrameReader;

use super::ckr::Class;
use super::token::{Selector, Token, TokenError};
use super::wire::{FRAME_BYTES_MAX, FromWorker, Op, Signed, ToWorker, WireError, to_frame};

/// Results are held back at most this long, so that a call that hangs does not take finished ones with it.
const HOLD_BACK: Duration = Duration::from_micros(300);

/// Why a worker ends.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Standard input is not the socket the engine passes.
    #[error("standard input: {0}")]
    Io(#[from] std::io::Error),
    /// The engine sent something else than a worker expects.
    #[error("an order that cannot be read")]
    Order,
    /// The token could not be opened.
    #[error("{0}")]
    Setup(String),
}

/// Runs a worker until the engine closes the socket.
pub fn main() -> Result<(), WorkerError> {
    seal_process();
    let mut engine =
        UnixStream::from(rustix::io::dup(rustix::stdio::stdin().as_fd()).map_err(std::io::Error::from)?);
    let mut frames = FrameReader::default();
    let Some(setup) = next_frame(&mut engine, &mut frames)? else {
        return Ok(());
    };
    let mut token = match set_up(&setup) {
        Ok(token) => token,
        Err(error) => {
            send(&mut engine, &FromWorker::SetupFailed(wire_error(&error)))?;
            return Err(WorkerError::Setup(error.to_string()));
        }
    };
    drop(setup);
    send(&mut engine, &FromWorker::Ready(token.label().to_owned()))?;
    while let Some(order) = next_frame(&mut engine, &mut frames)? {
        obey(&mut engine, &mut token, &order)?;
    }
    Ok(())
}

/// No core dump, no debugger: the process holds a PIN and open sessions. Failing to set this is no reason to stop.
fn seal_process() {
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

fn next_frame(engine: &mut UnixStream, frames: &mut FrameReader) -> Result<Option<Vec<u8>>, WorkerError> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        if let Some(frame) = frames
            .next_frame(FRAME_BYTES_MAX)
            .map_err(|_| WorkerError::Order)?
        {
            return Ok(Some(frame.to_vec()));
        }
        match engine.read(&mut buffer)? {
            0 => return Ok(None),
            count => frames.extend(&buffer[..count]),
        }
    }
}

fn send(engine: &mut UnixStream, message: &FromWorker) -> Result<(), WorkerError> {
    Ok(engine.write_all(&to_frame(message))?)
}

fn set_up(frame: &[u8]) -> Result<Token, TokenError> {
    let Ok(ToWorker::Setup {
        module,
        label,
        serial,
        pin,
    }) = minicbor::decode(frame)
    else {
        return Err(TokenError::Unreadable);
    };
    Token::open(
        &Selector {
            module,
            label,
            serial,
        },
        &AuthPin::from(pin.to_owned()),
    )
}

fn wire_error(error: &TokenError) -> WireError {
    WireError {
        text: error.to_string(),
        auth: error.class() == Class::Auth,
    }
}

fn obey(engine: &mut UnixStream, token: &mut Token, order: &[u8]) -> Result<(), WorkerError> {
    match minicbor::decode(order).map_err(|_| WorkerError::Order)? {
        ToWorker::Sign(ops) => sign(engine, token, &ops),
        ToWorker::Generate { kind, label } => {
            let made = kind
                .parse::<KeyKind>()
                .map_err(|_| TokenError::Unsupported)
                .and_then(|kind| token.generate(kind, label));
            send(
                engine,
                &match made {
                    Ok(key) => FromWorker::Generated {
                        object: key.object,
                        public_key: key.public_key,
                    },
                    Err(error) => FromWorker::GenerateFailed(wire_error(&error)),
                },
            )
        }
        ToWorker::Setup { .. } => Err(WorkerError::Order),
    }
}

fn sign(engine: &mut UnixStream, token: &mut Token, ops: &[Op<'_>]) -> Result<(), WorkerError> {
    let mut held = Vec::with_capacity(ops.len());
    let mut since = clock::monotonic();
    for op in ops {
        if !held.is_empty() && since.elapsed() > HOLD_BACK {
            send(engine, &FromWorker::Signed(std::mem::take(&mut held)))?;
            since = clock::monotonic();
        }
        let result = Algorithm::from_wire(op.algorithm)
            .ok_or(TokenError::Unsupported)
            .and_then(|algorithm| token.sign(op.object, algorithm, op.input));
        let in_doubt = result.as_ref().is_err_and(leaves_doubt);
        held.push(to_signed(op.id, result));
        if in_doubt {
            send(engine, &FromWorker::Signed(held))?;
            return Err(WorkerError::Setup("the session is in doubt".into()));
        }
    }
    send(engine, &FromWorker::Signed(held))
}

fn leaves_doubt(error: &TokenError) -> bool {
    matches!(
        error.class(),
        Class::Session | Class::Device | Class::Token | Class::Auth
    )
}

fn to_signed(id: u64, result: Result<Vec<u8>, TokenError>) -> Signed {
    match result {
        Ok(signature) => Signed {
            id,
            signature,
            error: None,
        },
        Err(error) => Signed {
            id,
            signature: Vec::new(),
            error: Some(wire_error(&error)),
        },
    }
}
