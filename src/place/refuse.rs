//! The words of a refusal: what was found, that the data is intact, and what to type next.

use super::decide::{Backup, Change, Live};
use super::observe::Sight;
use crate::error::{Error, ErrorKind};
use crate::layout::Layout;

/// The error of a row whose action is to refuse.
pub fn refusal(layout: &Layout, row: u8, sight: &Sight) -> Error {
    let live = layout.live.display();
    let step = "open the database";
    let refused = |message: String| Error::new(ErrorKind::Refused, step, message).at(&layout.live);
    let inspect = format!("morphkv inspect {live}");
    match row {
        1 => refused(format!("{}; nothing was touched: run fsck on the file system", sight.reason)).next(inspect),
        2 => refused(format!("{}; nothing was touched", sight.reason)).next(inspect),
        5 => without_journal(layout, sight),
        23 => refused(format!(
            "a finished change left live damaged ({}); what was written since may be in it alone, so the backup \
             directory was not put back; nothing was touched",
            sight.reason
        ))
        .next(inspect),
        26 => {
            let reason = if sight.reason.is_empty() { "it is gone" } else { &sight.reason };
            let whole = sight.observed.backup == Backup::Source;
            let message = format!(
                "live is damaged ({reason}); the old database from before the conversion {} in the backup directory",
                if whole { "stands whole" } else { "is not whole either" }
            );
            let next = if whole { format!("morphkv rollback {live} -y") } else { inspect };
            refused(message).next(next)
        }
        _ => refused(format!(
            "an interrupted change left a state that it cannot have made itself (row {row}: journal {}, live {:?}, \
             staging {:?}, backup directory {:?}){}; nothing was touched",
            change(&sight.observed.change),
            sight.observed.live,
            sight.observed.staging,
            sight.observed.backup,
            if sight.reason.is_empty() { String::new() } else { format!(": {}", sight.reason) },
        ))
        .next(inspect),
    }
}

fn change(change: &Change) -> String {
    match change {
        Change::None => "none".into(),
        Change::Unreadable => "unreadable".into(),
        Change::Of { kind, phase, .. } => {
            format!("{} {}", super::journal::kind_name(*kind), super::journal::phase_name(*phase))
        }
    }
}

fn without_journal(layout: &Layout, sight: &Sight) -> Error {
    let live = layout.live.display();
    let step = "open the database";
    let inspect = format!("morphkv inspect {live}");
    if let Some((kind, message)) = &sight.marker_error {
        let message = format!("its marker is unusable: {message}; the data is intact, nothing was touched");
        let kind = if *kind == ErrorKind::Unsupported { ErrorKind::Unsupported } else { ErrorKind::Refused };
        return Error::new(kind, step, message).at(layout.live.join(crate::layout::MARKER)).next(inspect);
    }
    if sight.observed.live == Live::Absent && sight.observed.restore {
        let message = "there is no database yet: a restore to its place is not finished; nothing was touched";
        return Error::new(ErrorKind::Refused, step, message)
            .at(&layout.live)
            .next(format!("morphkv restore status {live}"));
    }
    if sight.observed.live == Live::Absent {
        let names = super::strangers(layout, sight).join(", ");
        let message = format!(
            "there is no database, but {names} stands beside its place and may hold one; nothing was touched, and no \
             new database is made over it"
        );
        return Error::new(ErrorKind::Refused, step, message).at(&layout.live).next(inspect);
    }
    let unmarked = sight.reason.contains("without a marker");
    let next = if unmarked { format!("morphkv adopt {live} --encoding natural") } else { inspect };
    let message = format!("{}; the data is intact, nothing was touched", sight.reason);
    Error::new(ErrorKind::Refused, step, message).at(&layout.live).next(next)
}
