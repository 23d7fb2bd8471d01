//! Questions about one certificate.

use der::Encode;
use der::pem::LineEnding;
use protocol::clock::UnixMillis;
use spki::ObjectIdentifier;

use super::{Certificate, Name};

/// Why a certificate cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not a certificate, or not in DER.
    #[error("not an X.509 certificate in DER: {0}")]
    Malformed(#[from] der::Error),
    /// An extension that is there twice (RFC 5280 4.2).
    #[error("a certificate with two extensions {0}")]
    RepeatedExtension(ObjectIdentifier),
}

/// The SubjectPublicKeyInfo, in DER.
pub fn subject_public_key(certificate: &[u8]) -> Result<Vec<u8>, ReadError> {
    Ok(Certificate::parse(certificate)?.public_key().to_vec())
}

/// The serial number, unsigned and big-endian, without leading zeros; it is what lists and requests name a
/// certificate by. A negative one, which we never issue, is given as it stands.
pub fn serial_number(certificate: &[u8]) -> Result<Vec<u8>, ReadError> {
    let serial = Certificate::parse(certificate)?.serial();
    let zeros = usize::from(serial.len() > 1 && serial[0] == 0);
    Ok(serial[zeros..].to_vec())
}

/// notBefore and notAfter; the second that begins with notAfter still counts (RFC 5280 4.1.2.5).
pub fn validity(certificate: &[u8]) -> Result<(UnixMillis, UnixMillis), ReadError> {
    Ok(Certificate::parse(certificate)?.validity())
}

/// The subject, as RFC 4514 writes names.
pub fn subject(certificate: &[u8]) -> Result<String, ReadError> {
    Ok(Name::from_der(Certificate::parse(certificate)?.subject().0)?.to_string())
}

/// The name of its subject.
pub fn subject_name(certificate: &[u8]) -> Result<Name, ReadError> {
    Ok(Name::from_der(Certificate::parse(certificate)?.subject().0)?)
}

/// The IssuerAndSerialNumber, in DER (RFC 5652 10.2.4).
pub fn issuer_and_serial(certificate: &[u8]) -> Result<Vec<u8>, ReadError> {
    Ok(Certificate::parse(certificate)?.issuer_and_serial().to_der()?)
}

/// A certificate as text (RFC 7468 5).
pub fn to_pem(certificate: &[u8]) -> String {
    der::pem::encode_string("CERTIFICATE", LineEnding::LF, certificate)
        .expect("the label is well-formed, and nothing else can be refused")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        for bytes in [&b""[..], b"\x30\x00", b"-----BEGIN CERTIFICATE-----"] {
            assert!(matches!(subject_public_key(bytes), Err(ReadError::Malformed(_))));
        }
        assert!(to_pem(b"\x30\x00").starts_with("-----BEGIN CERTIFICATE-----\nMAA=\n"));
    }
}
