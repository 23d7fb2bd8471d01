//! Signatures of webhooks as Standard Webhooks 1.0 has them: HMAC-SHA256 over name, time and body, so that a receiver
//! knows who sent what and when.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::clock::UnixMillis;
use zeroize::Zeroizing;

/// Bytes of a secret: the standard wants 24 to 64.
pub const SECRET_BYTES: usize = 32;

/// A secret as its receiver is told.
pub fn written(secret: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(format!("whsec_{}", STANDARD.encode(secret)))
}

/// The fields that go with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// `webhook-id`.
    pub id: String,
    /// `webhook-timestamp`: when this attempt is made, in seconds since 1970-01-01T00:00Z.
    pub timestamp: String,
    /// `webhook-signature`.
    pub signature: String,
}

/// Signs a message for an attempt at `now`.
pub fn sign(secret: &[u8], id: &str, now: UnixMillis, body: &str) -> Fields {
    let timestamp = now.seconds().to_string();
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    for part in [id, ".", &timestamp, ".", body] {
        context.update(part.as_bytes());
    }
    let signature = format!("v1,{}", STANDARD.encode(context.sign()));
    Fields {
        id: id.to_owned(),
        timestamp,
        signature,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn the_published_example_comes_out() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let at = UnixMillis(1_614_265_330_000);
        let fields = sign(
            &secret,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            at,
            "{\"test\": 2432232314}",
        );
        assert_eq!(
            fields.signature,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        assert_eq!(&*written(&secret), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    }

    #[test]
    fn every_part_is_signed() {
        let sign = |id, ms, body| sign(b"secret", id, UnixMillis(ms), body).signature;
        let one = sign("a", 1_000, "{}");
        assert_eq!(one, sign("a", 1_999, "{}"), "the same second");
        for other in [
            sign("b", 1_000, "{}"),
            sign("a", 2_000, "{}"),
            sign("a", 1_000, "{} "),
        ] {
            assert_ne!(one, other);
        }
    }
}
