//! The state as it travels: a sealed memory file of checksummed records.
//!
//! Layout: 8 bytes of magic, the format number and a reserved word, then
//! records, each its length, its CRC-32 and its bytes; numbers are 32 bits,
//! little endian. Each record is one `HandoverRecord`.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{SyncSender, sync_channel};

use crc32fast::Hasher;
use prost::Message;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;

use super::HandoverError;
use crate::wire::pb::HandoverRecord;
use crate::wire::pb::handover_record::Record;

/// The format this build writes, unless the other side reads only older ones.
pub(super) const FORMAT: u32 = 1;
/// The oldest format it reads and writes.
pub(super) const OLDEST_FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"tidegate";
const HEAD: usize = 16;
/// Longest record, bytes: no outbox is longer.
const LONGEST: u32 = 1 << 31;
/// Longer records are not copied into it.
const BUFFER: usize = 64 << 10;
/// Records that are passed on at a time to whoever takes them, and how often
/// that is done before he is waited for.
const TOGETHER: usize = 64;
const AHEAD: usize = 64;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Records.
    pub records: u64,
    /// Bytes, the head included.
    pub bytes: u64,
    /// CRC-32 over the head and each record's length and CRC-32.
    pub digest: u32,
}

/// Records that were encoded apart from their [`Writer`].
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Their lengths and CRC-32s once more.
    heads: Vec<u8>,
    records: u64,
}

impl Batch {
    /// One more record.
    pub(super) fn record(&mut self, record: Record) -> std::io::Result<()> {
        self.raw(&HandoverRecord { record: Some(record), skippable: false })
    }

    /// Whether it had better be written before there is more.
    pub(super) const fn is_full(&self) -> bool {
        self.bytes.len() >= BUFFER
    }

    fn raw(&mut self, record: &HandoverRecord) -> std::io::Result<()> {
        self.with(record.encoded_len(), |bytes| record.encode(bytes).map_err(std::io::Error::other))
    }

    /// A record of `length` bytes, which `put` appends.
    fn with(
        &mut self,
        length: usize,
        put: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let length = u32::try_from(length).ok().filter(|length| *length <= LONGEST);
        let length = length.ok_or(std::io::ErrorKind::FileTooLarge)?;
        let at = self.bytes.len();
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend([0; 4]);
        put(&mut self.bytes)?;
        if let Some((head, record)) = self.bytes.get_mut(at..).and_then(<[u8]>::split_first_chunk_mut::<8>) {
            let [.., a, b, c, d] = head;
            [*a, *b, *c, *d] = crc32fast::hash(record).to_le_bytes();
            self.heads.extend_from_slice(head);
        }
        self.records += 1;
        Ok(())
    }
}

/// Writes records.
pub(super) struct Writer<W: Write> {
    out: W,
    crc: Hasher,
    summary: Summary,
}

impl<W: Write> Writer<W> {
    /// Of this format, into `out`.
    pub(super) fn new(out: W, format: u32) -> std::io::Result<Self> {
        let mut writer = Self { out, crc: Hasher::new(), summary: Summary::default() };
        let mut head = MAGIC.to_vec();
        head.extend(format.to_le_bytes());
        head.extend([0; 4]);
        writer.crc.update(&head);
        writer.put(&head)?;
        Ok(writer)
    }

    /// One more record.
    pub(super) fn record(&mut self, record: Record) -> std::io::Result<()> {
        self.raw(&HandoverRecord { record: Some(record), skippable: false })
    }

    /// One that whoever does not know it may do without.
    pub(super) fn skippable(&mut self, record: Record) -> std::io::Result<()> {
        self.raw(&HandoverRecord { record: Some(record), skippable: true })
    }

    fn raw(&mut self, record: &HandoverRecord) -> std::io::Result<()> {
        let mut batch = Batch::default();
        batch.raw(record)?;
        self.append(&mut batch)
    }

