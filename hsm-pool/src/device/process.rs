//! A running worker process as the engine sees it: a child and a socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use protocol::clock;
use protocol::frame::FrameReader;
use protocol::limits::DEVICE_HANG_MS_MAX;
use secrecy::ExposeSecret;

use super::ckr::Class;
use super::wire::{FRAME_BYTES_MAX, FromWorker, Order, Ordered, Setup, ToWorker, TokenFacts, to_frame};
use super::{DeviceConfig, Kind, WORKER_ARGUMENT};

/// A device call that takes longer is taken for hung.
pub(crate) const HANG: Duration = Duration::from_millis(DEVICE_HANG_MS_MAX);
/// Opening a token: loading a library, finding slots, logging in over a network.
const SETUP: Duration = Duration::from_secs(10);

/// Why a worker process is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessEnd {
    #[error("it could not be started: {0}")]
    Start(std::io::Error),
    #[error("it could not open the token: {0}")]
    Setup(String),
    #[error("the PIN was refused: {0}")]
    Pin(String),
    #[error("it hung and was killed")]
    Hung,
    #[error("it ended")]
    Gone,
    #[error("it sent something that cannot be read")]
    Unreadable,
    #[error("a signature it made does not verify")]
    Lied,
    #[error("it is not needed any more")]
    Retired,
}

/// A running worker process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    socket: UnixStream,
    frames: FrameReader,
    buffer: Vec<u8>,
    pub(crate) facts: TokenFacts,
}

impl Process {
    /// Starts one with `sessions` sessions and opens the token.
    pub(crate) fn start(config: &DeviceConfig, sessions: u16) -> Result<Self, ProcessEnd> {
        let (socket, theirs) = UnixStream::pair().map_err(ProcessEnd::Start)?;
        let child = Command::new(&config.program)
            .arg(WORKER_ARGUMENT)
            .envs(config.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(ProcessEnd::Start)?;
        let mut process = Self {
            child,
            socket,
            frames: FrameReader::default(),
            buffer: vec![0; 1 << 16],
            facts: TokenFacts::default(),
        };
        // A worker that does not even read is as hung as one that does not answer.
        process
            .socket
            .set_write_timeout(Some(HANG))
            .map_err(ProcessEnd::Start)?;
        process.set_up(config, sessions)?;
        Ok(process)
    }

    fn set_up(&mut self, config: &DeviceConfig, sessions: u16) -> Result<(), ProcessEnd> {
        let module = config.module.to_string_lossy();
        let lossy = |list: &Vec<std::path::PathBuf>| -> Vec<String> {
            list.iter()
                .map(|path| path.to_string_lossy().into_owned())
                .collect()
        };
        let writable = config.writable.as_ref().map(lossy);
        let order = zeroize::Zeroizing::new(to_frame(&ToWorker::Setup(Setup {
            sdf: config.kind == Kind::Sdf,
            module: &module,
            label: config.token_label.as_deref(),
            serial: config.token_serial.as_deref(),
            pin: config.pin.expose_secret(),
            sessions,
            cache: u32::try_from(config.unwrapped_max).unwrap_or(u32::MAX),
            probe: config.probe_key.as_deref(),
            writable: writable
                .as_ref()
                .map(|list| list.iter().map(String::as_str).collect()),
        })));
        self.send(&order)?;
        match self.receive(SETUP)? {
            FromWorker::Ready(facts) => {
                self.facts = facts;
                Ok(())
            }
            FromWorker::SetupFailed(error) if error.class == Class::Auth => Err(ProcessEnd::Pin(error.text)),
            FromWorker::SetupFailed(error) => Err(ProcessEnd::Setup(error.text)),
            _ => Err(ProcessEnd::Unreadable),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// For polling.
    pub(crate) const fn socket(&self) -> &UnixStream {
        &self.socket
    }

    pub(crate) fn send(&mut self, frame: &[u8]) -> Result<(), ProcessEnd> {
        self.socket.write_all(frame).map_err(|error| end_of(&error))
    }

    /// A message that has arrived already.
    pub(crate) fn next(&mut self) -> Result<Option<FromWorker>, ProcessEnd> {
        match self.frames.next_frame(FRAME_BYTES_MAX) {
            Ok(Some(frame)) => minicbor::decode(frame)
                .map(Some)
                .map_err(|_| ProcessEnd::Unreadable),
            Ok(None) => Ok(None),
            Err(_) => Err(ProcessEnd::Unreadable),
        }
    }

    /// Reads once; waits at most `patience`.
    pub(crate) fn read(&mut self, patience: Duration) -> Result<(), ProcessEnd> {
        if patience.is_zero() {
            return Err(ProcessEnd::Hung);
        }
        self.socket
            .set_read_timeout(Some(patience))
            .map_err(|_| ProcessEnd::Gone)?;
        match self
            .socket
            .read(&mut self.buffer)
            .map_err(|error| end_of(&error))?
        {
            0 => Err(ProcessEnd::Gone),
            count => {
                self.frames.extend(&self.buffer[..count]);
                Ok(())
            }
        }
    }

    /// The next message, if one comes within `patience`.
    pub(crate) fn receive(&mut self, patience: Duration) -> Result<FromWorker, ProcessEnd> {
        let until = clock::monotonic() + patience;
        loop {
            if let Some(message) = self.next()? {
                return Ok(message);
            }
            self.read(until.saturating_duration_since(clock::monotonic()))?;
        }
    }

    /// Has an order carried out.
    pub(crate) fn order(&mut self, order: Order, patience: Duration) -> Result<Ordered, ProcessEnd> {
        self.send(&to_frame(&ToWorker::Order(order)))?;
        match self.receive(patience)? {
            FromWorker::Ordered(answer) => Ok(answer),
            _ => Err(ProcessEnd::Unreadable),
        }
    }
}

/// How long a process that is not needed any more may take to end by itself.
const GOODBYE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(2);

impl Process {
    /// Lets a process end by itself: a library that is killed while it writes may damage a token (SoftHSM2 does).
    pub(crate) fn retire(mut self) {
        // Its read ends, and so does it.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let until = clock::monotonic() + GOODBYE;
        while matches!(self.child.try_wait(), Ok(None)) && clock::monotonic() < until {
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is reaped here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn end_of(error: &std::io::Error) -> ProcessEnd {
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => ProcessEnd::Hung,
        _ => ProcessEnd::Gone,
    }
}
