//! What happens at a trap, and when.

use super::Trap;
use crate::error::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::path::PathBuf;

/// What happens at a trap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrapAction {
    /// The process dies without unwinding.
    Abort,
    /// The step returns an error of this kind.
    Error(ErrorKind),
    /// The thread makes the file and waits until it is gone: for races.
    Pause(PathBuf),
    /// What was not synced is lost, and the process dies. Through a [`PowerCutVfs`](crate::fs::PowerCutVfs).
    PowerCut,
}

impl TrapAction {
    /// Does it.
    ///
    /// # Errors
    /// What a test asked for; `InvalidArgument` for a power cut: only a [`PowerCutVfs`](crate::fs::PowerCutVfs)
    /// knows what was not synced.
    pub(crate) fn perform(self, trap: Trap) -> Result<()> {
        match self {
            TrapAction::Abort => die(),
            TrapAction::Error(kind) => Err(Error::new(kind, "go on", format!("trap {}", trap.name()))),
            TrapAction::Pause(file) => {
                let created = std::fs::write(&file, trap.name());
                created.map_err(|error| Error::io("pause at a trap", &file, error))?;
                while file.exists() {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                Ok(())
            }
            TrapAction::PowerCut => {
                let message = "a power cut needs file operations that know what was not synced: `PowerCutVfs`";
                Err(Error::new(ErrorKind::InvalidArgument, "go on", message))
            }
        }
    }
}

/// The end of this process, without unwinding and without a core file: a sweep dies thousands of times, and what the
/// kernel writes of each would fill the disk and count as work of the process.
pub(crate) fn die() -> ! {
    // Where cores go to a program, Linux asks for no limit but this one: a byte is no core, not even for a program.
    let none = rustix::process::Rlimit { current: Some(1), maximum: Some(1) };
    rustix::process::setrlimit(rustix::process::Resource::Core, none).ok();
    std::process::abort()
}

/// Which traps do what. Each fires once, at its nth hit (counted from 1).
#[derive(Debug, Default)]
pub struct TrapPlan {
    armed: Mutex<Vec<Armed>>,
    hits: Mutex<Vec<Trap>>,
}

#[derive(Debug)]
struct Armed {
    trap: Trap,
    action: TrapAction,
    hits_left: u32,
}

impl TrapPlan {
    /// A plan with nothing armed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Arms `trap` at its `nth` hit.
    #[must_use]
    pub fn with(self, trap: Trap, nth: u32, action: TrapAction) -> Self {
        self.armed.lock().push(Armed { trap, action, hits_left: nth.max(1) });
        self
    }

    /// Reads `MORPHKV_TRAP`: `name=abort`, `name=power-cut`, `name@3=error:NoSpace`, `name=pause:FILE`; several with
    /// commas.
    ///
    /// # Errors
    /// `InvalidArgument` for what it does not understand, so that a mistyped test cannot pass.
    pub fn from_env() -> Result<Self> {
        match std::env::var("MORPHKV_TRAP") {
            Ok(text) => Self::parse(&text),
            Err(_) => Ok(Self::new()),
        }
    }

    /// Reads the text of `MORPHKV_TRAP`.
    ///
    /// # Errors
    /// `InvalidArgument` for what it does not understand.
    pub fn parse(text: &str) -> Result<Self> {
        let mut plan = Self::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let wrong =
                || Error::new(ErrorKind::InvalidArgument, "read MORPHKV_TRAP", format!("`{part}` is not name=action"));
            let (name, action) = part.split_once('=').ok_or_else(wrong)?;
            let (name, nth) = match name.split_once('@') {
                Some((name, nth)) => (name, nth.parse().map_err(|_| wrong())?),
                None => (name, 1),
            };
            let trap = Trap::from_name(name).ok_or_else(wrong)?;
            let action = match action.split_once(':') {
                None if action == "abort" => TrapAction::Abort,
                None if action == "power-cut" => TrapAction::PowerCut,
                None if action == "error" => TrapAction::Error(ErrorKind::Io),
                Some(("error", "NoSpace")) => TrapAction::Error(ErrorKind::NoSpace),
                Some(("pause", file)) => TrapAction::Pause(file.into()),
                _ => return Err(wrong()),
            };
            plan = plan.with(trap, nth, action);
        }
        Ok(plan)
    }

    /// Called by a `Vfs` at each trap.
    ///
    /// # Errors
    /// What the plan says; what is on disk then is what the place of the trap says.
    pub fn hit(&self, trap: Trap) -> Result<()> {
        self.next(trap).map_or(Ok(()), |action| action.perform(trap))
    }

    /// What is to be done at this hit of `trap`.
    pub(crate) fn next(&self, trap: Trap) -> Option<TrapAction> {
        self.hits.lock().push(trap);
        self.due(trap)
    }

    /// Whether a power cut is to come.
    pub fn cuts_power(&self) -> bool {
        self.armed.lock().iter().any(|armed| armed.action == TrapAction::PowerCut)
    }

    fn due(&self, trap: Trap) -> Option<TrapAction> {
        let mut armed = self.armed.lock();
        let at = armed.iter().position(|entry| entry.trap == trap)?;
        armed[at].hits_left -= 1;
        (armed[at].hits_left == 0).then(|| armed.remove(at).action)
    }

    /// The traps met so far, in order.
    pub fn hits(&self) -> Vec<Trap> {
        self.hits.lock().clone()
    }
}
