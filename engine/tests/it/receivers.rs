//! Receivers of messages: an HTTP server that answers what it is told to, and an SMTP server (RFC 5321) that takes letters;
//! both also behind TLS, with a certificate by a CA of the test's own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::run;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    /// The request line.
    pub(crate) target: String,
    head: Vec<String>,
    pub(crate) body: String,
}

impl Heard {
    /// A header field's value.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> &str {
        let line = self
            .head
            .iter()
            .find(|line| line.to_lowercase().starts_with(&format!("{name}:")));
        line.and_then(|line| line.split_once(':')).unwrap().1.trim()
    }
}

/// A CA in `ca.pem` of a folder, and a server on 127.0.0.1 that it certifies.
pub(crate) fn certified(folder: &Path) -> Arc<ServerConfig> {
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let openssl = |line: &str| {
        let words = line.split_whitespace();
        run(Command::new("openssl").current_dir(folder).args(words)).ok();
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!(
        "req -x509 {key} -days 2 -subj /CN=ca -keyout ca.key -out ca.pem"
    ));
    openssl(&format!(
        "req -new {key} -subj /CN=server -keyout server.key -out server.csr"
    ));
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem",
    );
    let chain = CertificateDer::pem_file_iter(folder.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key);
    Arc::new(config.unwrap())
}

fn tls(stream: TcpStream, config: &Arc<ServerConfig>) -> StreamOwned<ServerConnection, TcpStream> {
    StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), stream)
}

/// Accepts on a thread of its own until it is dropped.
struct Server {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Server {
    fn start(mut serve: impl FnMut(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                serve(stream);
            }
        });
        Self { address, over }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes the thread, which closes its listener.
        let _ = TcpStream::connect(self.address);
        while TcpStream::connect(self.address).is_ok() {
            std::thread::yield_now();
        }
    }
}

/// What an HTTP server answers: status line and body.
pub(crate) type Said = (String, String);

/// An HTTP server.
pub(crate) struct Receiver {
    server: Server,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Receiver {
    /// Answers these status lines first, with what follows them, and then 204.
    pub(crate) fn start(answers: &[String]) -> Self {
        let answers = answers.to_vec();
        let mut answers = answers.into_iter();
        Self::answering(move |_| {
            let status = answers.next().unwrap_or_else(|| "204 No Content".into());
            (status, String::new())
        })
    }

    /// Answers as it is told to.
    pub(crate) fn answering(answer: impl FnMut(&Heard) -> Said + Send + 'static) -> Self {
        Self::behind(None, answer)
    }

    /// Takes everything, behind TLS.
    pub(crate) fn with_tls(config: Arc<ServerConfig>) -> Self {
        Self::behind(Some(config), |_| ("204 No Content".into(), String::new()))
    }

    fn behind(
        config: Option<Arc<ServerConfig>>,
        mut answer: impl FnMut(&Heard) -> Said + Send + 'static,
    ) -> Self {
        let heard = Arc::<Mutex<Vec<Heard>>>::default();
        let keep = Arc::clone(&heard);
        let server = Server::start(move |stream| {
            let answer = |one: Heard| {
                let said = answer(&one);
                keep.lock().push(one);
                said
            };
            match &config {
                Some(config) => exchange(tls(stream, config), answer),
                None => exchange(stream, answer),
            };
        });
        Self { server, heard }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().clone()
    }
}

/// Takes a request and answers it; whoever asked may have gone.
fn exchange(stream: impl Read + Write, answer: impl FnOnce(Heard) -> Said) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (status, body) = answer(take(&mut reader)?);
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    reader.get_mut().write_all(text.as_bytes()).ok()?;
    reader.get_mut().flush().ok()
}

fn take(reader: &mut impl BufRead) -> Option<Heard> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        lines.push(line.to_owned());
    }
    let mut one = Heard {
        target: lines.remove(0),
        head: lines,
        body: String::new(),
    };
    let length = one.field("content-length").parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    one.body = String::from_utf8(body).unwrap();
    Some(one)
}

