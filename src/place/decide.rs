//! The recovery table: what to do with a place, as a pure function of what was seen.
//!
//! It never sees the encoding that the caller wants: a place is brought to rest first, then the marker is read, then
//! the wanted encoding is compared. Rows are numbered as in the table of `ARCHITECTURE.md`; a row is tried only after
//! those above it. Whatever fits no row is refused, and nothing moves.

use super::journal::{Kind, Phase};

/// The live directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Live {
    /// `-`: nothing, or an empty directory that can be removed.
    Absent,
    /// Without a journal: marked and readable, or of the legacy comparator.
    Whole,
    /// `O`: the source, as it was.
    Source,
    /// `X`: the source, changed since the journal was written.
    SourceChanged,
    /// `N`: carries the journal's id in marker and identity.
    New,
    /// `P`: ours, and positively not whole.
    Partial,
    /// `F`: anything else.
    Foreign,
}

/// The staging directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Staging {
    /// `-`
    Absent,
    /// `N`: sealed.
    New,
    /// `P`: ours, not sealed.
    Partial,
    /// `F`
    Foreign,
}

/// The backup directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backup {
    /// `-`
    Absent,
    /// `O`
    Source,
    /// `X`
    SourceChanged,
    /// `K`: kept from the change before this one.
    Older,
    /// `F`
    Foreign,
}

/// The journal, as far as the decision depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// There is no journal.
    None,
    /// There is one that cannot be read.
    Unreadable,
    /// A change: its kind, its phase, whether it replaces a database, whether the old one is to be kept.
    Of {
        /// What sort of change.
        kind: Kind,
        /// How far.
        phase: Phase,
        /// It replaces a database (a conversion always does, an install may).
        replaces: bool,
        /// The old database is to be kept.
        keep: bool,
    },
}

/// All that the decision depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Observed {
    /// The journal.
    pub change: Change,
    /// Live.
    pub live: Live,
    /// Staging.
    pub staging: Staging,
    /// Backup directory.
    pub backup: Backup,
    /// Something stands at the name of the trash.
    pub trash: bool,
    /// Something stands at the name of a restore.
    pub restore: bool,
    /// Two of the siblings are one directory under two names.
    pub twins: bool,
}

/// What to do next. All but the first five change the place, and are followed by another look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing is to be done by us.
    Refuse,
    /// There is no database.
    Absent,
    /// Live is whole; open it.
    Open,
    /// Live is whole and a conversion towards its replacement is under way: who wants its target goes on with it, and who
    /// wants to write to live drops it.
    Keep,
    /// Live is whole; open it first, then sweep what the change left (not a backup that is no longer ours).
    OpenThenSweep,
    /// Remove staging and the journal.
    Drop,
    /// Remove the old database that is kept from the change before this one.
    DiscardOlder,
    /// live -> backup directory.
    LiveToBackup,
    /// staging -> live.
    StagingToLive,
    /// backup directory -> live.
    BackupToLive,
    /// live -> staging.
    LiveToStaging,
    /// The journal says Done, or Kept if the old database is to be kept.
    Settle,
    /// The journal says Kept: a rollback is given up.
    KeepAfterAll,
    /// The journal of a rollback says Done.
    RollbackDone,
    /// Live is whole again after a rollback; open it first, then remove staging and the journal.
    OpenThenSweepRollback,
    /// The kept backup is gone: remove the journal.
    DropJournal,
    /// Remove everything, live last.
    Destroy,
}

/// The row of the table that fits, and its action.
pub fn decide(seen: &Observed) -> (u8, Action) {
    if seen.twins {
        return (1, Action::Refuse);
    }
    match seen.change {
        Change::Unreadable => (2, Action::Refuse),
        Change::None => without_journal(seen),
        Change::Of { kind: Kind::Destroy, .. } => (34, Action::Destroy),
        Change::Of { kind: Kind::Rollback, phase, .. } => rollback(seen, phase),
        Change::Of { phase: Phase::Building, replaces, .. } => building(seen, replaces),
        Change::Of { phase: Phase::Ready, replaces, .. } => ready(seen, replaces),
        Change::Of { phase: Phase::Done, .. } => done(seen),
        Change::Of { phase: Phase::Kept, .. } => kept(seen),
    }
}

