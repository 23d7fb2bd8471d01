//! Who asks for a time stamp over plain HTTP (SEMANTICS 3.6). RFC 3161 knows no callers, so an app is named by what its
//! clients can be configured with: a token in the path, or a user name and a password. The token is made from the app's
//! secret and says nothing about it: whoever learns it can have times stamped at the app's cost, and do nothing else. It
//! changes with the secret.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use store::{App, Directory, Epoch};

use crate::call::Permit;
use crate::gate;
use crate::vault::Vault;

/// What the MAC in a token is over.
const LABEL: &[u8] = b"cinnabar/tsa-token/1";

/// The token of an app with this secret: its id, a full stop, and 43 characters of base64url.
pub fn token(app: &str, secret: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mac = hmac::sign(&key, LABEL);
    format!("{app}.{}", URL_SAFE_NO_PAD.encode(mac))
}

/// An app that may have a time stamp now; it has a place among its calls in flight.
pub struct StampCaller {
    /// The app, and the epoch under which it was let in.
    pub app: (Arc<App>, Epoch),
    _permit: Permit,
}

fn wrong() -> Refusal {
    Refusal::new(
        Code::Unauthenticated,
        "the token or the password is not that of an app",
    )
}

/// Reads the value of an Authorization header with the scheme Basic (RFC 7617): the app's id and its token, or the part of
/// it behind the full stop.
pub fn token_of_basic(value: &str) -> Result<String, Refusal> {
    let malformed = || {
        Refusal::new(
            Code::Unauthenticated,
            "the Authorization header is not of the scheme Basic",
        )
    };
    let (scheme, encoded) = value.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(malformed());
    }
    let bytes = STANDARD.decode(encoded.trim()).map_err(|_| malformed())?;
    let text = String::from_utf8(bytes).map_err(|_| malformed())?;
    let (user, password) = text.split_once(':').ok_or_else(malformed)?;
    let mac = password
        .strip_prefix(user)
        .and_then(|rest| rest.strip_prefix('.'))
        .unwrap_or(password);
    Ok(format!("{user}.{mac}"))
}

/// Lets an app in that presents its token. What can refuse it is what can refuse a signature, in the same order.
pub fn admit(
    directory: &Directory,
    vault: &Vault,
    presented: &str,
    now: UnixMillis,
) -> Result<StampCaller, Refusal> {
    let (id, mac) = presented.rsplit_once('.').ok_or_else(wrong)?;
    let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| wrong())?;
    // Whether an app exists is not told.
    let app = directory.app(id).ok_or_else(wrong)?;
    let secrets = vault.secrets(&app, now).map_err(|_| wrong())?;
    let proved = secrets
        .iter()
        .any(|secret| hmac::verify(&secret.hmac, LABEL, &mac).is_ok());
    if !proved {
        return Err(wrong());
    }
    admit_proved(&app, now)
}

/// The same for an app whose request is proved already.
pub fn admit_proved(app: &Arc<App>, now: UnixMillis) -> Result<StampCaller, Refusal> {
    let epoch = gate::admit_signing(app, now)?;
    let permit = gate::admit_contract(app, now, 1)?;
    Ok(StampCaller {
        app: (Arc::clone(app), epoch),
        _permit: permit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_app_and_comes_as_a_password_too() {
        let token = token("erp.1", &[7; 32]);
        let (id, mac) = token.rsplit_once('.').unwrap();
        assert_eq!((id, mac.len()), ("erp.1", 43));
        for password in [mac, &token] {
            let header = format!("Basic {}", STANDARD.encode(format!("erp.1:{password}")));
            assert_eq!(token_of_basic(&header).unwrap(), token);
        }
        for bad in ["", "Basic", "Basic !", "Bearer abc", "Basic YWJj"] {
            assert_eq!(
                token_of_basic(bad).unwrap_err().code,
                Code::Unauthenticated,
                "{bad}"
            );
        }
    }
}
