use crate::error::ErrorKind;
use crate::trap::{Trap, TrapAction, TrapPlan};
use std::os::unix::process::ExitStatusExt;

#[test]
fn names_are_unique_and_found() {
    for &trap in Trap::ALL {
        assert_eq!(Trap::from_name(trap.name()), Some(trap));
    }
}

#[test]
fn a_mistyped_plan_is_refused() {
    for text in ["x", "seal-after", "seal-after=maybe", "nosuch=abort", "seal-after@x=abort"] {
        assert_eq!(TrapPlan::parse(text).err().map(|error| error.kind()), Some(ErrorKind::InvalidArgument), "{text}");
    }
}

#[test]
fn fires_once_at_the_nth_hit() {
    let plan = TrapPlan::parse("seal-after@2=error:NoSpace").unwrap();
    assert!(plan.hit(Trap::SealAfter).is_ok());
    assert_eq!(plan.hit(Trap::SealAfter).unwrap_err().kind(), ErrorKind::NoSpace);
    assert!(plan.hit(Trap::SealAfter).is_ok());
    assert_eq!(plan.hits().len(), 3);
}

/// Where the system lets processes leave core files: written by the dying process, they once counted as its work.
#[test]
fn a_process_that_dies_at_a_trap_leaves_no_core() {
    const DYING: &str = "MORPHKV_TEST_DYING";
    if std::env::var_os(DYING).is_some() {
        drop(TrapAction::Abort.perform(Trap::SealAfter));
        unreachable!();
    }
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", r#"ulimit -S -c "$(ulimit -H -c)"; exec "$0" "$@""#]).arg(std::env::current_exe().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let name = "trap::tests::a_process_that_dies_at_a_trap_leaves_no_core";
    let status = shell.args([name, "--exact"]).env(DYING, "").current_dir(directory.path()).status().unwrap();
    assert_eq!(status.signal(), Some(rustix::process::Signal::ABORT.as_raw()), "{status}");
    assert!(!status.core_dumped());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
