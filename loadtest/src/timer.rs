//! A sleeper that wakes when it was told to. The runtime's own timer counts whole milliseconds, which is as much as a
//! whole request takes; the kernel's (`timerfd_create(2)`) is good to some tens of microseconds.

use std::io;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

/// One timer of the kernel's. To the runtime it is a pipe: a descriptor that becomes readable, eight bytes at a time.
pub(crate) struct Sleeper(Receiver);

impl Sleeper {
    /// Within a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(Receiver::from_owned_fd_unchecked(timer)?))
    }

    /// Sleeps for this long.
    pub(crate) async fn sleep(&self, length: Duration) -> io::Result<()> {
        if length.is_zero() {
            return Ok(());
        }
        let until = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec::try_from(length).map_err(io::Error::other)?,
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &until)?;
        loop {
            self.0.readable().await?;
            // The number of times it has run out; a wake without one is the runtime's, and is waited through.
            match self.0.try_read(&mut [0; 8]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done.map(|_| ()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::clock;

    #[tokio::test]
    async fn it_sleeps_as_long_as_it_was_told_again_and_again() {
        let sleeper = Sleeper::new().unwrap();
        for micros in [0, 200, 3_000] {
            let length = Duration::from_micros(micros);
            let before = clock::monotonic();
            sleeper.sleep(length).await.unwrap();
            assert!(clock::monotonic() - before >= length);
        }
    }
}
