//! The length prefix of a frame: base-128, least significant group first,
//! in its shortest form only.

/// Most bytes of a 64-bit varint.
pub(crate) const MAX_VARINT: usize = 10;

/// A prefix no sender of ours would write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VarintError {
    /// Does not fit 64 bits.
    #[error("varint does not fit 64 bits")]
    Overflow,
    /// A shorter encoding of the same number exists.
    #[error("varint is not in its shortest form")]
    Overlong,
}

/// Appends `value`.
pub fn encode_varint(value: u64, out: &mut impl bytes::BufMut) {
    let mut rest = value;
    while rest >= 0x80 {
        out.put_u8(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
        rest >>= 7;
    }
    out.put_u8(u8::try_from(rest).unwrap_or(0));
}

/// Reads a number and how many bytes it took; `None` = more bytes are needed.
pub fn decode_varint(input: &[u8]) -> Result<Option<(u64, usize)>, VarintError> {
    let mut value = 0_u64;
    for (index, &byte) in input.iter().take(MAX_VARINT).enumerate() {
        let group = u64::from(byte & 0x7f);
        if index == MAX_VARINT - 1 && group > 1 {
            return Err(VarintError::Overflow);
        }
        value |= group << (7 * index);
        if byte & 0x80 == 0 {
            return if byte == 0 && index > 0 {
                Err(VarintError::Overlong)
            } else {
                Ok(Some((value, index + 1)))
            };
        }
    }
    if input.len() >= MAX_VARINT { Err(VarintError::Overflow) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trip_and_every_prefix_is_incomplete(value: u64) {
            let mut out = Vec::new();
            encode_varint(value, &mut out);
            prop_assert_eq!(decode_varint(&out), Ok(Some((value, out.len()))));
            for cut in 0..out.len() {
                prop_assert_eq!(decode_varint(&out[..cut]), Ok(None));
            }
        }

        #[test]
        fn what_is_read_is_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok(Some((value, used))) = decode_varint(&bytes) {
                let mut out = Vec::new();
                encode_varint(value, &mut out);
                prop_assert_eq!(&out[..], &bytes[..used]);
            }
        }
    }

    #[test]
    fn edges() {
        assert_eq!(decode_varint(&[0x80, 0x00]), Err(VarintError::Overlong));
        assert_eq!(decode_varint(&[0xff; 10]), Err(VarintError::Overflow));
        assert_eq!(decode_varint(&[0x80; 9]), Ok(None));
    }
}
