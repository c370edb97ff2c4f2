//! The representation of a write batch, decoded.
//!
//! RocksDB's own iteration over a batch ends at a range deletion, silently, and gives no log data. So it is decoded here:
//! sequence number (8 bytes, little-endian), count (4), then tagged operations. A tag that is not known is an error and
//! never skipped, since an operation that is left out of the log is data lost.

use super::wal::{BATCH_HEADER_BYTES, batch_header};
use crate::error::{Error, ErrorKind, Result};
use std::ops::Range;

const STEP: &str = "decode a batch of the write-ahead log";

/// The bytes of a stamp: the log data that ends each batch of a database with a log backup.
const STAMP_BYTES: usize = 8;

/// The id of the column family that operations without one mean.
pub const DEFAULT_FAMILY: u32 = 0;

/// One operation of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'b> {
    /// Writes a key.
    Put {
        /// The id of the column family.
        family: u32,
        /// The encoded key.
        key: &'b [u8],
        /// The value.
        value: &'b [u8],
    },
    /// Deletes a key.
    Delete {
        /// The id of the column family.
        family: u32,
        /// The encoded key.
        key: &'b [u8],
    },
    /// Deletes all keys of a range.
    DeleteRange {
        /// The id of the column family.
        family: u32,
        /// The first key.
        from: &'b [u8],
        /// The key after the last.
        to: &'b [u8],
    },
    /// Bytes that are in the log and nowhere else; takes no sequence number.
    LogData(&'b [u8]),
    /// Nothing; takes no sequence number.
    Noop,
}

impl Operation<'_> {
    /// Whether it takes a sequence number.
    pub fn is_counted(&self) -> bool {
        !matches!(self, Operation::LogData(_) | Operation::Noop)
    }
}

/// A batch, or several that were written as one record.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'b> {
    /// The sequence number of the first operation.
    pub sequence: u64,
    /// How many operations take a sequence number, as the header says.
    pub count: u32,
    bytes: &'b [u8],
}

/// The operations of a batch that was written by one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The sequence number of its first operation.
    pub sequence: u64,
    /// How many of its operations take a sequence number.
    pub operations: u32,
    /// Its tagged operations within the batch's bytes, the stamp among them.
    pub bytes: Range<usize>,
    /// The time that it ends with; `None` where the batch ends without one.
    pub stamp: Option<u64>,
}

fn error(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, STEP, message)
}

impl<'b> Batch<'b> {
    /// Reads the header.
    ///
    /// # Errors
    /// `Corrupt` if there is none.
    pub fn new(bytes: &'b [u8]) -> Result<Self> {
        let Some((sequence, count)) = batch_header(bytes) else {
            return Err(error(ErrorKind::Corrupt, "its header is damaged"));
        };
        Ok(Batch { sequence, count, bytes })
    }

    /// Its operations, in order. After the last one it is checked that the header's count holds.
    pub fn operations(&self) -> Operations<'b> {
        Operations { bytes: self.bytes, at: BATCH_HEADER_BYTES, counted: 0, count: self.count, ended: false }
    }

    /// The batches that were written as this one, told apart by their stamps.
    pub fn frames(&self) -> Frames<'b> {
        Frames { operations: self.operations(), sequence: self.sequence }
    }
}

/// The operations among `bytes`, which are a frame's: tagged operations without a header.
#[cfg(any(test, feature = "traps"))]
pub fn frame_operations(bytes: &[u8], count: u32) -> Operations<'_> {
    Operations { bytes, at: 0, counted: 0, count, ended: false }
}

/// Iterates over the operations of a batch; an error is the last item.
#[derive(Debug, Clone)]
pub struct Operations<'b> {
    bytes: &'b [u8],
    at: usize,
    counted: u32,
    count: u32,
    ended: bool,
}

impl<'b> Operations<'b> {
    fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        let mut number = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.take(1)?[0];
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && byte > 0x0f {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn slice(&mut self) -> Option<&'b [u8]> {
        let len = self.number()?;
        self.take(usize::try_from(len).ok()?)
    }

    /// The operation after `tag`; `None` if the bytes end within it.
    fn operation(&mut self, tag: u8) -> Option<Operation<'b>> {
        let family = if matches!(tag, 0x4 | 0x5 | 0xE) { self.number()? } else { DEFAULT_FAMILY };
        Some(match tag {
            0x0 | 0x4 => Operation::Delete { family, key: self.slice()? },
            0x1 | 0x5 => Operation::Put { family, key: self.slice()?, value: self.slice()? },
            0xE | 0xF => Operation::DeleteRange { family, from: self.slice()?, to: self.slice()? },
            0x3 => Operation::LogData(self.slice()?),
            _ => Operation::Noop,
        })
    }

    fn step(&mut self) -> Result<Option<Operation<'b>>> {
        let start = self.at;
        let Some(tag) = self.take(1).map(|byte| byte[0]) else {
            if self.counted == self.count {
                return Ok(None);
            }
            let message = format!("its header says {} operations, it holds {}", self.count, self.counted);
            return Err(error(ErrorKind::Corrupt, message));
        };
        if !matches!(tag, 0x0 | 0x1 | 0x3 | 0x4 | 0x5 | 0xD | 0xE | 0xF) {
            let message = format!("an operation of type {tag:#x}, at byte {start}, is not known");
            return Err(error(ErrorKind::Unsupported, message));
        }
        let Some(operation) = self.operation(tag) else {
            return Err(error(ErrorKind::Corrupt, format!("it ends within the operation at byte {start}")));
        };
        if operation.is_counted() {
            if self.counted == self.count {
                return Err(error(ErrorKind::Corrupt, format!("it holds more than {} operations", self.count)));
            }
            self.counted += 1;
        }
        Ok(Some(operation))
    }
}

impl<'b> Iterator for Operations<'b> {
    type Item = Result<Operation<'b>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}

/// Iterates over the frames of a record; an error is the last item.
#[derive(Debug, Clone)]
pub struct Frames<'b> {
    operations: Operations<'b>,
    sequence: u64,
}

impl Iterator for Frames<'_> {
    type Item = Result<Frame>;

    fn next(&mut self) -> Option<Self::Item> {
        let (start, sequence) = (self.operations.at, self.sequence);
        let mut frame = Frame { sequence, operations: 0, bytes: start..start, stamp: None };
        while frame.stamp.is_none() {
            match self.operations.next() {
                None => break,
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(Operation::LogData(data))) => {
                    frame.stamp = <[u8; STAMP_BYTES]>::try_from(data).ok().map(u64::from_le_bytes);
                }
                Some(Ok(operation)) => frame.operations += u32::from(operation.is_counted()),
            }
        }
        frame.bytes.end = self.operations.at;
        self.sequence += u64::from(frame.operations);
        (!frame.bytes.is_empty()).then_some(Ok(frame))
    }
}
