//! Bits of an RBSP (ITU-T H.264 7.2, 9.1): reading, writing, Exp-Golomb codes and emulation prevention.

use super::sps::SpsError;

/// Removes the emulation prevention bytes of a NAL unit (ITU-T H.264 7.3.1).
pub(super) fn unescape(nal: &[u8]) -> Vec<u8> {
    let mut rbsp = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        rbsp.push(byte);
    }
    rbsp
}

/// Inserts the emulation prevention bytes that a NAL unit needs (ITU-T H.264 7.4.1).
pub(super) fn escape(rbsp: &[u8]) -> Vec<u8> {
    let mut nal = Vec::with_capacity(rbsp.len() + rbsp.len() / 8 + 4);
    let mut zeros = 0;
    for &byte in rbsp {
        if zeros >= 2 && byte <= 3 {
            nal.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        nal.push(byte);
    }
    nal
}

/// Reads an RBSP from its first bit; every read beyond the end is an error.
pub(super) struct BitReader<'a> {
    data: &'a [u8],
    position: usize,
    end: usize,
}

impl<'a> BitReader<'a> {
    /// Over a complete RBSP: ends before the stop bit, the last bit that is set.
    pub fn over_rbsp(data: &'a [u8]) -> Self {
        let end = data
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |last| last * 8 + 7 - data[last].trailing_zeros() as usize);
        Self { data, position: 0, end }
    }

    /// Over the beginning of an RBSP that was cut off.
    pub fn over_prefix(data: &'a [u8]) -> Self {
        Self { data, position: 0, end: data.len() * 8 }
    }

    /// In bits from the start.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Whether only the end of the RBSP follows (`rbsp_trailing_bits`, ITU-T H.264 7.3.2.11): a stop bit, and zeros up
    /// to the next byte. Bytes behind that belong to no field: some cameras send them.
    pub fn at_end(&self) -> bool {
        let rest = self.data.get(self.position / 8).map(|byte| byte << (self.position % 8));
        self.position == self.end || rest == Some(0x80)
    }

    pub fn flag(&mut self) -> Result<bool, SpsError> {
        if self.position >= self.end {
            return Err(SpsError::Truncated);
        }
        let bit = self.data[self.position / 8] >> (7 - self.position % 8) & 1;
        self.position += 1;
        Ok(bit == 1)
    }

    /// `count` bits, 32 at most, the most significant first: u(n).
    pub fn bits(&mut self, count: u32) -> Result<u32, SpsError> {
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Ok(value)
    }

    /// An unsigned Exp-Golomb code: ue(v), 0 to 2^32 - 2.
    pub fn ue(&mut self) -> Result<u32, SpsError> {
        let mut leading_zeros = 0;
        while !self.flag()? {
            leading_zeros += 1;
            if leading_zeros > 31 {
                return Err(SpsError::OutOfRange { field: "Exp-Golomb prefix", value: leading_zeros });
            }
        }
        let suffix = self.bits(leading_zeros as u32)?;
        // With 31 leading zeros at most, this is 2^32 - 2 at most.
        Ok((1u32 << leading_zeros) - 1 + suffix)
    }

    /// A signed Exp-Golomb code: se(v).
    pub fn se(&mut self) -> Result<i64, SpsError> {
        let code = i64::from(self.ue()?);
        Ok(if code % 2 == 0 { -(code / 2) } else { (code + 1) / 2 })
    }
}

/// Writes an RBSP.
#[derive(Default)]
pub(super) struct BitWriter {
    data: Vec<u8>,
    used: usize,
}

impl BitWriter {
    pub fn flag(&mut self, bit: bool) {
        if self.used == 0 {
            self.data.push(0);
        }
        if let Some(last) = self.data.last_mut() {
            *last |= u8::from(bit) << (7 - self.used);
        }
        self.used = (self.used + 1) % 8;
    }

    pub fn ue(&mut self, value: u32) {
        let code = u64::from(value) + 1;
        let width = code.ilog2();
        for _ in 0..width {
            self.flag(false);
        }
        for bit in (0..=width).rev() {
            self.flag(code >> bit & 1 == 1);
        }
    }

    /// Copies the bits `from..to` of `source`, which must have them.
    pub fn copy(&mut self, source: &[u8], from: usize, to: usize) {
        for position in from..to {
            self.flag(source[position / 8] >> (7 - position % 8) & 1 == 1);
        }
    }

    /// Adds the stop bit and fills up the last byte (ITU-T H.264 7.3.2.11).
    pub fn finish(mut self) -> Vec<u8> {
        self.flag(true);
        self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes_survive_writing_and_reading() {
        let values = [0, 1, 2, 3, 7, 8, 254, 255, 256, 65_535, 1 << 30, u32::MAX - 1];
        let mut writer = BitWriter::default();
        values.iter().for_each(|&value| writer.ue(value));
        let data = writer.finish();
        let mut reader = BitReader::over_rbsp(&data);
        for value in values {
            assert_eq!(reader.ue(), Ok(value));
        }
        assert!(reader.at_end());
        assert_eq!(reader.ue(), Err(SpsError::Truncated));
    }

    #[test]
    fn signed_codes_alternate_around_zero() {
        let mut writer = BitWriter::default();
        (0..5).for_each(|value| writer.ue(value));
        let data = writer.finish();
        let mut reader = BitReader::over_rbsp(&data);
        assert_eq!([0; 5].map(|_| reader.se().unwrap()), [0, 1, -1, 2, -2]);
    }

    #[test]
    fn emulation_prevention_is_undone_exactly() {
        for rbsp in [&[0, 0, 0, 0, 0, 1][..], &[1, 0, 0, 2, 0, 0, 3, 0, 0, 4], &[0, 0, 1, 0, 0, 0x80], &[]] {
            let nal = escape(rbsp);
            assert_eq!(unescape(&nal), rbsp);
            assert!(!nal.windows(3).any(|window| window[..2] == [0, 0] && window[2] < 3), "{nal:?}");
        }
    }

    #[test]
    fn an_rbsp_without_a_stop_bit_is_empty() {
        assert_eq!(BitReader::over_rbsp(&[0, 0]).flag(), Err(SpsError::Truncated));
        assert_eq!(BitReader::over_rbsp(&[]).flag(), Err(SpsError::Truncated));
        assert_eq!(BitReader::over_rbsp(&[0x80]).flag(), Err(SpsError::Truncated));
    }
}
