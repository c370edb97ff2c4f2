//! Opening a database.

use super::{Engine, Options, Parts};
use crate::encoding::{EncodingId, KeyEncoding, Natural};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{Vfs, remove_tree};
use crate::layout::{INTERNAL_IDENTITY, LOG_BACKUP, Layout};
use crate::lock::PlaceLock;
use crate::marker::{self, Identity, MARKER_FORMAT, Marker, Origin, OriginKind};
use crate::rocks::{Database, Durability, Family, Settings};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

impl Engine {
    /// Opens the database at `path`.
    ///
    /// # Errors
    /// `NotFound`, `Locked`, `Conflict` (it lies in another encoding), `UnknownEncoding`, `Corrupt`, `Io`.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Engine> {
        let vfs = options.file_operations()?;
        let layout = Layout::new(path.as_ref())?;
        let lock = PlaceLock::acquire(&*vfs, &layout)?;
        let stamps = vfs.stat(&layout.live.join(LOG_BACKUP))?.is_some();
        let settings = Settings { keep_wal: stamps, ..options.settings() };
        let (database, marker) = match marker::read(&*vfs, &layout.live)? {
            Some(marker) => (Database::open(&*vfs, &layout.live, &settings)?, marker),
            None if options.create_if_missing => create(&*vfs, &layout, &settings, &options)?,
            None => {
                return Err(Error::new(ErrorKind::NotFound, "open the database", "it does not exist").at(layout.live));
            }
        };
        let inside = database.get(Family::Internal, INTERNAL_IDENTITY)?;
        let inside = inside.map(|bytes| Identity::from_bytes(&bytes)).transpose()?;
        if inside != Some(marker.identity()) {
            let message = "the marker and the identity inside disagree";
            return Err(Error::new(ErrorKind::Refused, "open the database", message).at(layout.live));
        }
        if options.encoding.as_ref().is_some_and(|wanted| EncodingId::of(&**wanted) != marker.encoding) {
            let message = format!("it lies in {}", marker.encoding);
            return Err(Error::new(ErrorKind::Conflict, "open the database", message).at(layout.live));
        }
        let encoding = options.encodings()?.get(&marker.encoding)?;
        let (durability, hooks) = (options.durability, options.hooks);
        Ok(Engine::assemble(Parts { vfs, layout, lock, database, encoding, marker, durability, stamps, hooks }))
    }

    /// Removes the database at `path`.
    ///
    /// # Errors
    /// `Locked`, `Io`: part of it may be gone.
    pub fn destroy(path: impl AsRef<Path>, options: Options) -> Result<()> {
        let vfs = options.file_operations()?;
        let layout = Layout::new(path.as_ref())?;
        let _lock = PlaceLock::acquire(&*vfs, &layout)?;
        remove_tree(&*vfs, &layout.live)
    }
}

fn create(vfs: &dyn Vfs, layout: &Layout, settings: &Settings, options: &Options) -> Result<(Database, Marker)> {
    vfs.make_dir(&layout.live)?;
    let encoding = options.encoding.clone().unwrap_or_else(|| Arc::new(Natural) as Arc<dyn KeyEncoding>);
    let database = Database::create(&layout.live, settings)?;
    let marker = Marker {
        format: MARKER_FORMAT,
        database_id: Uuid::new_v4(),
        instance_id: Uuid::new_v4(),
        encoding: EncodingId::of(&*encoding),
        origin: Origin { kind: OriginKind::Create, id: Uuid::new_v4() },
        sealed_sequence: 1,
        sealed: None,
    };
    database.put(Family::Internal, INTERNAL_IDENTITY, &marker.identity().to_bytes()?, Durability::Sync)?;
    marker::write(vfs, &layout.live, &marker)?;
    Ok((database, marker))
}
