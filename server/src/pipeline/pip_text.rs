//! The text of a pipeline that shows the pictures of two cameras, and the names in it. Pure.

use rov_common::units::Resolution;

use crate::config::PipConfig;

/// The two ways of pictures, by the number of its input.
pub const LARGE: usize = 0;
pub const SMALL: usize = 1;
pub const INPUTS: [&str; 2] = ["rov_large", "rov_small"];
pub const TURNS: [&str; 2] = ["rov_large_turn", "rov_small_turn"];
pub const QUEUES: [&str; 2] = ["rov_large_queue", "rov_small_queue"];
pub const SIZES: [&str; 2] = ["rov_large_size", "rov_small_size"];
pub const SMALL_OUT: &str = "rov_small_out";

/// The head for pictures of this size, where one is wanted. `before`: what takes them to where `scale` and `convert`
/// can work on them. `turns`: pictures can be turned, which costs nothing while they are not.
pub fn text(size: Option<Resolution>, before: &str, scale: &str, convert: &str, turns: bool) -> String {
    let way = |input: usize| {
        let turn = if turns { format!("videoflip name={} ! ", TURNS[input]) } else { String::new() };
        format!(
            "appsrc name={} is-live=true format=time \
             ! queue name={} max-size-buffers=1 max-size-bytes=0 max-size-time=0 leaky=downstream \
             ! {before}{scale} ! {convert} ! {turn}capsfilter name={}",
            INPUTS[input], QUEUES[input], SIZES[input]
        )
    };
    let size = match size {
        Some(Resolution { width, height }) => format!("width={width},height={height}"),
        None => "width=[16,8192,2],height=[16,8192,2]".to_owned(),
    };
    format!(
        "{} ! appsink name={SMALL_OUT} sync=false async=false max-buffers=1 drop=true \
         {} caps=\"video/x-raw,format=I420,{size},pixel-aspect-ratio=1/1\"",
        way(SMALL),
        way(LARGE)
    )
}

/// In words.
pub fn label(config: &PipConfig) -> String {
    let [large, small] = &config.parts;
    format!("cameras {} and {}", large.name, small.name)
}
