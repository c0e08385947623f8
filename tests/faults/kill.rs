//! The process is killed.

use std::time::Duration;

use crate::load::{Load, verified, wait_within};
use crate::report::{self, Row, alone, held};
use crate::support::Setup;

/// Sixteen clients append events with ids of their own until the sidecar is killed in the middle of it.
#[test]
fn acknowledged_lines_survive_kill() {
    const ROW: Row = Row {
        test: "kill::acknowledged_lines_survive_kill",
        promise: "§4.1 an acknowledged line is on disk",
        fault: "SIGKILL under load",
        how: "16 clients, a new sidecar in the same directory each round",
        control: "`kill::an_acknowledged_line_that_is_missing_is_found`",
    };
    let _alone = alone();
    let rounds = report::rounds(20, 200);
    let (mut acknowledged, mut torn) = (0, 0);
    for round in 0..rounds {
        let mut sidecar = Setup::new().start();
        let load = Load::start(sidecar.address, 16, &format!("kill-{round}"), Duration::ZERO);
        wait_within(Duration::from_secs(30), "answers", || {
            (load.acknowledged() > 200 + 37 * (round % 20)).then_some(())
        });
        sidecar.kill();
        let found = verified(&sidecar.dir, &load.stop());
        acknowledged += found.acknowledged;
        torn += found.torn_tails;
        assert!(found.torn_tails <= 1, "{found:?}");
    }
    held(&ROW, rounds, &format!("{acknowledged} acknowledged, 0 lost; 0 damaged lines, {torn} torn tails"));
}