/// A letter as it came.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Head and body, lines joined again (RFC 2045 6.7).
    pub(crate) text: String,
}

/// An SMTP server.
pub(crate) struct MailServer {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<Letter>>>,
    _server: Server,
}

impl MailServer {
    pub(crate) fn start() -> Self {
        Self::secured(Security::None)
    }

    pub(crate) fn secured(security: Security) -> Self {
        let heard = Arc::<Mutex<Vec<Letter>>>::default();
        let keep = Arc::clone(&heard);
        let server = Server::start(move |stream| {
            let (keep, security) = (Arc::clone(&keep), security.clone());
            std::thread::spawn(move || converse(stream, &security, &keep));
        });
        Self {
            address: server.address,
            heard,
            _server: server,
        }
    }

    pub(crate) fn heard(&self) -> Vec<Letter> {
        self.heard.lock().clone()
    }
}

fn between(line: &str) -> String {
    let rest = line.split_once('<').map_or("", |(_, rest)| rest);
    rest.split('>').next().unwrap_or_default().to_owned()
}

/// Behind what letters travel.
#[derive(Clone)]
pub(crate) enum Security {
    None,
    /// TLS from the first byte (RFC 8314).
    Implicit(Arc<ServerConfig>),
    /// STARTTLS (RFC 3207); without it nothing is taken.
    Upgraded(Arc<ServerConfig>),
}

/// Talks to a client until it goes, over TLS once that was agreed.
fn converse(stream: TcpStream, security: &Security, keep: &Mutex<Vec<Letter>>) -> Option<()> {
    match security {
        Security::None => talk(stream, "250 test\r\n", keep),
        Security::Implicit(config) => talk(tls(stream, config), "250 test\r\n", keep),
        Security::Upgraded(config) => {
            upgrade(&stream)?;
            talk_on(tls(stream, config), "250 test\r\n", keep)
        }
    }
}

/// Says nothing but that TLS is wanted, until it is asked for.
fn upgrade(stream: &TcpStream) -> Option<()> {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    let mut say = |text: &str| writer.write_all(text.as_bytes()).ok();
    say("220 test ESMTP\r\n")?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end().to_uppercase().as_str() {
            "STARTTLS" => return say("220 go on\r\n"),
            hello if hello.starts_with("EHLO") => say("250-test\r\n250 STARTTLS\r\n")?,
            _ => say("530 not without STARTTLS\r\n")?,
        }
    }
}

fn talk(mut stream: impl Read + Write, hello: &str, keep: &Mutex<Vec<Letter>>) -> Option<()> {
    stream.write_all(b"220 test ESMTP\r\n").ok()?;
    stream.flush().ok()?;
    talk_on(stream, hello, keep)
}

fn talk_on(stream: impl Read + Write, hello: &str, keep: &Mutex<Vec<Letter>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut from, mut to) = (String::new(), String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let mut say = |text: &str| {
            let stream = reader.get_mut();
            stream.write_all(text.as_bytes()).ok()?;
            stream.flush().ok()
        };
        match line.get(..4).unwrap_or_default().to_uppercase().as_str() {
            "EHLO" | "HELO" => say(hello)?,
            "MAIL" => {
                from = between(&line);
                say("250 ok\r\n")?;
            }
            "RCPT" => {
                to = between(&line);
                say("250 ok\r\n")?;
            }
            "DATA" => {
                say("354 go on\r\n")?;
                let text = letter(&mut reader)?;
                let (from, to) = (from.clone(), to.clone());
                keep.lock().push(Letter { from, to, text });
                reader.get_mut().write_all(b"250 taken\r\n").ok()?;
                reader.get_mut().flush().ok()?;
            }
            "QUIT" => return say("221 bye\r\n"),
            _ => say("250 ok\r\n")?,
        }
    }
}

fn letter(reader: &mut impl BufRead) -> Option<String> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == ".\r\n" {
            return Some(text.replace("=\r\n", ""));
        }
        text.push_str(&line);
    }
}