fn without_journal(seen: &Observed) -> (u8, Action) {
    let alone = seen.staging == Staging::Absent && seen.backup == Backup::Absent && !seen.trash && !seen.restore;
    match seen.live {
        Live::Whole => (3, Action::Open),
        Live::Absent if alone => (4, Action::Absent),
        _ => (5, Action::Refuse),
    }
}

fn building(seen: &Observed, replaces: bool) -> (u8, Action) {
    // The backup directory is not ours yet, whatever stands there: nothing that follows touches it.
    if seen.staging == Staging::Foreign {
        return (9, Action::Refuse);
    }
    match seen.live {
        Live::Source if replaces => (6, Action::Keep),
        Live::SourceChanged if replaces => (7, Action::Drop),
        Live::Absent if !replaces => (8, Action::Drop),
        _ => (9, Action::Refuse),
    }
}

fn ready(seen: &Observed, replaces: bool) -> (u8, Action) {
    use Action::{BackupToLive, Drop, LiveToBackup, LiveToStaging, Refuse, Settle, StagingToLive};
    let ours = matches!(seen.staging, Staging::Absent | Staging::Partial | Staging::New);
    let unsealed = matches!(seen.staging, Staging::Absent | Staging::Partial);
    let source_kept = matches!(seen.backup, Backup::Source | Backup::SourceChanged);
    match (seen.live, seen.backup) {
        (Live::Source, Backup::Older) if replaces && seen.staging == Staging::New => (10, Action::DiscardOlder),
        (Live::Source, Backup::Absent) if replaces && seen.staging == Staging::New => (10, LiveToBackup),
        (Live::Source, Backup::Absent | Backup::Older) if replaces && unsealed => (11, Drop),
        (Live::SourceChanged, Backup::Absent | Backup::Older) if replaces && ours => (12, Drop),
        (Live::Source | Live::SourceChanged, _) if replaces => (13, Refuse),
        (Live::Absent, Backup::SourceChanged) if seen.staging == Staging::New => (15, BackupToLive),
        (Live::Absent, _) if seen.staging == Staging::New => (14, StagingToLive),
        (Live::Absent, _) if replaces && unsealed && source_kept => (16, BackupToLive),
        (Live::Absent, Backup::Absent) if !replaces && unsealed => (17, Drop),
        (Live::New, _) if ours => (18, Settle),
        (Live::Partial, Backup::Source | Backup::SourceChanged) if replaces && seen.staging == Staging::Absent => {
            (19, LiveToStaging)
        }
        (Live::Partial, Backup::Absent) if !replaces && seen.staging == Staging::Absent => (19, LiveToStaging),
        _ => (20, Refuse),
    }
}

fn done(seen: &Observed) -> (u8, Action) {
    let ours = matches!(seen.staging, Staging::Absent | Staging::Partial | Staging::New);
    match (seen.live, seen.backup) {
        (Live::New, Backup::Source | Backup::Absent) if ours => (21, Action::OpenThenSweep),
        (Live::New, _) => (22, Action::OpenThenSweep),
        _ => (23, Action::Refuse),
    }
}

fn kept(seen: &Observed) -> (u8, Action) {
    // Whatever stands at staging's name is not ours any more.
    match (seen.live, seen.backup) {
        (Live::New, Backup::Absent) => (25, Action::DropJournal),
        (Live::New, _) => (24, Action::Open),
        _ => (26, Action::Refuse),
    }
}

