//! Sockets: one UDP and one TCP socket for each core on the same address, by SO_REUSEPORT.
//!
//! The kernel would spread packets by source address, and a client that moves to another address would lose its
//! connection. So the group has a seven-instruction filter that reads the core's number from the QUIC connection id,
//! where [`CoreConnectionIds`] puts it. The sockets outlive a core that dies: their order in the group is the core's
//! number, and must not change.
#![expect(
    unsafe_code,
    reason = "setsockopt(SO_ATTACH_REUSEPORT_CBPF) has no safe wrapper"
)]

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use protocol::error_code::{Code, Refusal};
use quinn::{ConnectionId, ConnectionIdGenerator};
use socket2::{Domain, Protocol, Socket, Type};

/// The sockets of every core, in order.
pub(crate) struct Sockets {
    pub(crate) cores: Vec<(UdpSocket, TcpListener)>,
    /// The address that was bound, with the port if it was left to the system.
    pub(crate) address: SocketAddr,
}

const BACKLOG: i32 = 1024;
const UDP_BUFFER_BYTES: usize = 4 << 20;
/// Ports that are tried where the system picks one.
const PORT_TRIES: usize = 16;

/// Binds `cores` pairs of sockets.
pub(crate) fn bind(address: SocketAddr, cores: u16) -> Result<Sockets, Refusal> {
    let mut bound = bind_once(address, cores);
    for _ in 0..PORT_TRIES {
        match &bound {
            // The system picked a port that is free for UDP; that says nothing about TCP.
            Err(error) if address.port() == 0 && error.kind() == ErrorKind::AddrInUse => {
                bound = bind_once(address, cores);
            }
            _ => break,
        }
    }
    bound.map_err(|error| Refusal::new(Code::Usage, format!("cannot listen on {address}: {error}")))
}

fn bind_once(mut address: SocketAddr, cores: u16) -> std::io::Result<Sockets> {
    let mut sockets = Vec::new();
    for _ in 0..cores.max(1) {
        let udp = open(address, Type::DGRAM, Protocol::UDP)?;
        // With port 0 the system picks one, and everybody after follows.
        address = udp.local_addr()?.as_socket().unwrap_or(address);
        // Larger buffers ride out bursts; a system that gives less is no reason to stop.
        let _ = udp.set_recv_buffer_size(UDP_BUFFER_BYTES);
        let _ = udp.set_send_buffer_size(UDP_BUFFER_BYTES);
        let tcp = open(address, Type::STREAM, Protocol::TCP)?;
        tcp.listen(BACKLOG)?;
        sockets.push((udp.into(), tcp.into()));
    }
    if sockets.len() > 1 {
        steer(&sockets[0].0, sockets.len() as u32)?;
    }
    Ok(Sockets {
        cores: sockets,
        address,
    })
}

fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_reuse_port(true)?;
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Attaches the filter to the group: the first byte of the destination connection id, modulo the number of cores.
/// In a long header it is byte 6 (RFC 9000 17.2), in a short one byte 1 (17.3).
fn steer(socket: &UdpSocket, cores: u32) -> std::io::Result<()> {
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const JUMP: u16 = 0x05;
    const MODULO: u16 = 0x94;
    const RETURN_A: u16 = 0x16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(LOAD_BYTE, 0, 0, 0),
        step(JUMP_IF_SET, 0, 2, 0x80),
        step(LOAD_BYTE, 0, 0, 6),
        step(JUMP, 0, 0, 1),
        step(LOAD_BYTE, 0, 0, 1),
        step(MODULO, 0, 0, cores),
        step(RETURN_A, 0, 0, 0),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `filter` points to `program`, which lives until after the call; the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

const CONNECTION_ID_BYTES: usize = 8;

/// Makes connection ids whose first byte leads back to this core.
#[derive(Debug)]
pub(crate) struct CoreConnectionIds {
    pub(crate) core: u8,
    pub(crate) cores: u8,
}

impl ConnectionIdGenerator for CoreConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CONNECTION_ID_BYTES];
        // Without randomness ids would repeat and connections fail, which is what should happen then.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        let group = bytes[0] / self.cores;
        let groups = (255 - self.core) / self.cores;
        bytes[0] = group.min(groups) * self.cores + self.core;
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_ids_lead_back_to_their_core() {
        for cores in [1u8, 2, 3, 7, 64, 200] {
            for core in [0, cores / 2, cores - 1] {
                let mut ids = CoreConnectionIds { core, cores };
                let distinct: std::collections::HashSet<_> = (0..200)
                    .map(|_| {
                        let id = ids.generate_cid();
                        assert_eq!(id[0] % cores, core);
                        id
                    })
                    .collect();
                assert_eq!(distinct.len(), 200);
            }
        }
    }

    #[test]
    fn all_cores_share_one_address() {
        let sockets = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 3).unwrap();
        assert_ne!(sockets.address.port(), 0);
        for (udp, tcp) in &sockets.cores {
            assert_eq!(udp.local_addr().unwrap(), sockets.address);
            assert_eq!(tcp.local_addr().unwrap(), sockets.address);
        }
    }
}