    /// One more record, encoded.
    #[cfg(test)]
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut batch = Batch::default();
        batch.with(bytes.len(), |all| all.write_all(bytes))?;
        self.append(&mut batch)
    }

    /// What is in `batch`, which is empty afterwards.
    pub(super) fn append(&mut self, batch: &mut Batch) -> std::io::Result<()> {
        self.put(&batch.bytes)?;
        self.crc.update(&batch.heads);
        self.summary.records += std::mem::take(&mut batch.records);
        batch.bytes.clear();
        batch.heads.clear();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.summary.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.out.write_all(bytes)
    }

    /// What it was written to, and what was written.
    pub(super) fn finish(mut self) -> std::io::Result<(W, Summary)> {
        self.out.flush()?;
        Ok((self.out, Summary { digest: self.crc.clone().finalize(), ..self.summary }))
    }
}

impl Writer<BufWriter<File>> {
    /// Into memory.
    pub(super) fn in_memory(format: u32) -> std::io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("tidegate-handover", flags)?);
        Self::new(BufWriter::with_capacity(BUFFER, file), format)
    }

    /// The memory, which nobody can change any more.
    pub(super) fn seal(self) -> std::io::Result<(OwnedFd, Summary)> {
        let (out, summary) = self.finish()?;
        let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        let sized = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        // Somebody in the kernel may hold a page for a moment; nobody here has
        // it mapped, and then the other seal says as much.
        match fcntl_add_seals(&file, sized | SealFlags::WRITE) {
            Err(Errno::BUSY) => fcntl_add_seals(&file, sized | SealFlags::FUTURE_WRITE)?,
            sealed => sealed?,
        }
        Ok((file.into(), summary))
    }
}

/// Reads all records of a state that was announced as `summary`; `None` = one
/// that may be skipped was.
pub(super) fn read(
    file: OwnedFd,
    summary: &Summary,
    mut take: impl FnMut(Record) -> Result<(), HandoverError>,
) -> Result<(), HandoverError> {
    let seals = fcntl_get_seals(file.as_fd()).map_err(HandoverError::io("state"))?;
    let is_fixed = seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE);
    if !is_fixed || !seals.contains(SealFlags::SHRINK) {
        return Err(HandoverError::State("it could still be changed".to_owned()));
    }
    let mut file = File::from(file);
    // The writer's offset came along.
    file.rewind().map_err(HandoverError::io("state"))?;
    read_from(BufReader::with_capacity(BUFFER, file), summary, &mut take)
}

/// The same from anywhere. A thread of its own reads, so that records are
/// taken while the next ones are decoded.
pub(super) fn read_from(
    input: impl Read + Send,
    summary: &Summary,
    take: &mut impl FnMut(Record) -> Result<(), HandoverError>,
) -> Result<(), HandoverError> {
    std::thread::scope(|scope| {
        let (decoded, records) = sync_channel(AHEAD);
        let reader = std::thread::Builder::new().name("handover".to_owned());
        let reader = reader.spawn_scoped(scope, move || decode(input, summary, &decoded));
        let reader = reader.map_err(HandoverError::io("state"))?;
        // Where one is refused, this ends the thread too.
        records.into_iter().flatten().try_for_each(take)?;
        reader.join().map_err(|_| HandoverError::State("it could not be read".to_owned()))?
    })
}

