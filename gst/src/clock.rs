//! The running time.

use gstreamer as gst;
use gstreamer::prelude::*;

/// The running time now; None while the pipeline has not started.
///
/// Between getting its clock and its base time, a pipeline that starts has a base time of zero: the time by the clock
/// alone is that since the machine was started, hours.
pub fn running_time(element: &gst::Element) -> Option<gst::ClockTime> {
    // In this order: the base time never changes again, but the clock may be read before it is set.
    let base = element.base_time();
    since_base(element.clock().map(|clock| clock.time()), base)
}

fn since_base(clock: Option<gst::ClockTime>, base: Option<gst::ClockTime>) -> Option<gst::ClockTime> {
    let base = base.filter(|base| !base.is_zero())?;
    Some(clock?.saturating_sub(base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_base_time_there_is_no_running_time_yet() {
        let hours = Some(gst::ClockTime::from_seconds(7 * 3600));
        assert_eq!(since_base(hours, Some(gst::ClockTime::ZERO)), None);
        assert_eq!(since_base(hours, None), None);
        assert_eq!(since_base(None, hours), None);
        let later = hours.map(|time| time + gst::ClockTime::from_mseconds(40));
        assert_eq!(since_base(later, hours), Some(gst::ClockTime::from_mseconds(40)));
        assert_eq!(since_base(hours, later), Some(gst::ClockTime::ZERO));
    }

    #[test]
    fn a_pipeline_that_has_a_clock_but_no_base_time_is_at_no_running_time() {
        gst::init().unwrap();
        let pipeline = gst::Pipeline::new();
        pipeline.set_clock(Some(&gst::SystemClock::obtain())).unwrap();
        assert_eq!(running_time(pipeline.upcast_ref()), None);
    }
}
