//! Login links and sessions: a link serves once, becomes a session, and a session ends by itself. Only hashes of the tokens
//! are kept, in memory: who starts the engine anew logs everybody out.

use std::collections::HashMap;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use protocol::algorithm::Hash;
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::OperatorName;

/// How long a login link serves, in milliseconds.
pub(crate) const LINK_MS: u64 = 15 * 60_000;
/// How long a session lasts without a request, in milliseconds.
pub(crate) const IDLE_MS: u64 = 30 * 60_000;
/// How long a session lasts, in milliseconds.
pub(crate) const SESSION_MS: u64 = 8 * 3_600_000;
/// Links, and sessions, at a time.
const TOKENS_MAX: usize = 1_000;
const TOKEN_BYTES: usize = 32;

/// What identifies a token without being one.
type TokenHash = Vec<u8>;

/// Why there is no link or session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    /// Unknown, used before, or too old.
    #[error("this login link has been used or is too old; ask for another one")]
    LinkInvalid,
    /// Too many at a time.
    #[error("too many operators are logged in or about to")]
    TooMany,
}

impl From<SessionError> for Refusal {
    fn from(error: SessionError) -> Self {
        let code = match error {
            SessionError::LinkInvalid => Code::Unauthenticated,
            SessionError::TooMany => Code::Overloaded,
        };
        Self::new(code, error.to_string())
    }
}

#[derive(Debug)]
struct Link {
    name: OperatorName,
    until: UnixMillis,
}

#[derive(Debug)]
struct Session {
    name: OperatorName,
    until: UnixMillis,
    used: UnixMillis,
}

impl Session {
    const fn is_over(&self, now: UnixMillis) -> bool {
        now.0 >= self.until.0 || now.0.saturating_sub(self.used.0) >= IDLE_MS
    }
}

/// The rules. Tokens come in as hashes, the time as `now`.
#[derive(Debug, Default)]
struct Book {
    links: HashMap<TokenHash, Link>,
    sessions: HashMap<TokenHash, Session>,
}

impl Book {
    fn add_link(
        &mut self,
        token: TokenHash,
        name: OperatorName,
        now: UnixMillis,
    ) -> Result<(), SessionError> {
        self.links.retain(|_, link| now < link.until);
        if self.links.len() >= TOKENS_MAX {
            return Err(SessionError::TooMany);
        }
        let until = UnixMillis(now.0 + LINK_MS);
        self.links.insert(token, Link { name, until });
        Ok(())
    }

    /// A link becomes a session.
    fn redeem(
        &mut self,
        link: &[u8],
        session: TokenHash,
        now: UnixMillis,
    ) -> Result<OperatorName, SessionError> {
        self.sessions.retain(|_, session| !session.is_over(now));
        if self.sessions.len() >= TOKENS_MAX {
            return Err(SessionError::TooMany);
        }
        let link = self.links.remove(link).filter(|link| now < link.until);
        let name = link.ok_or(SessionError::LinkInvalid)?.name;
        let begun = Session {
            name: name.clone(),
            until: UnixMillis(now.0 + SESSION_MS),
            used: now,
        };
        self.sessions.insert(session, begun);
        Ok(name)
    }

    /// Whose session it is, if it lasts.
    fn touch(&mut self, token: &[u8], now: UnixMillis) -> Option<OperatorName> {
        let session = self.sessions.get_mut(token)?;
        if session.is_over(now) {
            self.sessions.remove(token);
            return None;
        }
        session.used = now;
        Some(session.name.clone())
    }

    /// Whose session it is, if it lasts; it does not last longer for this.
    fn look(&self, token: &[u8], now: UnixMillis) -> Option<&OperatorName> {
        let session = self.sessions.get(token).filter(|session| !session.is_over(now))?;
        Some(&session.name)
    }

    fn end(&mut self, token: &[u8]) {
        self.sessions.remove(token);
    }
}

/// Links and sessions of a running engine.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// Where the console is reached, such as `https://localhost:9444`.
    origin: String,
    book: Mutex<Book>,
}

fn hash(token: &str) -> TokenHash {
    Hash::Sha256.digest(token.as_bytes()).to_vec()
}

fn new_token() -> Result<String, Refusal> {
    let mut token = [0; TOKEN_BYTES];
    rand::fill(&mut token).map_err(|_| Refusal::new(Code::Internal, "no randomness"))?;
    Ok(URL_SAFE_NO_PAD.encode(token))
}

impl Sessions {
    pub(crate) fn new(origin: String) -> Self {
        Self {
            origin,
            book: Mutex::default(),
        }
    }

