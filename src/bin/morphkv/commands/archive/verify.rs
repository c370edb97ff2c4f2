use super::Place;
use crate::output::{Answer, Output};
use clap::Args;
use morphkv::Result;
use morphkv::log_backup::verify;

/// Read everything that counts in an archive, and compare lengths and checksums; nothing is restored
///
/// The exit code is 1 if an object is missing or damaged.
#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    place: Place,
}

impl Verify {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let archive = self.place.open()?;
        let found = verify::verify(&archive)?;
        let mut rows = vec![
            ("segments", found.segments.to_string()),
            ("other objects", found.objects.to_string()),
            ("bytes", found.bytes.to_string()),
        ];
        rows.extend(found.faults.iter().map(|fault| ("fault", format!("{}: {}", fault.object, fault.reason))));
        let sound = found.faults.is_empty();
        let headline = format!("{} {}", archive.url(), if sound { "is sound" } else { "is damaged" });
        output.result(&found, &headline, &rows)?;
        Ok(sound.into())
    }
}