fn decode(
    mut input: impl Read,
    summary: &Summary,
    decoded: &SyncSender<Vec<Record>>,
) -> Result<(), HandoverError> {
    let broken = |what: &str| HandoverError::State(what.to_owned());
    let mut left = summary.bytes;
    let mut crc = Hasher::new();
    let mut get = |length: usize| -> Result<Vec<u8>, HandoverError> {
        let taken = u64::try_from(length).unwrap_or(u64::MAX);
        left = left.checked_sub(taken).ok_or_else(|| broken("it ends too soon"))?;
        let mut bytes = Vec::with_capacity(length);
        input.by_ref().take(taken).read_to_end(&mut bytes).map_err(HandoverError::io("state"))?;
        if bytes.len() < length {
            return Err(broken("it is cut off"));
        }
        Ok(bytes)
    };
    let head = get(HEAD)?;
    crc.update(&head);
    let format = number(head.get(8..12));
    if !head.starts_with(MAGIC) || !(OLDEST_FORMAT..=FORMAT).contains(&format) {
        return Err(HandoverError::State(format!("format {format} is not known here")));
    }
    let mut together = Vec::with_capacity(TOGETHER);
    for _ in 0..summary.records {
        let head = get(8)?;
        crc.update(&head);
        let (length, sum) = (number(head.get(..4)), number(head.get(4..)));
        let bytes = get(usize::try_from(length).unwrap_or(usize::MAX))?;
        if crc32fast::hash(&bytes) != sum {
            return Err(broken("a record is damaged"));
        }
        // Frames share the record's memory.
        let record = HandoverRecord::decode(bytes::Bytes::from(bytes)).map_err(|e| broken(&e.to_string()))?;
        match record.record {
            Some(record) => together.push(record),
            None if record.skippable => {}
            None => return Err(broken("a record of an unknown kind that must not be skipped")),
        }
        if together.len() >= TOGETHER && decoded.send(std::mem::take(&mut together)).is_err() {
            return Ok(());
        }
    }
    // Nobody takes them where one was refused.
    let _ = decoded.send(together);
    if left != 0 || crc.finalize() != summary.digest {
        return Err(broken("it is not what was announced"));
    }
    Ok(())
}

fn number(bytes: Option<&[u8]>) -> u32 {
    bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pb::HandoverTop;

    fn top(seq: i64) -> Record {
        Record::Top(HandoverTop { seq, conversation_id: "p2p:1:2".to_owned(), ..HandoverTop::default() })
    }

    fn seqs(bytes: &[u8], summary: &Summary) -> Result<Vec<i64>, HandoverError> {
        let mut seqs = Vec::new();
        read_from(bytes, summary, &mut |record| {
            seqs.extend(if let Record::Top(top) = record { Some(top.seq) } else { None });
            Ok(())
        })
        .map(|()| seqs)
    }

    fn written() -> (Vec<u8>, Summary) {
        let mut writer = Writer::new(Vec::new(), FORMAT).unwrap();
        (1..=3).for_each(|seq| writer.record(top(seq)).unwrap());
        writer.finish().unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let (bytes, summary) = written();
        assert_eq!(seqs(&bytes, &summary).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn any_changed_byte_and_any_missing_one_is_found() {
        let (bytes, summary) = written();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(seqs(&changed, &summary).is_err(), "{at}");
            assert!(seqs(&bytes[..at], &summary).is_err(), "{at}");
        }
        assert!(seqs(&bytes, &Summary { records: 2, ..summary }).is_err());
        assert!(seqs(&bytes, &Summary { digest: 0, ..summary }).is_err());
    }

    #[test]
    fn what_is_unknown_is_skipped_or_refused() {
        for skippable in [true, false] {
            let mut writer = Writer::new(Vec::new(), FORMAT).unwrap();
            writer.raw(&HandoverRecord { record: None, skippable }).unwrap();
            writer.record(top(1)).unwrap();
            let (bytes, summary) = writer.finish().unwrap();
            assert_eq!(seqs(&bytes, &summary).ok(), skippable.then(|| vec![1]));
        }
    }

    #[test]
    fn memory_is_sealed() {
        let mut writer = Writer::in_memory(FORMAT).unwrap();
        writer.record(top(9)).unwrap();
        let (memory, summary) = writer.seal().unwrap();
        let copy = File::from(memory.try_clone().unwrap());
        assert!((&copy).write_all(b"x").is_err() && copy.set_len(1).is_err());
        let mut seen = 0;
        read(memory, &summary, |_| {
            seen += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, 1);
    }
}
