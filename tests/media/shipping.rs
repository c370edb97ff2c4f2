//! Power cuts while the log is shipped. Writers do not wait for the disk here, so the end of the log is lost each time; what
//! left the machine must not be part of it. Its numbers would be given to other writes, and the archive would hold what the
//! database never had.

use super::child::{self, Orders};
use super::common::{self, Content, figures::scale, options, sample};
use super::cuts::Tally;
use super::disks::Disk;
use super::power::{self, Weather, random};
use super::scenario::database;
use morphkv::encoding::Natural;
use morphkv::log_backup::archive::{Archive, ArchiveOptions};
use morphkv::log_backup::attach::{TakeOver, attach};
use morphkv::log_backup::shipper::{ShipOptions, Shipper};
use morphkv::restore::{self, Request, moment::Moment};
use morphkv::{Durability, Engine};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const COUNT: usize = 40;

fn archive_in(directory: &Path) -> Archive {
    Archive::open(&format!("file://{}", directory.display()), ArchiveOptions::default()).unwrap()
}

fn shipper(engine: &Engine, archive: &Path) -> Shipper {
    Shipper::new(engine.clone(), archive_in(archive), ShipOptions { segment_bytes: 4 << 10, ..ShipOptions::default() })
}

/// What the child does: it writes without a sync and ships, both without a pause, until the power ends.
pub fn ship(directory: &Path, archive: &Path, after_micros: u64, weather: Weather) {
    let disk = File::open(directory).unwrap();
    let engine = Engine::open(database(directory), options().durability(Durability::Buffered)).unwrap();
    let written = Arc::new(AtomicU64::new(0));
    let (writing, counted) = (engine.clone(), written.clone());
    std::thread::spawn(move || {
        for number in 0.. {
            if writing.put(format!("/written/{number:06}"), vec![b'v'; 10 + number % 300]).is_err() {
                return;
            }
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut shipper = shipper(&engine, archive);
    std::thread::spawn(move || while shipper.ship_once().is_ok() {});
    while written.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    std::thread::sleep(Duration::from_micros(after_micros));
    power::cut(&disk, weather.cut);
}

/// Cuts the power of shippers.
pub fn cuts(disk: &Disk, room: &Path, tally: &mut Tally) {
    for round in 0..scale(12, 200) {
        let after_micros = 2_000 + random(round, 7) % 150_000;
        let what = format!("a shipper, cut after {after_micros} microseconds");
        let archive = room.join(format!("archive-{round}"));
        std::fs::create_dir(&archive).unwrap();
        let prepared = common::scratch();
        common::make(&database(prepared.path()), Arc::new(Natural), &sample(COUNT));
        attach(database(prepared.path()), options(), &archive_in(&archive), TakeOver::No).unwrap().close().unwrap();
        disk.put_in_place(prepared.path());
        let orders = Orders::Ship {
            directory: disk.place(),
            archive: archive.clone(),
            after_micros,
            weather: Weather { seed: round, ..Weather::CALM },
        };
        assert!(child::lost_power(&child::run(&orders), &what), "{what}: it came to its end");
        assert!(disk.is_off(), "{what}: the file system goes on");
        disk.power_on();
        tally.cut("ship the log");
        tally.judge(1, &what, || check(&disk.place(), &archive, &what));
        std::fs::remove_dir_all(&archive).unwrap();
    }
}

/// The log goes on in its timeline, and what was shipped before and after the cut is what the database has.
fn check(place: &Path, archive: &Path, what: &str) {
    let engine = Engine::open(database(place), options()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    engine.put("written after the cut", "1").unwrap();
    let pass = shipper(&engine, archive).ship_once().unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert!(pass.begun.is_empty(), "{what}: the archive has what the database lost: {:?}", pass.begun);
    let directory = common::scratch();
    let target = directory.path().join("restored");
    let request = Request {
        moment: Moment::Latest,
        timeline: None,
        replace: false,
        no_pin: false,
        replica: false,
        compaction: None,
    };
    restore::run(&target, &archive_in(archive), &request, &options()).unwrap();
    let restored: Content = common::content(&Engine::open(&target, options()).unwrap());
    assert!(restored == common::content(&engine), "{what}: what comes back is not what is there");
    engine.close().unwrap();
}
