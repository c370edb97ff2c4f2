use super::Place;
use crate::args::Consent;
use crate::output::{self, Answer, Output};
use clap::Args;
use morphkv::Result;
use morphkv::log_backup::fsck::{Leftover, fsck};

/// Compare what stands in an archive with what its HEAD speaks of, and sweep what is left over
///
/// Contents are not read; `archive verify` does that. The exit code is 1 if something is missing or cut, or if something
/// older than a week is left over.
#[derive(Debug, Args)]
pub struct Fsck {
    #[command(flatten)]
    place: Place,
    /// Remove what nothing speaks of for a week, unless somebody may be uploading, and pins that have expired
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    consent: Consent,
}

impl Fsck {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let archive = self.place.open()?;
        if self.repair {
            let question = "What nothing in the archive speaks of for a week will be gone.";
            let command = format!("morphkv archive fsck {} --repair -y", self.place.url);
            if !self.consent.given(output, question, &command)? {
                return Ok(Answer::No);
            }
        }
        let found = fsck(&archive, self.repair)?;
        let mut rows = vec![
            ("objects", output::count(found.objects)),
            ("bytes", output::bytes(found.bytes)),
            ("doomed", output::count(found.doomed)),
        ];
        rows.extend(found.faults.iter().map(|fault| ("fault", format!("{}: {}", fault.object, fault.reason))));
        rows.extend(found.orphans.iter().map(|orphan| ("orphan", text(orphan))));
        rows.extend(found.stale.iter().map(|stale| ("stale", text(stale))));
        rows.extend(found.unknown.iter().map(|name| ("unknown", name.clone())));
        if found.foreign > 0 {
            rows.push(("foreign", output::count(found.foreign)));
        }
        let uploading = "may be uploading, so orphans stay; see `morphkv archive locks`";
        rows.extend(found.uploaders.iter().map(|pin| ("pin", format!("{pin} {uploading}"))));
        let headline = match (found.faults.is_empty(), found.is_sound()) {
            (_, true) => "is sound",
            (true, false) => "has all that is needed, and leftovers",
            (false, false) => "is damaged",
        };
        output.result(&found, &format!("{} {headline}", archive.url()), &rows)?;
        Ok(found.is_sound().into())
    }
}

fn text(leftover: &Leftover) -> String {
    let end = match (leftover.is_removed, leftover.is_old) {
        (true, _) => ", removed",
        (false, true) => "",
        (false, false) => ", too young to be sure",
    };
    format!("{} ({} bytes, {} h old{end})", leftover.object, leftover.bytes, leftover.age_seconds / 3600)
}
