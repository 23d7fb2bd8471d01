//! Receivers of messages: an HTTP server that answers what it is told to, and an SMTP server (RFC 5321) that takes letters.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// The request line.
    pub(super) target: String,
    head: Vec<String>,
    pub(super) body: String,
}

impl Heard {
    /// A header field's value.
    #[track_caller]
    pub(super) fn field(&self, name: &str) -> &str {
        let line = self
            .head
            .iter()
            .find(|line| line.to_lowercase().starts_with(&format!("{name}:")));
        line.and_then(|line| line.split_once(':')).unwrap().1.trim()
    }
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

/// An HTTP server.
pub(super) struct Receiver {
    server: Server,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Receiver {
    /// Answers these status lines first, with what follows them, and then 204.
    pub(super) fn start(answers: &[String]) -> Self {
        let heard = Arc::<Mutex<Vec<Heard>>>::default();
        let keep = Arc::clone(&heard);
        let answers = answers.to_vec();
        let mut answers = answers.into_iter();
        let server = Server::start(move |stream| {
            if let Some(one) = take(&stream) {
                let status = answers.next().unwrap_or_else(|| "204 No Content".into());
                keep.lock().push(one);
                // Whoever asked may have gone.
                let _ = write!(
                    &stream,
                    "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
            }
        });
        Self { server, heard }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    pub(super) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().clone()
    }
}

fn take(stream: &TcpStream) -> Option<Heard> {
    let mut reader = BufReader::new(stream);
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
pub(super) struct Letter {
    pub(super) from: String,
    pub(super) to: String,
    /// Head and body, lines joined again (RFC 2045 6.7).
    pub(super) text: String,
}

/// An SMTP server.
pub(super) struct MailServer {
    pub(super) address: SocketAddr,
    heard: Arc<Mutex<Vec<Letter>>>,
    _server: Server,
}

impl MailServer {
    pub(super) fn start() -> Self {
        let heard = Arc::<Mutex<Vec<Letter>>>::default();
        let keep = Arc::clone(&heard);
        let server = Server::start(move |stream| {
            let keep = Arc::clone(&keep);
            std::thread::spawn(move || talk(&stream, &keep));
        });
        Self {
            address: server.address,
            heard,
            _server: server,
        }
    }

    pub(super) fn heard(&self) -> Vec<Letter> {
        self.heard.lock().clone()
    }
}

fn between(line: &str) -> String {
    let rest = line.split_once('<').map_or("", |(_, rest)| rest);
    rest.split('>').next().unwrap_or_default().to_owned()
}

/// Talks to a client until it goes.
fn talk(mut stream: &TcpStream, keep: &Mutex<Vec<Letter>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut from, mut to) = (String::new(), String::new());
    let mut say = |text: &str| stream.write_all(text.as_bytes()).ok();
    say("220 test ESMTP\r\n")?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.get(..4).unwrap_or_default().to_uppercase().as_str() {
            "EHLO" | "HELO" => say("250 test\r\n")?,
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
                say("250 taken\r\n")?;
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
