//! A sleeper that wakes when it was told to. The runtime's own timer counts whole milliseconds, which is as much as a
//! whole request takes; the kernel's (`timerfd_create(2)`) is good to some tens of microseconds.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One timer of the kernel's.
pub(crate) struct Sleeper(AsyncFd<OwnedFd>);

impl Sleeper {
    /// Within a runtime.
    pub(crate) fn new() -> std::io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self(AsyncFd::register_with_interest(timer, Interest::READABLE)?))
    }

    /// Sleeps for this long.
    pub(crate) async fn sleep(&self, length: Duration) -> std::io::Result<()> {
        if length.is_zero() {
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let until = Itimerspec {
            it_interval: zero,
            it_value: Timespec::try_from(length).map_err(std::io::Error::other)?,
        };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &until)?;
        let read = |timer: &OwnedFd| Ok(rustix::io::read(timer, &mut [0; 8])?);
        self.0.async_io(Interest::READABLE, read).await.map(|_: usize| ())
    }
}
