//! The engine's milliseconds and the two kinds of time in certificates and signatures.

use std::time::Duration;

use der::DateTime;
use protocol::clock::UnixMillis;
use x509_cert::time::Time;

/// UTCTime through 2049 and GeneralizedTime from 2050 on, in whole seconds (RFC 5280 4.1.2.5; RFC 5652 11.3).
pub(crate) fn to_asn1(at: UnixMillis) -> der::Result<Time> {
    DateTime::from_unix_duration(Duration::from_secs(at.seconds())).map(Time::from)
}

/// The same instant in milliseconds. ASN.1 years end at 9999, so this cannot overflow.
pub(crate) fn from_asn1(time: Time) -> UnixMillis {
    UnixMillis(time.to_unix_duration().as_secs() * 1000)
}

/// Whether `at` lies in a validity; its last second counts (RFC 5280 4.1.2.5).
pub(crate) fn is_within((not_before, not_after): (UnixMillis, UnixMillis), at: UnixMillis) -> bool {
    (not_before.seconds()..=not_after.seconds()).contains(&at.seconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_time_changes_with_the_year_2050() {
        let last_of_2049 = UnixMillis(2_524_607_999_999);
        assert!(matches!(to_asn1(last_of_2049), Ok(Time::UtcTime(_))));
        assert!(matches!(
            to_asn1(UnixMillis(2_524_608_000_000)),
            Ok(Time::GeneralTime(_))
        ));
        assert_eq!(
            from_asn1(to_asn1(last_of_2049).unwrap()),
            UnixMillis(2_524_607_999_000)
        );
        assert!(to_asn1(UnixMillis(u64::MAX)).is_err(), "after the year 9999");
    }

    #[test]
    fn the_last_second_of_a_validity_counts() {
        let validity = (UnixMillis(1000), UnixMillis(5000));
        assert!(!is_within(validity, UnixMillis(999)));
        assert!(is_within(validity, UnixMillis(1000)));
        assert!(is_within(validity, UnixMillis(5999)));
        assert!(!is_within(validity, UnixMillis(6000)));
    }
}
