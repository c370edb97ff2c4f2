//! A directory for the demonstration, gone when it is over.

use morphkv::{Error, Result};
use std::path::{Path, PathBuf};

/// Removed with all that is in it when dropped, after an error too.
pub struct Scratch(PathBuf);

impl Scratch {
    /// # Errors
    /// `Io`.
    pub fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("morphkv-demo-{}", std::process::id()));
        // Not `create_dir_all`: what is there already is somebody's.
        std::fs::create_dir(&path).map_err(|error| Error::io("make a temporary directory", &path, error))?;
        Ok(Scratch(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the temporary directory stays behind");
        }
    }
}
