//! The configuration file while the sidecar runs: good, bad, replaced, swapped, gone (contract §5).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use audit_log::clock::{Clock, SystemClock};
use audit_log::record::{DAY_MS, SegmentName};

use crate::support::{Setup, Sidecar, binary, wait_for};

fn text(days: &str) -> String {
    format!("provider:\n  id: k8s\n  auditLog:\n    retentionPeriodInDays: {days}\n")
}

fn start(config: &Path) -> Sidecar {
    let mut setup = Setup::new();
    setup.command.env("AUDIT_LOG_CONFIG", config);
    setup.start()
}

fn gauge(sidecar: &Sidecar, name: &str) -> i64 {
    let text = sidecar.get("/metrics").text();
    let line = text.lines().find(|line| line.starts_with(&format!("audit_log_{name} "))).unwrap().to_owned();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Waits until the period and the validity are these; the contract gives it 5 s, a busy machine more.
#[track_caller]
fn expect(sidecar: &Sidecar, days: i64, valid: bool) {
    wait_for("the setting", || {
        (gauge(sidecar, "retention_days") == days && gauge(sidecar, "config_valid") == i64::from(valid)).then_some(())
    });
}

/// Waits until the log says something.
#[track_caller]
fn logged(sidecar: &Sidecar, text: &str) {
    wait_for(text, || sidecar.log().contains(text).then_some(()));
}

/// A segment that is so many days old by every measure.
fn aged(sidecar: &Sidecar, days: i64) -> std::path::PathBuf {
    let at = SystemClock.now().plus_millis(-days * DAY_MS);
    let path = sidecar.dir.join(SegmentName::new(9, at).to_string());
    fs::write(&path, format!("{{\"ts\":\"{at}\"}}\n")).unwrap();
    let time = std::time::UNIX_EPOCH + Duration::from_millis(at.millis().try_into().unwrap());
    fs::File::open(&path).unwrap().set_modified(time).unwrap();
    path
}

#[test]
fn every_way_of_changing_the_file_is_noticed_and_a_bad_file_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let config = temp.path().join("config.yaml");
    fs::write(&config, text("180")).unwrap();
    let sidecar = start(&config);
    expect(&sidecar, 180, true);
    let (young, old) = (aged(&sidecar, 100), aged(&sidecar, 1000));

    // Edited in place, badly: the old setting stays.
    for bad in ["0", "-1", "abc", "", "1.5", "99999999"] {
        fs::write(&config, text(bad)).unwrap();
        expect(&sidecar, 180, false);
        fs::write(&config, text("180")).unwrap();
        expect(&sidecar, 180, true);
    }
    fs::write(&config, "provider: [").unwrap();
    expect(&sidecar, 180, false);
    // The log comes through a pipe, after the metric.
    logged(&sidecar, "config.yaml:4:28: provider.auditLog.retentionPeriodInDays");
    assert!(young.exists());
    // What the good setting wants gone went at start, or when it came.
    fs::write(&config, text("181")).unwrap();
    expect(&sidecar, 181, true);
    wait_for("the sweep", || (!old.exists()).then_some(()));

    // Replaced by another file.
    fs::write(temp.path().join("new"), text("190")).unwrap();
    fs::rename(temp.path().join("new"), &config).unwrap();
    expect(&sidecar, 190, true);
    // Deleted, and made again.
    fs::remove_file(&config).unwrap();
    expect(&sidecar, 190, false);
    fs::write(&config, text("200")).unwrap();
    expect(&sidecar, 200, true);
    // Not a file at all.
    fs::remove_file(&config).unwrap();
    fs::create_dir(&config).unwrap();
    expect(&sidecar, 200, false);
    fs::remove_dir(&config).unwrap();
    // Left out: nothing is removed any more, which is told.
    fs::write(&config, "provider:\n  id: k8s\n").unwrap();
    expect(&sidecar, 0, true);
    logged(&sidecar, "nothing is ever removed");
    assert!(young.exists());
    sidecar.append(r#"{"event":"a"}"#);
    fs::write(&config, text("99")).unwrap();
    wait_for("the sweep", || (!young.exists()).then_some(()));
    assert_eq!(sidecar.lines().len(), 1);
}

#[test]
fn the_swap_of_a_config_map_is_noticed() {
    let temp = tempfile::tempdir().unwrap();
    let volume = temp.path();
    let version = |name: &str, days: &str| {
        fs::create_dir(volume.join(name)).unwrap();
        fs::write(volume.join(name).join("config.yaml"), text(days)).unwrap();
    };
    // As kubelet does it: a link to a link to a directory, of which the middle one is swapped by rename.
    version("..2026_01_28_1", "180");
    symlink("..2026_01_28_1", volume.join("..data")).unwrap();
    symlink("..data/config.yaml", volume.join("config.yaml")).unwrap();
    let sidecar = start(&volume.join("config.yaml"));
    expect(&sidecar, 180, true);
    for (name, days, valid) in [("..2", "90", true), ("..3", "none", false), ("..4", "91", true)] {
        version(name, days);
        symlink(name, volume.join("..data_tmp")).unwrap();
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
        expect(&sidecar, if valid { days.parse().unwrap() } else { 90 }, valid);
    }
}

#[test]
fn a_bad_or_missing_file_at_start_stops_nothing_and_removes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let config = temp.path().join("config.yaml");
    for bad in [
        None,
        Some(text("0")),
        Some(text("-3")),
        Some("provider:\n  auditLog:\n    retentionPeriodInDay: 1\n".to_owned()),
        Some("\u{0}".to_owned()),
    ] {
        if let Some(bad) = &bad {
            fs::write(&config, bad).unwrap();
        }
        let sidecar = start(&config);
        let old = aged(&sidecar, 5000);
        sidecar.append(r#"{"event":"a"}"#);
        wait_for("the error", || sidecar.log().contains("retention is off until it is mended").then_some(()));
        expect(&sidecar, 0, false);
        assert!(old.exists(), "{bad:?}");
        assert_eq!(sidecar.get("/readyz").status, 200);
    }
}

#[test]
fn a_period_below_the_floor_removes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let config = temp.path().join("config.yaml");
    fs::write(&config, text("29")).unwrap();
    let mut setup = Setup::new().args(["--retention-floor", "30"]);
    setup.command.env("AUDIT_LOG_CONFIG", &config);
    let sidecar = setup.start();
    let old = aged(&sidecar, 5000);
    wait_for("the error", || sidecar.log().contains("retention floor of 30 days").then_some(()));
    assert!(old.exists());
    fs::write(&config, text("30")).unwrap();
    wait_for("the sweep", || (!old.exists()).then_some(()));
}

