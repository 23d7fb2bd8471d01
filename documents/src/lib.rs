//! Bytes in, bytes out.
//!
//! Whatever a customer holds in hand at the end, a certificate or a signature file, is made and read here.
//! Nothing in this crate opens a file, asks for the time or sees a private key. Making something takes three
//! steps:
//!
//! 1. *prepare*: everything that can be said before the signature exists;
//! 2. *sign*: not here. The prepared value says exactly what a signer of its algorithm has to be given;
//! 3. *assemble*: the signature goes in, the finished bytes come out.
//!
//! So the same code serves the engine, where the key lies in a device, and a gateway that sends only digests.
//!
//! - [`x509`]: certificates (RFC 5280; GB/T 20518 for SM2), issued, read and followed up to a trust anchor.
//! - [`csr`]: certificate requests (PKCS#10), read with suspicion and made for other authorities.
//! - [`lint`]: the last look at a certificate before it is signed.
//! - [`crl`] and [`ocsp`]: which certificates are no longer good (RFC 5280 5; RFC 6960).
//! - [`tsp`]: time stamps (RFC 3161).
//! - [`cms`]: detached signatures (RFC 5652) with the attributes of CAdES-BES.
//! - [`ses`]: electronic seals and seal signatures (GB/T 38540, GM/T 0031).
//! - [`ofd`]: OFD files (GB/T 33190), sealed, signed and verified.
//! - [`trust`]: who is believed and what is known of revocations, for all verification.
//! - [`seal_image`]: what seals look like.
//! - [`paper`]: reports as PDF files, made from nothing.
//! - [`pdf`]: signatures in PDF files (PAdES), with a visible seal or without, added, and verified.
//! - [`sealing`]: all of that in sequence: a document from an order to its last time stamp, a question at a time.
//!
//! Reading has one rule: what was signed is verified over the bytes that came in, never over a second
//! encoding of them (`element.rs`).

pub mod cms;
pub mod crl;
pub mod csr;
pub mod lint;
pub mod ocsp;
pub mod ofd;
pub mod paper;
pub mod pdf;
pub mod seal_image;
pub mod sealing;
pub mod ses;
pub mod trust;
pub mod tsp;
pub mod x509;

mod element;
mod identifier;
mod signed;
mod time;
