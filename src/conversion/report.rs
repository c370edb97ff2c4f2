//! What a conversion did, and what it would do.

use super::Conversion;
use super::rewrite::Rewritten;
use crate::encoding::EncodingId;
use crate::marker::Marker;
use crate::place::journal::Verify;
use serde::Serialize;

/// What a conversion did. Bytes and entries are those of the whole of it, whichever attempt did them; of one that had
/// nothing left to do but the swap, no bytes are known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The old encoding.
    pub from: String,
    /// The new encoding.
    pub to: String,
    /// Entries of the caller's family.
    pub entries: u64,
    /// Their digest, the same in every encoding.
    pub digest: String,
    /// Bytes of keys and values read.
    pub bytes_read: u64,
    /// Bytes of SST files written.
    pub bytes_written: u64,
    /// Bytes written to spill files and read back, for what had to be sorted on disk.
    pub bytes_spilled: u64,
    /// How long it took.
    pub seconds: f64,
    /// Entries that came too late for their run and took the slower way.
    pub overflow_entries: u64,
    /// Whether work of an interrupted attempt was taken over. Keeping and verifying were as that one was told, then.
    pub resumed: bool,
    /// How it was verified.
    pub verify: Verify,
    /// Whether verification read from the device (past the page cache).
    pub verified_from_device: bool,
}

/// What a conversion would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The old encoding.
    pub from: String,
    /// The new encoding.
    pub to: String,
    /// Entries, as RocksDB estimates them.
    pub entries_estimate: u64,
    /// Bytes of the live directory.
    pub live_bytes: u64,
    /// Bytes that must be free.
    pub needed_bytes: u64,
    /// Bytes that are free.
    pub free_bytes: u64,
}

/// Of a conversion that was built now.
pub(super) fn report(job: &Conversion<'_>, output: &Rewritten, resumed: bool, verified_from_device: bool) -> Report {
    Report {
        from: EncodingId::of(&*job.from).to_string(),
        to: EncodingId::of(&*job.to).to_string(),
        entries: output.entries,
        digest: output.digest.to_string(),
        bytes_read: output.bytes_read,
        bytes_written: output.bytes_written,
        bytes_spilled: output.bytes_spilled,
        seconds: 0.0,
        overflow_entries: output.overflow_entries,
        resumed,
        verify: job.verify,
        verified_from_device,
    }
}

pub(super) fn report_of_sealed(job: &Conversion<'_>, marker: &Marker) -> Report {
    let sealed = marker.sealed.as_ref();
    let entries = sealed.map_or(0, |sealed| sealed.entries);
    let digest = sealed.map_or_else(String::new, |sealed| sealed.digest.clone());
    let nothing = Rewritten { entries, ..Rewritten::default() };
    Report { digest, ..report(job, &nothing, true, false) }
}
