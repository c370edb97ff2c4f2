use crate::args::Database;
use crate::output::{self, Answer, Output};
use crate::progress::Meter;
use clap::Args;
use morphkv::{Error, ErrorKind, Options, Result, manage};

/// Read all of a database and check it
///
/// Checks the checksum of every block, that every key can be decoded, and, as long as nothing was written since its last
/// conversion, that number and digest of the entries are those that were sealed. The exit code is 1 if something is wrong.
#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    database: Database,
}

impl Verify {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let meter = Meter::new(output);
        let verified = manage::verify(&self.database.path, &Options::new().progress(meter.callback()));
        drop(meter);
        let verified = verified.or_else(damaged_at_once)?;
        let path = self.database.path.display();
        let headline = if verified.ok { format!("{path} is whole") } else { format!("{path} is NOT whole") };
        let mut rows = vec![
            ("encoding", verified.encoding.clone()),
            ("entries", output::count(verified.entries)),
            ("digest", verified.digest.clone()),
            ("sealed", if verified.compared_with_seal { "the same".into() } else { "nothing to compare with".into() }),
        ];
        if !verified.ok {
            rows.retain(|(label, _)| *label == "encoding");
        }
        rows.extend(verified.findings.iter().map(|finding| ("finding", finding.clone())));
        output.result(&verified, &headline, &rows)?;
        Ok(verified.ok.into())
    }
}

/// Damage that keeps it from being opened is a finding like any other.
fn damaged_at_once(error: Error) -> Result<manage::Verification> {
    if error.kind() != ErrorKind::Corrupt {
        return Err(error);
    }
    Ok(manage::Verification {
        encoding: "not known".into(),
        entries: 0,
        digest: String::new(),
        compared_with_seal: false,
        ok: false,
        findings: vec![error.to_string()],
    })
}