    /// A link that lets an operator in, once.
    pub(crate) fn make_link(&self, name: OperatorName, now: UnixMillis) -> Result<String, Refusal> {
        let token = new_token()?;
        self.book.lock().add_link(hash(&token), name, now)?;
        Ok(format!("{}/login?link={token}", self.origin))
    }

    /// Logs in by a link's token; returns who, and the session's token.
    pub(crate) fn log_in(&self, link: &str, now: UnixMillis) -> Result<(OperatorName, String), Refusal> {
        let token = new_token()?;
        let name = self.book.lock().redeem(&hash(link), hash(&token), now)?;
        Ok((name, token))
    }

    /// Whose session it is.
    pub(crate) fn find(&self, token: &str, now: UnixMillis) -> Option<OperatorName> {
        self.book.lock().touch(&hash(token), now)
    }

    /// Whose session it is, without using it.
    pub(crate) fn look(&self, token: &str, now: UnixMillis) -> Option<OperatorName> {
        self.book.lock().look(&hash(token), now).cloned()
    }

    /// Ends a session.
    pub(crate) fn log_out(&self, token: &str) {
        self.book.lock().end(&hash(token));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> OperatorName {
        OperatorName::new("alice").unwrap()
    }

    const START: UnixMillis = UnixMillis(1_000_000);

    fn later(ms: u64) -> UnixMillis {
        UnixMillis(START.0 + ms)
    }

    fn with_link() -> Book {
        let mut book = Book::default();
        book.add_link(vec![1], alice(), START).unwrap();
        book
    }

    #[test]
    fn a_link_serves_once_and_in_time() {
        let mut book = with_link();
        assert_eq!(book.redeem(&[2], vec![9], START), Err(SessionError::LinkInvalid));
        assert_eq!(book.redeem(&[1], vec![9], later(LINK_MS - 1)), Ok(alice()));
        assert_eq!(
            book.redeem(&[1], vec![8], later(LINK_MS - 1)),
            Err(SessionError::LinkInvalid)
        );
        let mut book = with_link();
        assert_eq!(
            book.redeem(&[1], vec![9], later(LINK_MS)),
            Err(SessionError::LinkInvalid)
        );
    }

    #[test]
    fn a_session_ends_when_it_is_idle_when_it_is_old_and_when_it_is_told_to() {
        let session = || {
            let mut book = with_link();
            book.redeem(&[1], vec![9], START).unwrap();
            book
        };
        let mut book = session();
        assert_eq!(book.touch(&[9], later(IDLE_MS - 1)), Some(alice()));
        assert_eq!(book.touch(&[9], later(2 * IDLE_MS - 2)), Some(alice()));
        assert_eq!(book.look(&[9], later(3 * IDLE_MS - 3)), Some(&alice()));
        assert_eq!(book.look(&[9], later(3 * IDLE_MS - 2)), None, "looking is no use");
        assert_eq!(book.touch(&[9], later(3 * IDLE_MS - 2)), None);
        let mut book = session();
        for at in (0..SESSION_MS).step_by(IDLE_MS as usize / 2) {
            assert_eq!(book.touch(&[9], later(at)), Some(alice()));
        }
        assert_eq!(book.touch(&[9], later(SESSION_MS)), None);
        let mut book = session();
        book.end(&[9]);
        assert_eq!(book.touch(&[9], START), None);
        // The link's own token opens nothing.
        assert_eq!(session().touch(&[1], START), None);
    }

    #[test]
    fn there_are_so_many_and_no_more_until_some_are_over() {
        let mut book = Book::default();
        for number in 0..TOKENS_MAX {
            book.add_link(number.to_be_bytes().to_vec(), alice(), START)
                .unwrap();
        }
        assert_eq!(book.add_link(vec![1], alice(), START), Err(SessionError::TooMany));
        book.add_link(vec![1], alice(), later(LINK_MS)).unwrap();
        assert_eq!(book.links.len(), 1);
    }

    #[test]
    fn tokens_of_links_and_sessions_are_not_kept() {
        let sessions = Sessions::new("https://localhost:9444".into());
        let link = sessions.make_link(alice(), START).unwrap();
        let token = link.strip_prefix("https://localhost:9444/login?link=").unwrap();
        let (name, session) = sessions.log_in(token, START).unwrap();
        assert_eq!(name, alice());
        assert_eq!(sessions.find(&session, START), Some(alice()));
        let kept = format!("{:?}", sessions.book.lock());
        assert!(!kept.contains(token) && !kept.contains(&session));
        sessions.log_out(&session);
        assert_eq!(sessions.find(&session, START), None);
    }
}
