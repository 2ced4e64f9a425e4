//! CRC-32 as of IEEE 802.3, bytes in, number out. Pure.

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte: u32 = 0;
    while byte < 256 {
        let mut crc = byte;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        #[expect(clippy::as_conversions, clippy::indexing_slicing, reason = "const: no other way; below 256")]
        {
            table[byte as usize] = crc;
        }
        byte += 1;
    }
    table
}

/// A checksum being put together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crc(u32);

impl Crc {
    /// Of nothing.
    pub(super) const fn new() -> Self {
        Self(!0)
    }

    /// Goes on with these bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |crc, &byte| {
            let [low, ..] = crc.to_le_bytes();
            TABLE.get(usize::from(low ^ byte)).copied().unwrap_or(0) ^ crc >> 8
        });
    }

    /// The sum so far.
    pub(super) const fn sum(self) -> u32 {
        !self.0
    }

    /// Of these bytes alone.
    pub(super) fn of(bytes: &[u8]) -> u32 {
        let mut crc = Self::new();
        crc.update(bytes);
        crc.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_standard() {
        assert_eq!(Crc::of(b"123456789"), 0xcbf4_3926);
        let mut parts = Crc::new();
        parts.update(b"12345");
        parts.update(b"6789");
        assert_eq!(parts.sum(), 0xcbf4_3926);
        assert_eq!(Crc::of(b""), 0);
    }
}
