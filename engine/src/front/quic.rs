//! The QUIC front of one core: an endpoint of its own, connections, streams.

use std::net::UdpSocket;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use protocol::error_code::{Code, Refusal};
use protocol::frame::{self, FrameReader};
use protocol::limits::{FRAME_BYTES_MAX, SESSION_PROOF_MS_MAX, SESSION_STREAMS_MAX};
use protocol::message;
use quinn::crypto::HmacKey;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use quinn::{RecvStream, SendStream};
use tokio::sync::watch;

use super::session::Opening;
use super::sockets::CoreConnectionIds;
use super::stream::{self, Session};
use super::{FrontContext, Phase};

const IDLE_MAX: Duration = Duration::from_secs(30);
/// How long a closing frame may take to arrive before the connection is closed over it.
const GOODBYE: Duration = Duration::from_millis(250);

/// What every core's endpoint is made of.
#[derive(Clone)]
pub(crate) struct QuicParts {
    pub(crate) server: ServerConfig,
    /// One key for all: a packet for a connection that a dead core held is answered with a reset its client believes.
    pub(crate) reset_key: Arc<dyn HmacKey>,
    pub(crate) cores: u8,
}

/// The server configuration all cores share.
pub(crate) fn server_config(tls: Arc<QuicServerConfig>) -> ServerConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(SESSION_STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        // A stream may hold one frame and one read beyond it; a connection a few of them.
        .stream_receive_window(VarInt::from_u32(FRAME_BYTES_MAX as u32 * 2))
        .receive_window(VarInt::from_u32(FRAME_BYTES_MAX as u32 * 8))
        .send_window(FRAME_BYTES_MAX as u64 * 8)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IDLE_MAX.try_into().ok());
    let mut config = ServerConfig::with_crypto(tls);
    config.transport_config(Arc::new(transport));
    config
}

/// Opens a core's endpoint on its socket.
pub(crate) fn endpoint(parts: &QuicParts, core: u8, socket: UdpSocket) -> std::io::Result<Endpoint> {
    let cores = parts.cores;
    let mut config = EndpointConfig::new(Arc::clone(&parts.reset_key));
    config.cid_generator(move || Box::new(CoreConnectionIds { core, cores }));
    Endpoint::new(config, Some(parts.server.clone()), socket, Arc::new(TokioRuntime))
}

/// Serves an endpoint until it is told to stop.
pub(crate) async fn serve(context: Rc<FrontContext>, endpoint: Endpoint, mut phase: watch::Receiver<Phase>) {
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => accept(&context, incoming),
                None => break,
            },
            () = context.core.ending() => {
                endpoint.close(VarInt::from_u32(u32::from(Code::Restarted.wire())), b"this core restarts");
                endpoint.wait_idle().await;
                return;
            }
            changed = phase.wait_for(|phase| *phase != Phase::Serving) => {
                drop(changed);
                endpoint.set_server_config(None);
                break;
            }
        }
    }
    // A sender that has gone means that the process is going, which is the same order.
    let _ = phase.wait_for(|phase| *phase == Phase::Closing).await;
    endpoint.close(
        VarInt::from_u32(u32::from(Code::ShuttingDown.wire())),
        b"the engine stops",
    );
    endpoint.wait_idle().await;
}

fn accept(context: &Rc<FrontContext>, incoming: Incoming) {
    let Some(place) = context.admit(incoming.remote_address().ip()) else {
        context.core.stats().count_refusal(Code::TooManyConnections);
        incoming.refuse();
        return;
    };
    let context = Rc::clone(context);
    actix_rt::spawn(async move {
        let limit = Duration::from_millis(SESSION_PROOF_MS_MAX);
        if let Ok(Ok(connection)) = tokio::time::timeout(limit, incoming).await {
            connected(&context, connection).await;
        }
        drop(place);
    });
}

async fn connected(context: &Rc<FrontContext>, connection: Connection) {
    let limit = Duration::from_millis(SESSION_PROOF_MS_MAX);
    let begun = tokio::time::timeout(limit, begin(context, &connection)).await;
    let (session, send, recv, frames) = match begun {
        Ok(Some(begun)) => begun,
        Ok(None) => return,
        Err(_) => {
            context.core.stats().count_refusal(Code::PeerTooSlow);
            close(
                &connection,
                &Refusal::new(Code::PeerTooSlow, "the session was not proved in time"),
            );
            return;
        }
    };
    spawn_stream(context, &connection, &session, (send, recv), frames);
    while let Ok(stream) = connection.accept_bi().await {
        spawn_stream(context, &connection, &session, stream, FrameReader::default());
    }
}

type Begun = (Rc<Session>, SendStream, RecvStream, FrameReader);

/// Takes the first stream and proves the session on it. `None`: the connection is closed, and the peer knows why.
async fn begin(context: &Rc<FrontContext>, connection: &Connection) -> Option<Begun> {
    let (mut send, mut recv) = connection.accept_bi().await.ok()?;
    let mut frames = FrameReader::default();
    let opening = Opening {
        context,
        connection,
        send: &mut send,
        recv: &mut recv,
        frames: &mut frames,
    };
    match opening.prove().await {
        Ok(session) => Some((session, send, recv, frames)),
        Err(refusal) => {
            context.core.stats().count_refusal(refusal.code);
            say_goodbye(connection, send, &refusal).await;
            None
        }
    }
}

fn spawn_stream(
    context: &Rc<FrontContext>,
    connection: &Connection,
    session: &Rc<Session>,
    (send, recv): (SendStream, RecvStream),
    frames: FrameReader,
) {
    let (core, session) = (Rc::clone(&context.core), Rc::clone(session));
    let connection = connection.clone();
    actix_rt::spawn(async move {
        let stats = Rc::clone(&core);
        if let Some((send, refusal)) = stream::serve(core, session, recv, send, frames).await {
            stats.stats().count_refusal(refusal.code);
            say_goodbye(&connection, send, &refusal).await;
        }
    });
}

/// Says why on the stream, then closes the connection with the same code.
async fn say_goodbye(connection: &Connection, mut send: SendStream, refusal: &Refusal) {
    let mut out = Vec::new();
    frame::append(&mut out, |out| message::encode_closing(out, refusal));
    let said = async {
        send.write_all(&out).await.ok()?;
        send.finish().ok()?;
        send.stopped().await.ok()
    };
    // Whether it arrives or not, the connection's own close carries the code as well.
    let _ = tokio::time::timeout(GOODBYE, said).await;
    close(connection, refusal);
}

fn close(connection: &Connection, refusal: &Refusal) {
    connection.close(
        VarInt::from_u32(u32::from(refusal.code.wire())),
        refusal.message.as_bytes(),
    );
}