fn rollback(seen: &Observed, phase: Phase) -> (u8, Action) {
    let ours = seen.staging != Staging::Foreign;
    let backup_whole = seen.backup == Backup::Source;
    match (phase, seen.live, seen.staging) {
        // A damaged live may go too: that is what one rolls back for.
        (Phase::Ready, Live::New | Live::Partial, Staging::Absent) if backup_whole => (27, Action::LiveToStaging),
        (Phase::Ready, Live::Absent, _) if backup_whole && ours => (28, Action::BackupToLive),
        // Nothing else is whole any more: what others have added to the old database stays with it.
        (Phase::Ready, Live::Absent, Staging::Absent | Staging::Partial) if seen.backup == Backup::SourceChanged => {
            (28, Action::BackupToLive)
        }
        (Phase::Ready, Live::Absent, Staging::New) => (29, Action::StagingToLive),
        (Phase::Ready, Live::Source | Live::SourceChanged, _) if ours && seen.backup == Backup::Absent => {
            (30, Action::RollbackDone)
        }
        (Phase::Ready, Live::New, Staging::Absent) => (31, Action::KeepAfterAll),
        (Phase::Done, Live::Source | Live::SourceChanged, _) if ours => (32, Action::OpenThenSweepRollback),
        _ => (33, Action::Refuse),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of `ARCHITECTURE.md`: row, journal, replaces (`y`, `n`, `*`), live, staging, backup, action. Letters as
    /// there; `*` is anything. The first row that fits counts.
    const TABLE: &[(u8, &str, &str, &str, &str, &str, Action)] = &[
        (2, "unreadable", "*", "*", "*", "*", Action::Refuse),
        (3, "none", "*", "W", "*", "*", Action::Open),
        (4, "none", "*", "-", "-", "-", Action::Absent),
        (5, "none", "*", "*", "*", "*", Action::Refuse),
        (6, "building", "y", "O", "-PN", "*", Action::Keep),
        (7, "building", "y", "X", "-PN", "*", Action::Drop),
        (8, "building", "n", "-", "-PN", "*", Action::Drop),
        (9, "building", "*", "*", "*", "*", Action::Refuse),
        (10, "ready", "y", "O", "N", "-", Action::LiveToBackup),
        (10, "ready", "y", "O", "N", "K", Action::DiscardOlder),
        (11, "ready", "y", "O", "-P", "-K", Action::Drop),
        (12, "ready", "y", "X", "-PN", "-K", Action::Drop),
        (13, "ready", "y", "OX", "*", "*", Action::Refuse),
        (14, "ready", "*", "-", "N", "-OFK", Action::StagingToLive),
        (15, "ready", "*", "-", "N", "X", Action::BackupToLive),
        (16, "ready", "y", "-", "-P", "OX", Action::BackupToLive),
        (17, "ready", "n", "-", "-P", "-", Action::Drop),
        (18, "ready", "*", "N", "-PN", "*", Action::Settle),
        (19, "ready", "y", "P", "-", "OX", Action::LiveToStaging),
        (19, "ready", "n", "P", "-", "-", Action::LiveToStaging),
        (20, "ready", "*", "*", "*", "*", Action::Refuse),
        (21, "done", "*", "N", "-PN", "O-", Action::OpenThenSweep),
        (22, "done", "*", "N", "*", "*", Action::OpenThenSweep),
        (23, "done", "*", "*", "*", "*", Action::Refuse),
        (25, "kept", "*", "N", "*", "-", Action::DropJournal),
        (24, "kept", "*", "N", "*", "*", Action::Open),
        (26, "kept", "*", "*", "*", "*", Action::Refuse),
        (27, "rollback ready", "*", "NP", "-", "O", Action::LiveToStaging),
        (28, "rollback ready", "*", "-", "-PN", "O", Action::BackupToLive),
        (28, "rollback ready", "*", "-", "-P", "X", Action::BackupToLive),
        (29, "rollback ready", "*", "-", "N", "*", Action::StagingToLive),
        (30, "rollback ready", "*", "OX", "-PN", "-", Action::RollbackDone),
        (31, "rollback ready", "*", "N", "-", "*", Action::KeepAfterAll),
        (32, "rollback done", "*", "OX", "-PN", "*", Action::OpenThenSweepRollback),
        (33, "rollback", "*", "*", "*", "*", Action::Refuse),
        (34, "destroy", "*", "*", "*", "*", Action::Destroy),
    ];

    const LIVES: [(char, Live); 7] = [
        ('-', Live::Absent),
        ('W', Live::Whole),
        ('O', Live::Source),
        ('X', Live::SourceChanged),
        ('N', Live::New),
        ('P', Live::Partial),
        ('F', Live::Foreign),
    ];
    const STAGINGS: [(char, Staging); 4] =
        [('-', Staging::Absent), ('N', Staging::New), ('P', Staging::Partial), ('F', Staging::Foreign)];
    const BACKUPS: [(char, Backup); 5] = [
        ('-', Backup::Absent),
        ('O', Backup::Source),
        ('X', Backup::SourceChanged),
        ('K', Backup::Older),
        ('F', Backup::Foreign),
    ];

    fn changes() -> Vec<(String, char, Change)> {
        let mut changes = vec![("none".into(), '*', Change::None), ("unreadable".into(), '*', Change::Unreadable)];
        let phases = [Phase::Building, Phase::Ready, Phase::Done, Phase::Kept];
        for kind in [Kind::Create, Kind::Convert, Kind::Install, Kind::Rollback, Kind::Destroy] {
            for phase in phases {
                for replaces in [true, false] {
                    let words = match kind {
                        Kind::Rollback => format!("rollback {}", super::super::journal::phase_name(phase)),
                        Kind::Destroy => "destroy".into(),
                        _ => super::super::journal::phase_name(phase).into(),
                    };
                    let change = Change::Of { kind, phase, replaces, keep: false };
                    changes.push((words, if replaces { 'y' } else { 'n' }, change));
                }
            }
        }
        changes
    }

    fn expected(words: &str, replaces: char, live: char, staging: char, backup: char, trash: bool) -> (u8, Action) {
        let fits = |pattern: &str, letter: char| pattern == "*" || pattern.contains(letter);
        let row = TABLE.iter().find(|row| {
            let journal = words == row.1 || (row.1 == "rollback" && words.starts_with("rollback"));
            let in_the_way = row.0 == 4 && trash;
            journal
                && !in_the_way
                && fits(row.2, replaces)
                && fits(row.3, live)
                && fits(row.4, staging)
                && fits(row.5, backup)
        });
        let row = row.expect("the table has a last row for every journal");
        (row.0, row.6)
    }

    #[test]
    fn every_state_is_decided_as_the_table_says() {
        let mut states = 0;
        let mut rows = std::collections::BTreeSet::new();
        for (words, replaces, change) in changes() {
            for (l, live) in LIVES {
                for (s, staging) in STAGINGS {
                    for (b, backup) in BACKUPS {
                        for trash in [false, true] {
                            let seen = Observed { change, live, staging, backup, trash, restore: false, twins: false };
                            let wanted = expected(&words, replaces, l, s, b, trash);
                            assert_eq!(decide(&seen), wanted, "{words} {replaces} live {l} staging {s} backup {b}");
                            states += 1;
                            rows.insert(wanted.0);
                            assert_eq!(decide(&Observed { twins: true, ..seen }), (1, Action::Refuse));
                        }
                    }
                }
            }
        }
        assert_eq!(rows.len(), 33, "a row that no state reaches: {rows:?}");
        println!("recovery table: {states} states, {} rows", rows.len() + 1);
    }

    #[test]
    fn a_restore_under_way_keeps_an_absent_place_closed() {
        let seen = Observed {
            change: Change::None,
            live: Live::Absent,
            staging: Staging::Absent,
            backup: Backup::Absent,
            trash: false,
            restore: true,
            twins: false,
        };
        assert_eq!(decide(&seen), (5, Action::Refuse));
    }
}
