use crate::args::{Database, EncodingName};
use crate::output::{self, Answer, Output};
use crate::progress::Meter;
use clap::{Args, ValueEnum};
use morphkv::encoding::EncodingId;
use morphkv::{Keep, Options, Result, Verify, manage};
use morphkv::{Plan, Report};
use serde::Serialize;

/// Change the key encoding of a database
///
/// The new database is built beside the old one, read back and compared, and then moved into its place. It can be killed at
/// any moment: `morphkv recover` or the next open brings back a whole database. Converting to the encoding that it already
/// has does nothing, and is a success.
#[derive(Debug, Args)]
pub struct Convert {
    #[command(flatten)]
    database: Database,
    /// How its keys are to lie on disk
    #[arg(long, value_name = "ENCODING")]
    to: EncodingName,
    /// Only tell what it would do; exit code 1 if there is too little room
    #[arg(long)]
    dry_run: bool,
    /// Keep the old database beside the new one, for `rollback`, until `drop-backup`
    #[arg(long)]
    keep_backup: bool,
    /// Worker threads (default: one for each processor)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Memory that it may use, in MiB (default: 256)
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(8..))]
    memory: Option<u32>,
    /// How the new database is compared with the old one
    #[arg(long, value_name = "HOW", default_value = "full")]
    verify: VerifyName,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum VerifyName {
    /// Read all of it back
    Full,
    /// Compare the number of entries only
    Counts,
}

/// The fields are there whether or not there was something to do; what was not counted is null.
#[derive(Serialize)]
struct Converted<'a> {
    converted: bool,
    from: &'a str,
    to: &'a str,
    entries: Option<u64>,
    digest: Option<&'a str>,
    bytes_read: u64,
    bytes_written: u64,
    seconds: f64,
    overflow_entries: u64,
    resumed: bool,
    verify: Option<Verify>,
    verified_from_device: Option<bool>,
}

#[derive(Serialize)]
struct Planned<'a> {
    dry_run: bool,
    converts: bool,
    from: &'a str,
    to: &'a str,
    entries_estimate: Option<u64>,
    live_bytes: Option<u64>,
    needed_bytes: Option<u64>,
    free_bytes: Option<u64>,
    enough_room: bool,
}

impl Convert {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let to = EncodingId::of(&*self.to.encoding()).to_string();
        if self.dry_run {
            let plan = manage::plan_conversion(&self.database.path, &self.options())?;
            return self.show_plan(output, plan.as_ref(), &to);
        }
        let meter = Meter::new(output);
        let converted = manage::convert(&self.database.path, &self.options().progress(meter.callback()));
        drop(meter);
        match converted? {
            Some(report) => show_report(output, &self.database, &report)?,
            None => self.show_nothing_to_do(output, &to)?,
        }
        Ok(Answer::Yes)
    }

    fn options(&self) -> Options {
        let keep = if self.keep_backup { Keep::Yes } else { Keep::No };
        let verify = match self.verify {
            VerifyName::Full => Verify::Full,
            VerifyName::Counts => Verify::Counts,
        };
        let mut options = Options::new().encoding(self.to.encoding()).keep_backup(keep).verify(verify);
        if let Some(threads) = self.threads {
            options = options.parallelism(usize::from(threads));
        }
        if let Some(mebibytes) = self.memory {
            options = options.memory_bytes((mebibytes as usize).saturating_mul(1 << 20));
        }
        options
    }

    fn nothing_to_do(&self, to: &str) -> String {
        format!("{} is in the encoding {to} already; there is nothing to do", self.database.path.display())
    }

    fn show_nothing_to_do(&self, output: &Output, to: &str) -> Result<()> {
        let nothing = Converted {
            converted: false,
            from: to,
            to,
            entries: None,
            digest: None,
            bytes_read: 0,
            bytes_written: 0,
            seconds: 0.0,
            overflow_entries: 0,
            resumed: false,
            verify: None,
            verified_from_device: None,
        };
        output.result(&nothing, &self.nothing_to_do(to), &[])
    }

    fn show_plan(&self, output: &Output, plan: Option<&Plan>, to: &str) -> Result<Answer> {
        let enough_room = plan.is_none_or(|plan| plan.free_bytes >= plan.needed_bytes);
        let planned = Planned {
            dry_run: true,
            converts: plan.is_some(),
            from: plan.map_or(to, |plan| &plan.from),
            to,
            entries_estimate: plan.map(|plan| plan.entries_estimate),
            live_bytes: plan.map(|plan| plan.live_bytes),
            needed_bytes: plan.map(|plan| plan.needed_bytes),
            free_bytes: plan.map(|plan| plan.free_bytes),
            enough_room,
        };
        let Some(plan) = plan else {
            output.result(&planned, &self.nothing_to_do(to), &[])?;
            return Ok(Answer::Yes);
        };
        let (path, from) = (self.database.path.display(), &plan.from);
        let headline = format!("would convert {path} from {from} to {to}; nothing was changed");
        let rows = [
            ("entries", format!("about {}", output::count(plan.entries_estimate))),
            ("size", output::bytes(plan.live_bytes)),
            ("room needed", output::bytes(plan.needed_bytes)),
            ("room free", output::bytes(plan.free_bytes)),
            ("enough", if enough_room { "yes".into() } else { "NO: it would be refused".into() }),
        ];
        output.result(&planned, &headline, &rows)?;
        Ok(enough_room.into())
    }
}

fn show_report(output: &Output, database: &Database, report: &Report) -> Result<()> {
    let converted = Converted {
        converted: true,
        from: &report.from,
        to: &report.to,
        entries: Some(report.entries),
        digest: Some(&report.digest),
        bytes_read: report.bytes_read,
        bytes_written: report.bytes_written,
        seconds: report.seconds,
        overflow_entries: report.overflow_entries,
        resumed: report.resumed,
        verify: Some(report.verify),
        verified_from_device: Some(report.verified_from_device),
    };
    let headline = format!("converted {} from {} to {}", database.path.display(), report.from, report.to);
    let per_second = report.entries as f64 / report.seconds.max(1e-9);
    let rows = [
        ("entries", output::count(report.entries)),
        ("digest", report.digest.clone()),
        ("read", output::bytes(report.bytes_read)),
        ("written", output::bytes(report.bytes_written)),
        ("time", format!("{:.2} s, {} entries a second", report.seconds, output::count(per_second as u64))),
        ("late entries", output::count(report.overflow_entries)),
        ("resumed", if report.resumed { "yes".into() } else { "no".into() }),
    ];
    output.result(&converted, &headline, &rows)
}
