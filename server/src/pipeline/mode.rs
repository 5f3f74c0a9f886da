//! The choice among what a camera offers: raw, JPEG or H.264, each in some sizes and rates. Pure.

use rov_common::units::{Fps, Resolution};

/// How a camera gives its pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Raw in this GStreamer format, as `YUY2`.
    Raw(String),
    Jpeg,
    H264,
}

/// One entry of a camera's list: a size (or a range of sizes) with its rates.
#[derive(Clone, Debug, PartialEq)]
pub struct Mode {
    pub encoding: Encoding,
    pub min: Resolution,
    pub max: Resolution,
    /// Smallest and largest of each offered rate or range of rates; empty: not said.
    pub fps: Vec<(Fps, Fps)>,
}

/// What is asked of the camera.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    pub encoding: Encoding,
    pub resolution: Resolution,
    /// None: the camera does not say.
    pub fps: Option<Fps>,
}

/// Raw formats of 8 bits with colour differences, by GStreamer's names: what encoders take, or what is soon converted
/// to it.
const YUV: &[&str] = &[
    "I420", "YV12", "NV12", "NV21", "YUY2", "UYVY", "YVYU", "VYUY", "Y42B", "NV16", "NV61", "Y444", "NV24", "AYUV",
    "VUYA", "Y41B",
];

/// The best match for size and rate; `None` where nothing is offered. Without a wanted size the largest picture is
/// best, without a wanted rate the fastest.
///
/// Too slow a rate weighs most, then too small a picture; too much of either can be left out or scaled. Between equals
/// raw is better than JPEG, which has to be decoded, and that better than raw grey or more than 8 bits, which infrared
/// and depth sensors list beside the picture; H.264 comes last by far, as neither its bit rate nor its keyframes can be
/// controlled.
pub fn choose(modes: &[Mode], resolution: Option<Resolution>, fps: Option<Fps>) -> Option<Choice> {
    let largest = modes.iter().map(|mode| mode.max.pixels()).max()?;
    let fastest = modes.iter().flat_map(|mode| &mode.fps).map(|(_, max)| max.as_f64()).fold(1.0, f64::max);
    let pixels = resolution.map_or(largest, Resolution::pixels).max(1);
    let fit = |wanted: u32, min: u32, max: u32| wanted.clamp(min, max.max(min));
    let candidates = modes.iter().map(|mode| {
        let wanted = resolution.unwrap_or(mode.max);
        let choice = Choice {
            encoding: mode.encoding.clone(),
            resolution: Resolution::new(
                fit(wanted.width, mode.min.width, mode.max.width),
                fit(wanted.height, mode.min.height, mode.max.height),
            ),
            fps: choose_fps(&mode.fps, fps),
        };
        (cost(&choice, pixels, fps.map_or(fastest, Fps::as_f64)), choice)
    });
    candidates.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, choice)| choice)
}

fn cost(choice: &Choice, wanted_pixels: u64, wanted_fps: f64) -> f64 {
    let (pixels, wanted) = (choice.resolution.pixels() as f64, wanted_pixels as f64);
    let size = if pixels < wanted { 2.0 * (1.0 - pixels / wanted) } else { 0.1 * (1.0 - wanted / pixels) };
    let rate = match choice.fps.map(Fps::as_f64) {
        Some(fps) if fps < wanted_fps => 4.0 * (1.0 - fps / wanted_fps),
        Some(fps) => 0.1 * (1.0 - wanted_fps / fps),
        None => 0.0,
    };
    let encoding = match &choice.encoding {
        Encoding::Raw(format) if YUV.contains(&format.as_str()) => 0.0,
        Encoding::Raw(format) if format.contains("RGB") || format.contains("BGR") => 0.01,
        Encoding::Raw(_) => 0.1,
        Encoding::Jpeg => 0.05,
        Encoding::H264 => 0.5,
    };
    size + rate + encoding
}

