//! Fields of a protobuf message, in place.

use anyhow::{Result, bail};
use tidegate::internal::decode_varint;

/// Hands over every field.
pub(super) fn each<'a>(body: &'a [u8], mut field: impl FnMut(u64, Value<'a>)) -> Result<()> {
    let mut fields = Fields(body);
    while let Some((number, value)) = fields.next()? {
        field(number, value);
    }
    Ok(())
}

/// A field's value: a number, or bytes.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// 0 when it is not one.
    pub(super) const fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Bytes(_) => 0,
        }
    }

    /// None when it is a number.
    pub(super) const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => &[],
        }
    }
}

/// The fields of one protobuf message.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// Number and value of the next one.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = take_number(&mut self.0)?;
        let value = match tag & 7 {
            0 => Value::Number(take_number(&mut self.0)?),
            1 => Value::Bytes(take(&mut self.0, 8)?),
            2 => Value::Bytes(take_bytes(&mut self.0)?),
            5 => Value::Bytes(take(&mut self.0, 4)?),
            other => bail!("a field of wire type {other}"),
        };
        Ok(Some((tag >> 3, value)))
    }
}

fn take_number(input: &mut &[u8]) -> Result<u64> {
    let Some((value, used)) = decode_varint(input)? else { bail!("a message ends within a number") };
    *input = input.get(used..).unwrap_or_default();
    Ok(value)
}

/// What is preceded by its length.
pub(super) fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = take_number(input)?;
    take(input, usize::try_from(length)?)
}

fn take<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let Some((head, rest)) = input.split_at_checked(length) else { bail!("a message ends within a field") };
    *input = rest;
    Ok(head)
}
