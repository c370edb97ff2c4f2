//! One error type, sorted by what the caller can do about it.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The database or file is not there. Create it, or correct the path.
    NotFound,
    /// Another handle or process holds the database. Wait, or stop the holder.
    Locked,
    /// The file system has too little room. Free space and repeat; nothing was lost.
    NoSpace,
    /// An encoding cannot carry a key. Choose another encoding, or another key.
    Unrepresentable,
    /// The database names an encoding that this process does not know. Register it, or use a newer version.
    UnknownEncoding,
    /// What lies on disk is not ours to judge; nothing was touched. A person has to look.
    Refused,
    /// Bytes on disk are damaged. Restore from a copy.
    Corrupt,
    /// The operating system or RocksDB reported a failure. Repeat once its cause is gone.
    Io,
    /// The call makes no sense as it stands. Correct it.
    InvalidArgument,
    /// The handle was closed. Open the database again.
    Closed,
    /// A feature or format that this version does not handle. Nothing was touched.
    Unsupported,
    /// The request contradicts something that is under way or kept. Resolve that first.
    Conflict,
    /// Ownership was lost while working. Stop; another holder may be at it.
    Lost,
}

impl ErrorKind {
    /// The name used in `--json` output.
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "NotFound",
            ErrorKind::Locked => "Locked",
            ErrorKind::NoSpace => "NoSpace",
            ErrorKind::Unrepresentable => "Unrepresentable",
            ErrorKind::UnknownEncoding => "UnknownEncoding",
            ErrorKind::Refused => "Refused",
            ErrorKind::Corrupt => "Corrupt",
            ErrorKind::Io => "Io",
            ErrorKind::InvalidArgument => "InvalidArgument",
            ErrorKind::Closed => "Closed",
            ErrorKind::Unsupported => "Unsupported",
            ErrorKind::Conflict => "Conflict",
            ErrorKind::Lost => "Lost",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happened, at which step, to which path, and what to type next.
///
/// The kind is for programs, the rest for people; the text is not part of the API.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    step: &'static str,
    message: String,
    path: Option<PathBuf>,
    next: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` that happened at `step` (a few words: "write the marker").
    pub fn new(kind: ErrorKind, step: &'static str, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, step, message: message.into(), path: None, next: None, source: None }))
    }

    /// An error of the operating system; only `ENOENT`, `ENOSPC` and `EDQUOT` get kinds of their own.
    pub fn io(step: &'static str, path: &Path, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            _ => ErrorKind::Io,
        };
        Error::new(kind, step, source.to_string()).at(path).because(source)
    }

    /// Names the path that it is about.
    #[must_use]
    pub fn at(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path = Some(path.into());
        self
    }

    /// Names the next command to type.
    #[must_use]
    pub fn next(mut self, command: impl Into<String>) -> Self {
        self.0.next = Some(command.into());
        self
    }

    /// Keeps the cause for [`std::error::Error::source`].
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The step that failed.
    pub fn step(&self) -> &'static str {
        self.0.step
    }

    /// What was found.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The path that it is about.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The next command to type, where one helps.
    pub fn next_command(&self) -> Option<&str> {
        self.0.next.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.0.step, self.0.message)?;
        if let Some(path) = &self.0.path {
            write!(f, " [{}]", path.display())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)?;
        if let Some(next) = &self.0.next {
            write!(f, " (next: {next})")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// The longest part of a key that reaches an error or a log line.
const SHOWN_BYTES: usize = 48;

/// A key as it may stand in a message: printable ASCII as it is, the rest as `\xNN`, cut after 48 bytes.
pub fn show_key(key: &[u8]) -> String {
    let mut shown = String::with_capacity(SHOWN_BYTES + 16);
    for &byte in key.iter().take(SHOWN_BYTES) {
        match byte {
            b'\\' => shown.push_str("\\\\"),
            0x20..=0x7e => shown.push(byte as char),
            _ => shown.push_str(&format!("\\x{byte:02x}")),
        }
    }
    if key.len() > SHOWN_BYTES {
        shown.push_str(&format!("... ({} bytes)", key.len()));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_messages_are_escaped_and_cut() {
        assert_eq!(show_key(b"a/\xffb\n\\"), "a/\\xffb\\x0a\\\\");
        let long = show_key(&[b'x'; 1000]);
        assert!(long.ends_with("... (1000 bytes)") && long.len() < 80);
    }

    #[test]
    fn full_disks_have_a_kind_of_their_own() {
        let error = Error::io("write", Path::new("p"), io::Error::from_raw_os_error(28));
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        let error = Error::io("write", Path::new("p"), io::Error::from_raw_os_error(5));
        assert_eq!(error.kind(), ErrorKind::Io);
    }
}
