//! Where load may go. Load costs whoever runs the engine, signatures are billed, and the agreement forbids load on the
//! test platform (SLA A 6.10): anything but loopback must be named, and agreed to.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::net::SocketAddr;

use protocol::client::Profile;
use protocol::error_code::{Code, Refusal};

/// What a run would cost whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    text: String,
}

/// A target that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("{0} is not loopback; --allow-target {0} says that load is welcome there")]
    NotAllowed(SocketAddr),
    #[error("signatures at {0} are metered; --yes agrees to that where nobody can be asked")]
    NotAgreed(SocketAddr),
    #[error("not agreed")]
    Declined,
}

impl From<TargetError> for Refusal {
    fn from(error: TargetError) -> Self {
        Self::new(Code::Usage, error.to_string())
    }
}

/// Decides: nothing to ask, a question to ask, or no.
pub(crate) fn judge(
    profiles: &[Profile],
    allowed: &[SocketAddr],
    signatures: u64,
) -> Result<Option<(SocketAddr, Question)>, TargetError> {
    let mut apps: BTreeMap<SocketAddr, Vec<&str>> = BTreeMap::new();
    for profile in profiles
        .iter()
        .filter(|profile| !profile.address.ip().is_loopback())
    {
        if !allowed.contains(&profile.address) {
            return Err(TargetError::NotAllowed(profile.address));
        }
        apps.entry(profile.address)
            .or_default()
            .push(profile.app_id.as_str());
    }
    let Some((&first, _)) = apps.first_key_value() else {
        return Ok(None);
    };
    let list: Vec<String> = apps
        .iter()
        .map(|(address, apps)| format!("{} at {address}", apps.join(", ")))
        .collect();
    let number = match signatures {
        u64::MAX => "any number of".to_owned(),
        most => format!("up to {most}"),
    };
    let text = format!("{number} metered signatures for {}", list.join("; "));
    Ok(Some((first, Question { text })))
}

/// Asks on the terminal, unless that was answered beforehand.
pub(crate) fn agree(
    profiles: &[Profile],
    allowed: &[SocketAddr],
    signatures: u64,
    yes: bool,
) -> Result<(), Refusal> {
    let Some((address, question)) = judge(profiles, allowed, signatures)? else {
        return Ok(());
    };
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(TargetError::NotAgreed(address).into());
    }
    eprint!("This asks for {}. Type yes to go on: ", question.text);
    // Without a terminal to show the question on, the answer cannot be yes.
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    match read {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        _ => Err(TargetError::Declined.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::AppId;

    fn profile(address: &str) -> Profile {
        Profile {
            address: address.parse().unwrap(),
            server_name: "engine".into(),
            server_ca: String::new(),
            app_id: AppId::new("erp").unwrap(),
            secret: String::new(),
            admin: None,
            document_ca: None,
        }
    }

    #[test]
    fn only_loopback_is_free_and_everything_else_is_named_and_agreed() {
        let (here, there) = (profile("[::1]:8443"), profile("192.0.2.7:8443"));
        assert_eq!(judge(std::slice::from_ref(&here), &[], 10), Ok(None));
        let both = [here, there];
        assert_eq!(
            judge(&both, &[], 10),
            Err(TargetError::NotAllowed(both[1].address))
        );
        // The same host on another port was not what was allowed.
        let other = "192.0.2.7:443".parse().unwrap();
        assert_eq!(
            judge(&both, &[other], 10),
            Err(TargetError::NotAllowed(both[1].address))
        );
        let (address, question) = judge(&both, &[both[1].address], 10).unwrap().unwrap();
        assert_eq!(address, both[1].address);
        assert_eq!(
            question.text,
            "up to 10 metered signatures for erp at 192.0.2.7:8443"
        );
    }
}
