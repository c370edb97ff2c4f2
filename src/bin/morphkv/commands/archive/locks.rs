use super::Place;
use crate::args::Consent;
use crate::output::{Answer, Output};
use clap::Args;
use morphkv::log_backup::pin::{self, PinState};
use morphkv::{Error, ErrorKind, Result};
use serde::Serialize;
use uuid::Uuid;

/// Show who uses an archive, and keeps what it reads from being deleted
///
/// A pin whose holder has died expires by itself.
#[derive(Debug, Args)]
pub struct Locks {
    #[command(flatten)]
    place: Place,
    /// Remove this one; its holder fails when it next needs it
    #[arg(long = "break", value_name = "ID")]
    broken: Option<String>,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Serialize)]
struct Listed {
    pins: Vec<Pin>,
    broken: Option<String>,
}

#[derive(Serialize)]
struct Pin {
    id: String,
    owner: Option<String>,
    host: Option<String>,
    process: Option<u32>,
    purpose: Option<String>,
    generation: Option<u64>,
    age_seconds: u64,
    ttl_seconds: Option<u64>,
    is_expired: bool,
}

impl Pin {
    fn new(state: &PinState) -> Self {
        let contents = state.contents.as_ref();
        Pin {
            id: state.id.to_string(),
            owner: contents.map(|contents| contents.owner.clone()),
            host: contents.map(|contents| contents.host.clone()),
            process: contents.map(|contents| contents.process),
            purpose: contents.map(|contents| contents.purpose.clone()),
            generation: contents.and_then(|contents| contents.generation),
            age_seconds: state.age.as_secs(),
            ttl_seconds: contents.map(|contents| contents.ttl_milliseconds / 1000),
            is_expired: state.is_expired(),
        }
    }

    fn text(&self) -> String {
        let unknown = || "unreadable".to_string();
        let (owner, host) = (self.owner.clone().unwrap_or_else(unknown), self.host.clone().unwrap_or_else(unknown));
        let purpose = self.purpose.clone().unwrap_or_else(unknown);
        let expired = if self.is_expired { ", expired" } else { "" };
        format!("{} {purpose}: {owner} on {host}, written {} s ago{expired}", self.id, self.age_seconds)
    }
}

impl Locks {
    pub fn run(self, output: &Output) -> Result<Answer> {
        let archive = self.place.open()?;
        if let Some(broken) = &self.broken {
            let id = Uuid::try_parse(broken).map_err(|error| {
                Error::new(ErrorKind::InvalidArgument, "break a pin", format!("`{broken}` is no id: {error}"))
            })?;
            let question = format!("Whoever holds {id} fails when it next needs it.");
            let command = format!("morphkv archive locks {} --break {id} -y", self.place.url);
            if !self.consent.given(output, &question, &command)? {
                return Ok(Answer::No);
            }
            pin::break_pin(&archive, id)?;
        }
        let pins: Vec<_> = pin::list(&archive)?.iter().map(Pin::new).collect();
        let rows: Vec<_> = pins.iter().map(|pin| ("pin", pin.text())).collect();
        output.result(&Listed { pins, broken: self.broken }, &format!("pins of {}", archive.url()), &rows)?;
        Ok(Answer::Yes)
    }
}
