use super::create::Identity;
use crate::args::{Database, EncodingName};
use crate::output::{Answer, Output};
use crate::progress::Meter;
use clap::Args;
use morphkv::{Error, ErrorKind, Options, Result, manage};

/// Take over a plain RocksDB database
///
/// Every key is read first, and adopting is refused if one is not in that encoding. It then gets an identity and a marker;
/// nothing else of it changes.
#[derive(Debug, Args)]
pub struct Adopt {
    #[command(flatten)]
    database: Database,
    /// How its keys lie on disk now; `natural` for keys that RocksDB was given as they are
    #[arg(long, value_name = "ENCODING")]
    encoding: EncodingName,
}

impl Adopt {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let meter = Meter::new(output);
        let options = Options::new().progress(meter.callback());
        let adopted = manage::adopt(&self.database.path, &self.encoding.encoding(), &options);
        drop(meter);
        let marker = adopted.map_err(|error| self.perhaps_natural(error))?;
        let identity = Identity {
            path: self.database.path.display().to_string(),
            encoding: marker.encoding.name,
            revision: marker.encoding.revision,
            database_id: marker.database_id.to_string(),
        };
        identity.show(output, "adopted")
    }

    /// A key that cannot be decoded means more often a wrong encoding than damage.
    fn perhaps_natural(&self, error: Error) -> Error {
        let undecodable = error.kind() == ErrorKind::Corrupt && error.next_command().is_none();
        if !undecodable || self.encoding == EncodingName::Natural {
            return error;
        }
        error.next(format!("morphkv adopt {} --encoding natural", self.database.path.display()))
    }
}
