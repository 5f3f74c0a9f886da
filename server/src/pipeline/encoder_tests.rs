use super::*;

fn settings() -> Settings {
    Settings {
        profile: Profile::Baseline,
        low_latency: true,
        bitrate: Bitrate::from_kbps(6000),
        fps: Some(Fps::whole(30)),
        resolution: Some(Resolution::new(1280, 720)),
        cores: 2,
    }
}

#[test]
fn print_all() {
    for (index, row) in ROWS.iter().enumerate() {
        println!("({index}, {:?}),", row.text_from_system(&settings(), &|_, _| true));
    }
}