/// The slowest rate that is fast enough, else the fastest.
fn choose_fps(offered: &[(Fps, Fps)], wanted: Option<Fps>) -> Option<Fps> {
    let by_rate = |a: &Fps, b: &Fps| a.as_f64().total_cmp(&b.as_f64());
    let fastest = offered.iter().map(|(_, max)| *max).max_by(by_rate)?;
    let Some(wanted) = wanted else { return Some(fastest) };
    let enough = offered.iter().filter(|(_, max)| max.as_f64() >= wanted.as_f64());
    Some(
        enough
            .map(|(min, _)| if min.as_f64() > wanted.as_f64() { *min } else { wanted })
            .min_by(by_rate)
            .unwrap_or(fastest),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(encoding: Encoding, width: u32, height: u32, fps: &[u32]) -> Mode {
        let size = Resolution::new(width, height);
        Mode {
            encoding,
            min: size,
            max: size,
            fps: fps.iter().map(|&fps| (Fps::whole(fps), Fps::whole(fps))).collect(),
        }
    }

    fn yuy2() -> Encoding {
        Encoding::Raw("YUY2".to_owned())
    }

    fn best(modes: &[Mode], size: (u32, u32), fps: u32) -> Choice {
        choose(modes, Some(Resolution::new(size.0, size.1)), Some(Fps::whole(fps))).unwrap()
    }

    /// What a common USB 2 webcam lists.
    fn webcam() -> Vec<Mode> {
        vec![
            mode(yuy2(), 640, 480, &[30, 15]),
            mode(yuy2(), 1920, 1080, &[5]),
            mode(Encoding::Jpeg, 640, 480, &[30]),
            mode(Encoding::Jpeg, 1280, 720, &[60, 30]),
            mode(Encoding::Jpeg, 1920, 1080, &[30, 15]),
            mode(Encoding::H264, 1920, 1080, &[30]),
        ]
    }

    #[test]
    fn raw_is_preferred_where_it_is_fast_enough() {
        let choice = best(&webcam(), (640, 480), 30);
        assert_eq!((choice.encoding, choice.fps), (yuy2(), Some(Fps::whole(30))));
    }

    #[test]
    fn jpeg_is_taken_where_raw_is_too_slow_or_too_small() {
        let choice = best(&webcam(), (1920, 1080), 30);
        assert_eq!((choice.encoding, choice.resolution), (Encoding::Jpeg, Resolution::new(1920, 1080)));
        assert_eq!(best(&webcam(), (1280, 720), 60).fps, Some(Fps::whole(60)));
    }

    #[test]
    fn the_cameras_own_h264_is_the_last_resort() {
        let modes = [mode(yuy2(), 1920, 1080, &[5]), mode(Encoding::H264, 1920, 1080, &[30])];
        assert_eq!(best(&modes, (1920, 1080), 30).encoding, Encoding::H264);
        let only = [mode(Encoding::H264, 1280, 720, &[30])];
        assert_eq!(best(&only, (1920, 1080), 30).resolution, Resolution::new(1280, 720));
    }

    #[test]
    fn a_size_that_is_not_offered_gets_the_next_larger_one() {
        let modes = [mode(yuy2(), 640, 480, &[30]), mode(yuy2(), 1280, 720, &[30]), mode(yuy2(), 1920, 1080, &[30])];
        assert_eq!(best(&modes, (1024, 576), 30).resolution, Resolution::new(1280, 720));
    }

    #[test]
    fn a_range_of_sizes_and_rates_gives_what_is_wanted() {
        let range = Mode {
            encoding: Encoding::Raw("NV12".to_owned()),
            min: Resolution::new(32, 32),
            max: Resolution::new(2592, 1944),
            fps: vec![(Fps::whole(1), Fps::whole(90))],
        };
        let choice = best(std::slice::from_ref(&range), (1920, 1080), 50);
        assert_eq!((choice.resolution, choice.fps), (Resolution::new(1920, 1080), Some(Fps::whole(50))));
        let own = choose(&[range], None, None).unwrap();
        assert_eq!((own.resolution, own.fps), (Resolution::new(2592, 1944), Some(Fps::whole(90))));
    }

    /// What a camera with an infrared or depth sensor lists, in its order.
    #[test]
    fn colour_is_preferred_to_grey_and_to_more_than_8_bits() {
        let raw = |format: &str| mode(Encoding::Raw(format.to_owned()), 640, 480, &[30]);
        for odd in ["GRAY16_LE", "GRAY8", "GRAY10_LE32", "P010_10LE"] {
            for better in ["YUY2", "UYVY", "NV12", "BGR", "RGBx"] {
                let choice = best(&[raw(odd), raw(better)], (640, 480), 30);
                assert_eq!(choice.encoding, Encoding::Raw(better.to_owned()), "{odd}");
            }
            let jpeg = mode(Encoding::Jpeg, 640, 480, &[30]);
            assert_eq!(best(&[raw(odd), jpeg], (640, 480), 30).encoding, Encoding::Jpeg, "{odd}");
            assert_eq!(best(&[raw(odd)], (640, 480), 30).encoding, Encoding::Raw(odd.to_owned()));
        }
        assert_eq!(best(&[raw("BGR"), raw("YUY2")], (640, 480), 30).encoding, yuy2());
    }

    #[test]
    fn nothing_offered_is_no_choice() {
        assert_eq!(choose(&[], None, None), None);
    }
}
