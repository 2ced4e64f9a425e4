//! A commit as the engine writes it: how many rows, the rows, a checksum of
//! them and a mark. Numbers are little-endian.

use std::io::{self, Read};

use xxhash_rust::xxh3::Xxh3;

use crate::store::embedded::rows;

const START: u8 = 1;
const ROW: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// What every commit ends with.
const MARK: [u8; 4] = *b"FJL\x03";

/// Why there is no commit.
#[derive(Debug)]
pub(super) enum Broken {
    /// It is not whole, or never was one.
    Torn,
    /// It cannot be told.
    Unreadable(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Torn,
            _ => Self::Unreadable(error),
        }
    }
}

/// A whole commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Commit {
    /// Its length.
    pub(super) bytes: u64,
    /// Grows from one to the next.
    pub(super) number: u64,
    /// Whether nothing was written behind it before it was synced: it is more
    /// than positions.
    pub(super) is_synced: bool,
}

impl Commit {
    /// Reads one that is at most `room` bytes long.
    pub(super) fn read(reader: &mut impl Read, room: u64) -> Result<Self, Broken> {
        let mut reading = Reading { reader, room, bytes: 0, hash: Xxh3::new(), row: Vec::new() };
        if reading.take()? != [START] {
            return Err(Broken::Torn);
        }
        let count = u32::from_le_bytes(reading.take()?);
        let number = u64::from_le_bytes(reading.take()?);
        if count == 0 {
            return Err(Broken::Torn);
        }
        reading.hash.reset();
        let mut is_synced = false;
        for _ in 0..count {
            is_synced |= !rows::is_cursor(reading.row()?);
        }
        let sum = reading.hash.digest();
        let [end] = reading.take()?;
        let expected = u64::from_le_bytes(reading.take()?);
        let mark: [u8; 4] = reading.take()?;
        if (end, mark, expected) != (END, MARK, sum) {
            return Err(Broken::Torn);
        }
        Ok(Self { bytes: reading.bytes, number, is_synced })
    }
}

/// A commit being read.
struct Reading<'a, R> {
    reader: &'a mut R,
    room: u64,
    bytes: u64,
    hash: Xxh3,
    /// The last one's key and value.
    row: Vec<u8>,
}

impl<R: Read> Reading<'_, R> {
    /// So many bytes are still to come.
    fn expect(&mut self, bytes: usize) -> Result<(), Broken> {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.bytes > self.room { Err(Broken::Torn) } else { Ok(()) }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        self.expect(N)?;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.hash.update(&bytes);
        Ok(bytes)
    }

    /// Reads a row; returns its key.
    fn row(&mut self) -> Result<&[u8], Broken> {
        match self.take()? {
            [ROW] => {}
            [CLEAR] => {
                let _space: [u8; 8] = self.take()?;
                return Ok(&[]);
            }
            _ => return Err(Broken::Torn),
        }
        let _kind_and_packing: [u8; 2] = self.take()?;
        let _space: [u8; 8] = self.take()?;
        let key = usize::from(u16::from_le_bytes(self.take()?));
        let _unpacked: [u8; 4] = self.take()?;
        let value = u32::from_le_bytes(self.take()?);
        let length = usize::try_from(value).map_or(usize::MAX, |value| value.saturating_add(key));
        self.expect(length)?;
        self.row.resize(length, 0);
        self.reader.read_exact(&mut self.row)?;
        self.hash.update(&self.row);
        Ok(self.row.get(..key).unwrap_or_default())
    }
}