#[test]
fn check_config_is_0_or_2_with_the_place() {
    let temp = tempfile::tempdir().unwrap();
    let config = temp.path().join("config.yaml");
    let check = |args: &[&str]| binary().arg("check-config").args(args).arg(&config).output().unwrap();
    let message = |args: &[&str]| String::from_utf8(check(args).stderr).unwrap();
    assert_eq!(check(&[]).status.code(), Some(2));
    assert!(message(&[]).contains("config.yaml: cannot read it: No such file"));
    for (content, code, expected) in [
        (text("180"), 0, ""),
        ("a: 1\n".to_owned(), 0, ""),
        (
            text("0"),
            2,
            "config.yaml:4:28: provider.auditLog.retentionPeriodInDays: must be a whole number of days from 1 to 36500",
        ),
        ("provider:\n  auditLog:\n    keep: 1\n".to_owned(), 2, "config.yaml:3:5: provider.auditLog.keep: unknown key"),
        ("provider:\n\tauditLog: 1\n".to_owned(), 2, "config.yaml:2:"),
    ] {
        fs::write(&config, content).unwrap();
        assert_eq!(check(&[]).status.code(), Some(code), "{}", message(&[]));
        assert!(message(&[]).contains(expected), "{}", message(&[]));
    }
    fs::write(&config, text("29")).unwrap();
    assert_eq!(check(&["--retention-floor", "30"]).status.code(), Some(2));
    assert_eq!(check(&["--retention-floor", "29"]).status.code(), Some(0));
}
