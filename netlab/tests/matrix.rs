//! A short form of each row of the matrix: seconds instead of a minute, with limits that a busy machine keeps too.

use std::sync::{Mutex, PoisonError};

use netlab::bench::ViewerKind;
use netlab::ends;
use netlab::rows::{Conduct, LOSSLESS, Row};
use netlab::steady::P99;
use rov_tests::skipped;

/// Of the rows that have no event.
const SECONDS: u64 = 4;
/// Each row needs the processor for itself.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs these rows one after the other; each is compared with the lossless one where that is among those before it.
fn run(names: &[&str]) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(obstacle) = ends::obstacle() {
        return skipped(&format!("the rows {}: {obstacle}", names.join(", ")));
    }
    let mut lossless_p99 = None;
    for name in names {
        let row = Row::named(name).expect("a row of the matrix");
        let conduct = Conduct { viewer: ViewerKind::Client, seed: 1, seconds: SECONDS, is_short: true, lossless_p99 };
        let figures = row.run(&conduct).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let text = figures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n    ");
        println!("{name}: {}\n    {text}", row.condition);
        for figure in &figures {
            assert!(figure.is_plausible(), "{name}: {figure}, loosely {:?}; all:\n    {text}", figure.loose);
        }
        if *name == LOSSLESS {
            lossless_p99 = figures.iter().find(|figure| figure.name == P99).and_then(|figure| figure.value);
        }
    }
}

#[test]
fn random_loss_is_repaired() {
    run(&[LOSSLESS, "loss-1", "loss-5"]);
}

#[test]
fn loss_is_repaired_over_a_longer_way_too() {
    run(&["loss-1-far"]);
}

#[test]
fn reordering_loses_nothing() {
    run(&["reordering"]);
}

#[test]
fn the_bitrate_follows_the_link() {
    run(&["rate"]);
}

#[test]
fn the_picture_is_back_after_a_short_outage() {
    run(&["outage-2s"]);
}

#[test]
fn the_picture_is_back_after_an_outage_that_ended_the_session() {
    run(&["outage-60s"]);
}

#[test]
fn the_picture_is_back_after_a_crash_of_the_server() {
    run(&["server-killed"]);
}

#[test]
fn the_server_is_found_again_at_another_address() {
    run(&["subnet"]);
}

#[test]
fn the_picture_is_back_with_the_camera_in_the_same_session() {
    run(&["camera-dies"]);
}

#[test]
fn plain_rtp_recovers_at_the_next_keyframe() {
    run(&["rtp"]);
}

#[test]
fn forward_error_correction_repairs_plain_rtp() {
    run(&["rtp-fec"]);
}

#[test]
fn a_queue_raises_the_warning_that_the_picture_is_late() {
    run(&["late"]);
}

#[test]
fn both_recordings_have_the_same_pictures_after_an_outage_that_ended_the_session() {
    run(&["recorded-outage"]);
}

#[test]
fn a_recording_is_switched_on_and_off_while_pictures_flow() {
    run(&["recorded-turns"]);
}

#[test]
fn the_age_agrees_with_the_marks_over_any_link() {
    run(&["age", "age-far", "age-asymmetric"]);
}
