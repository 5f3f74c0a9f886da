//! Access units out of a server's ring, as `/api/ring/pictures` gives them: a head, and each picture behind a head of
//! its own. Numbers are in network byte order. No I/O of its own.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use bytes::Bytes;

use crate::capture_clock::Captured;
use crate::codec::Codec;

const MAGIC: [u8; 8] = *b"ROVRING1";
const HEAD: usize = 21;
/// Bytes before each access unit.
pub const PICTURE_HEAD: usize = 13;
/// Of one access unit: more is no picture.
const LARGEST: u32 = 64 << 20;

/// What stands first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// That of the clock of captures.
    pub run: u64,
    pub codec: Codec,
    pub pictures: u32,
}

/// One access unit: of MJPEG a picture, else in Annex B.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// In whole microseconds.
    pub captured: Captured,
    pub keyframe: bool,
    pub unit: Bytes,
}

impl Head {
    pub fn encode(self) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        out[..8].copy_from_slice(&MAGIC);
        out[8..16].copy_from_slice(&self.run.to_be_bytes());
        out[16] = match self.codec {
            Codec::H264 => 4,
            Codec::H265 => 5,
            // Its RTP payload type.
            Codec::Mjpeg => 26,
        };
        out[17..].copy_from_slice(&self.pictures.to_be_bytes());
        out
    }

    /// # Errors
    /// Where it cannot be read, or is something else.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; HEAD];
        from.read_exact(&mut head)?;
        let (magic, rest) = head.split_at(MAGIC.len());
        let (run, rest) = rest.split_at(8);
        let codec = match rest[0] {
            4 => Codec::H264,
            5 => Codec::H265,
            26 => Codec::Mjpeg,
            _ => return Err(other("an unknown codec")),
        };
        if magic != MAGIC {
            return Err(other("no pictures of a ring"));
        }
        Ok(Self { run: number(run), codec, pictures: number(&rest[1..]) as u32 })
    }
}

impl Kept {
    /// What stands before the access unit.
    pub fn head(captured: Captured, keyframe: bool, length: usize) -> [u8; PICTURE_HEAD] {
        let mut out = [0; PICTURE_HEAD];
        out[..8].copy_from_slice(&captured.micros().to_be_bytes());
        out[8] = u8::from(keyframe);
        out[9..].copy_from_slice(&(length as u32).to_be_bytes());
        out
    }

    /// # Errors
    /// Where it cannot be read, or is something else.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; PICTURE_HEAD];
        from.read_exact(&mut head)?;
        let length = number(&head[9..]) as u32;
        if length == 0 || length > LARGEST || head[8] > 1 {
            return Err(other("no picture"));
        }
        let mut unit = Vec::new();
        // Not so much memory before as much has come.
        if from.take(length.into()).read_to_end(&mut unit)? < length as usize {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let captured = Captured(Duration::from_micros(number(&head[..8])));
        Ok(Self { captured, keyframe: head[8] == 1, unit: unit.into() })
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn other(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the answer has {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_cut_or_something_else_is_refused() {
        let head = Head { run: 1_764_000_000_123_456, codec: Codec::H265, pictures: 2 };
        let captured = Captured(Duration::from_micros(1_764_000_001_000_001));
        let kept = Kept { captured, keyframe: true, unit: Bytes::from_static(&[0, 0, 0, 1, 0x26, 1]) };
        let all = [&head.encode()[..], &Kept::head(captured, true, 6), &kept.unit].concat();
        let mut rest = &all[..];
        assert_eq!(Head::read(&mut rest).expect("a head"), head);
        assert_eq!(Kept::read(&mut rest).expect("a picture"), kept);
        assert!(rest.is_empty());
        for length in HEAD..all.len() {
            let mut rest = &all[HEAD..length];
            assert!(Kept::read(&mut rest).is_err(), "{length} bytes");
        }
        assert!(Head::read(&mut &b"{\"error\":\"nothing is kept\"}"[..]).is_err());
        let long = Kept::head(captured, false, u32::MAX as usize);
        assert!(Kept::read(&mut &long[..]).is_err());
    }
}
