//! Frames: a 32-bit big-endian length, then that many bytes of CBOR. No sockets: bytes in, frames out.

use crate::error_code::{Code, Refusal};

/// Why a stream of bytes is not a stream of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length in front is above the limit in force.
    #[error("a frame of {length} bytes is above the limit of {limit}")]
    TooLarge {
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A frame must hold something.
    #[error("a frame of no bytes")]
    Empty,
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        let code = match error {
            FrameError::TooLarge { .. } => Code::TooLarge,
            FrameError::Empty => Code::MalformedRequest,
        };
        Self::new(code, error.to_string())
    }
}

/// Bytes of the length in front of each frame.
pub const HEADER_BYTES: usize = 4;

/// Collects the bytes of one stream and gives back whole frames. Holds at most one frame and one read beyond it.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    start: usize,
}

impl FrameReader {
    /// Takes the bytes of one read.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it has arrived.
    pub fn next_frame(&mut self, limit: usize) -> Result<Option<&[u8]>, FrameError> {
        let rest = &self.buffer[self.start..];
        let Some((header, body)) = rest.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*header) as usize;
        check_length(length, limit)?;
        if body.len() < length {
            return Ok(None);
        }
        let from = self.start + HEADER_BYTES;
        self.start = from + length;
        Ok(Some(&self.buffer[from..from + length]))
    }

    /// Whether part of a frame is waiting for its rest.
    pub fn is_partial(&self) -> bool {
        self.start < self.buffer.len()
    }
}

fn check_length(length: usize, limit: usize) -> Result<(), FrameError> {
    if length == 0 {
        return Err(FrameError::Empty);
    }
    if length > limit {
        return Err(FrameError::TooLarge { length, limit });
    }
    Ok(())
}

/// Appends one frame to `out`; `write` appends its payload.
pub fn append(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let header = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    write(out);
    let length = out.len() - header - HEADER_BYTES;
    let length = u32::try_from(length).expect("payloads are bounded far below 4 GiB by limits.rs");
    out[header..header + HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let mut wire = Vec::new();
        append(&mut wire, |out| out.extend_from_slice(b"one"));
        append(&mut wire, |out| out.extend_from_slice(b"second"));
        for step in 1..wire.len() {
            let mut reader = FrameReader::default();
            let mut seen: Vec<Vec<u8>> = Vec::new();
            for piece in wire.chunks(step) {
                reader.extend(piece);
                while let Some(frame) = reader.next_frame(16).unwrap() {
                    seen.push(frame.to_vec());
                }
            }
            assert_eq!(seen, [b"one".to_vec(), b"second".to_vec()], "step {step}");
            assert!(!reader.is_partial());
        }
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_its_bytes_arrive() {
        let mut reader = FrameReader::default();
        reader.extend(&(10 * 1024 * 1024u32).to_be_bytes());
        let error = reader.next_frame(256 * 1024).unwrap_err();
        assert_eq!(
            error,
            FrameError::TooLarge {
                length: 10 * 1024 * 1024,
                limit: 256 * 1024
            }
        );
        let mut reader = FrameReader::default();
        reader.extend(&[0, 0, 0, 0]);
        assert_eq!(reader.next_frame(16), Err(FrameError::Empty));
        assert_eq!(Refusal::from(error).code, Code::TooLarge);
        assert_eq!(Refusal::from(FrameError::Empty).code, Code::MalformedRequest);
    }
}
