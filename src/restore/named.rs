//! A compaction that is named, and found by its END: HEAD need not know it, and it may stand in another place than the log.
//!
//! It must never fail a restore: whatever is wrong with it, it is left out, with the reason.

use crate::error::{Error, ErrorKind, Result};
use crate::log_backup::archive::Archive;
use crate::log_backup::compaction::{self, END_BYTES_MAX, End};
use crate::log_backup::names;
use crate::restore::consistent::consistent;
use crate::restore::plan::Plan;
use crate::restore::replica::require_run;
use crate::restore::runs::{LeftOut, PlannedRun, best};
use uuid::Uuid;

const STEP: &str = "look for a compaction";

/// A compaction by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// The URL of where it stands; `None`: with the log.
    pub at: Option<String>,
}

impl Named {
    /// Takes it into a plan, instead of those that stand for the same segments. Says why it is left out, if it is: it is not
    /// there or not as a whole, it has not ended or has failed, it is of another log ([`consistent`]).
    pub fn take_into(&self, plan: &mut Plan, archive: &Archive) -> Option<LeftOut> {
        let (run, reason) = match self.find(archive) {
            Ok((run, end)) => {
                let usable = usable(&run, &end, plan, archive);
                (Some(run), usable.err())
            }
            Err(error) => (None, Some(error)),
        };
        if let Some(reason) = reason {
            tracing::warn!(%reason, compaction = %self.name, "a compaction cannot be used; its segments are");
            let id = run.map_or(Uuid::nil(), |run| run.id);
            return Some(LeftOut { id, name: self.name.clone(), reason: reason.to_string() });
        }
        if let Some((run, leg)) = run.and_then(|run| {
            let leg = plan.legs.iter_mut().find(|leg| leg.timeline == run.body.timeline)?;
            Some((run, leg))
        }) {
            let overlaps = |other: &PlannedRun| {
                other.body.first_segment < run.body.end_segment && run.body.first_segment < other.body.end_segment
            };
            leg.runs.retain(|other| !overlaps(other));
            leg.runs.push(run);
            leg.runs = best(std::mem::take(&mut leg.runs));
        }
        None
    }

    fn find(&self, archive: &Archive) -> Result<(PlannedRun, End)> {
        let place = self.at.as_ref().map_or_else(|| Ok(archive.clone()), |url| archive.beside(url))?;
        let at = (place.url() != archive.url()).then(|| place.url().to_owned());
        let end = names::compaction_end(&self.name)?;
        let Some((reference, end)) = compaction::find::<End>(&place, &end, END_BYTES_MAX)? else {
            let begun = compaction::find_spec(&place, &self.name)?.is_some();
            let message = if begun { "it has not ended" } else { "there is no compaction of that name" };
            return Err(Error::new(ErrorKind::NotFound, STEP, message).at(place.url()));
        };
        Ok((PlannedRun { id: end.spec.id, body: end.spec.body(reference), at }, end))
    }
}

fn usable(run: &PlannedRun, end: &End, plan: &Plan, archive: &Archive) -> Result<()> {
    let unusable = |message: String| Error::new(ErrorKind::InvalidArgument, STEP, message).at(archive.url());
    if let Some(failure) = &end.failure {
        return Err(unusable(format!("it has failed: {failure}")));
    }
    consistent(&end.spec, archive.url(), plan).map_err(|why| unusable(why.to_string()).because(why))?;
    require_run(archive, run)?;
    let last = compaction::read(&run.place(archive)?, &run.body)?.last();
    let leg = plan.legs.iter().find(|leg| leg.timeline == end.spec.timeline);
    // Times rise with sequence numbers: if the last frame is in, all are.
    match (leg, last) {
        (Some(leg), Some((_, time))) if time > leg.limit.time => {
            Err(unusable("it goes beyond the moment that is restored to".into()))
        }
        _ => Ok(()),
    }
}
