//! E-mail to operators, over SMTP to a configured relay.

use std::path::Path;
use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use protocol::error_code::{Code, Refusal};
use serde_json::Value;
use store::NewMessage;
use url::Url;

use crate::config::EmailConfig;

const COMMAND_MAX: Duration = Duration::from_secs(5);

/// Why an e-mail was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MailError {
    /// It cannot be written.
    #[error("the message: {0}")]
    Message(#[from] lettre::error::Error),
    /// The relay does not take it.
    #[error("the relay: {0}")]
    Relay(#[from] lettre::transport::smtp::Error),
}

/// Sends e-mail.
pub(crate) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

fn wrong(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Usage, format!("configuration: smtp: {error}"))
}

impl Mailer {
    pub(crate) fn new(config: &EmailConfig, ca: Option<&Path>) -> Result<Self, Refusal> {
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(&config.relay).map_err(wrong)?;
        if let Some(tls) = tls(&config.relay, ca)? {
            builder = builder.tls(tls);
        }
        if let Some((user, file)) = &config.login {
            let failed = |error| Refusal::new(Code::File, format!("{}: {error}", file.display()));
            let password = std::fs::read_to_string(file).map_err(failed)?;
            builder = builder.credentials(Credentials::new(user.clone(), password.trim_end().to_owned()));
        }
        Ok(Self {
            transport: builder.timeout(Some(COMMAND_MAX)).build(),
            from: config.from.clone(),
            to: config.to.clone(),
        })
    }

    pub(crate) async fn send(&self, message: &NewMessage) -> Result<(), MailError> {
        let email = compose(&self.from, &self.to, message)?;
        self.transport.send(email).await?;
        Ok(())
    }
}

/// How the relay is spoken to where CA certificates of our own count; `None`: as its URL says.
fn tls(relay: &str, ca: Option<&Path>) -> Result<Option<Tls>, Refusal> {
    let Some(path) = ca else { return Ok(None) };
    let url = Url::parse(relay).map_err(wrong)?;
    let mode = url.query_pairs().find(|(key, _)| key == "tls");
    let wrap: fn(TlsParameters) -> Tls = match (url.scheme(), mode.as_ref().map(|(_, value)| &**value)) {
        ("smtps", _) => Tls::Wrapper,
        ("smtp", Some("required")) => Tls::Required,
        ("smtp", Some("opportunistic")) => Tls::Opportunistic,
        _ => return Ok(None),
    };
    let failed = |error| Refusal::new(Code::File, format!("{}: {error}", path.display()));
    let pem = std::fs::read(path).map_err(failed)?;
    let mut parameters = TlsParameters::builder(url.host_str().unwrap_or_default().to_owned());
    for block in pem::parse_many(pem).map_err(wrong)? {
        let certificate = Certificate::from_der(block.into_contents()).map_err(wrong)?;
        parameters = parameters.add_root_certificate(certificate);
    }
    Ok(Some(wrap(parameters.build_rustls().map_err(wrong)?)))
}

/// An e-mail for people: what it is about in a line, the matter in a few, and the whole as the webhook has it.
fn compose(from: &Mailbox, to: &[Mailbox], message: &NewMessage) -> Result<Message, lettre::error::Error> {
    let body: Value = serde_json::from_str(&message.body).unwrap_or_default();
    let field = |name: &str| body["data"][name].as_str().unwrap_or_default().to_owned();
    let subject = format!(
        "[cinnabar] {}: {} {}",
        message.kind,
        field("alert"),
        field("subject")
    );
    let time = body["timestamp"].as_str().unwrap_or_default();
    let text = format!("{}\r\n\r\n{time}\r\n", field("text"));
    let domain = from.email.domain();
    let mut builder = Message::builder()
        .from(from.clone())
        .subject(subject.trim_end())
        .message_id(Some(format!("<{}@{domain}>", message.id)));
    for mailbox in to {
        builder = builder.to(mailbox.clone());
    }
    let json = SinglePart::builder()
        .header(ContentType::parse("application/json").unwrap_or(ContentType::TEXT_PLAIN))
        .body(message.body.clone());
    builder.multipart(
        MultiPart::mixed()
            .singlepart(SinglePart::plain(text))
            .singlepart(json),
    )
}

#[cfg(test)]
mod tests {
    use store::{Channel, Owner};

    use super::*;

    #[test]
    fn an_email_says_what_it_is_about() {
        let message = NewMessage {
            id: "msg_7".into(),
            channel: Channel::Email,
            owner: Owner::Operators,
            kind: "alert.raised".into(),
            body: "{\"timestamp\":\"2026-11-24T16:00:05+08:00\",\"data\":{\"alert\":\"pin-latched\",\
                   \"subject\":\"hsm-1\",\"text\":\"the PIN was refused\"}}"
                .into(),
            give_up: protocol::clock::UnixMillis(0),
        };
        let from: Mailbox = "Cinnabar <cinnabar@example.com>".parse().unwrap();
        let to: Mailbox = "ops@example.com".parse().unwrap();
        let sent = compose(&from, &[to], &message).unwrap().formatted();
        let text = String::from_utf8(sent).unwrap();
        for part in [
            "Subject: [cinnabar] alert.raised: pin-latched hsm-1\r\n",
            "Message-ID: <msg_7@example.com>\r\n",
            "To: ops@example.com\r\n",
            "the PIN was refused",
            "2026-11-24T16:00:05+08:00",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
