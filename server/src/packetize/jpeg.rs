//! One JPEG picture into RTP payloads (RFC 2435): what receivers make its headers of stands in each, the quantization
//! tables in the first.

use bytes::{BufMut, Bytes, BytesMut};
use rov_common::codec::jpeg::{self, Jpeg, Problem};
use rov_common::units::Resolution;

use super::MAX_PAYLOAD;

/// The longest side that the header has room for.
pub const LARGEST: u32 = 255 * 8;
/// The offset of a fragment has 24 bit.
const MOST: usize = 1 << 24;
/// In the place of a quality: the tables stand in the first payload.
const OWN_TABLES: u8 = 255;
/// Added to the type of a picture with restart markers.
const WITH_RESTARTS: u8 = 64;
/// First and last of an interval, of number "all": fragments do not begin where intervals do.
const ANY_INTERVAL: u16 = 0xffff;

/// Of one picture, all of full length except the last.
///
/// # Errors
/// Where RFC 2435 has no room for it.
pub fn payloads(picture: &[u8]) -> Result<Vec<Bytes>, Problem> {
    let Jpeg { size: Resolution { width, height }, kind, restart_interval, quantization, scan } = jpeg::parse(picture)?;
    if width.max(height) > LARGEST {
        return Err(Problem("of more than 2040 pixels a side"));
    }
    let mut rest = &picture[scan];
    if rest.len() > MOST {
        return Err(Problem("of more than 16 MiB"));
    }
    let header = 8 + if restart_interval > 0 { 4 } else { 0 };
    let count = rest.len() / (MAX_PAYLOAD - header) + 2;
    let (mut payloads, mut arena) =
        (Vec::with_capacity(count), BytesMut::with_capacity(rest.len() + count * header + 132));
    let mut offset = 0;
    while !rest.is_empty() {
        // The first byte is of no use to these types.
        arena.put_u32(offset as u32);
        let kind = if restart_interval > 0 { kind + WITH_RESTARTS } else { kind };
        arena.put_slice(&[kind, OWN_TABLES, width.div_ceil(8) as u8, height.div_ceil(8) as u8]);
        if restart_interval > 0 {
            arena.put_u16(restart_interval);
            arena.put_u16(ANY_INTERVAL);
        }
        if offset == 0 {
            let [luma, chroma] = quantization;
            // With 8 bit.
            arena.put_u16(0);
            arena.put_u16((luma.len() + chroma.len()) as u16);
            arena.put_slice(luma);
            arena.put_slice(chroma);
        }
        let (now, later) = rest.split_at(rest.len().min(MAX_PAYLOAD - arena.len()));
        arena.put_slice(now);
        payloads.push(arena.split().freeze());
        offset += now.len();
        rest = later;
    }
    Ok(payloads)
}

/// Why pictures of this kind have no room in RTP: nothing where one is only damaged.
pub fn no_room(picture: &[u8]) -> Option<Problem> {
    payloads(picture).err().filter(|problem| *problem != jpeg::NOT_WHOLE)
}

#[cfg(test)]
mod tests {
    use gstreamer as gst;
    use gstreamer::prelude::*;
    use gstreamer_app as gst_app;

    use super::*;

    const USUAL: &[u8] = include_bytes!("../../../fuzz/corpus/jpeg/420.jpg");
    const WIDE: &[u8] = include_bytes!("../../../fuzz/corpus/jpeg/422.jpg");
    const RESTARTS: &[u8] = include_bytes!("../../../fuzz/corpus/jpeg/restarts.jpg");

    /// The picture with its scan so many times: what it shows does not matter here.
    fn longer(picture: &[u8], times: usize) -> Vec<u8> {
        let scan = jpeg::parse(picture).expect("a picture").scan;
        [&picture[..scan.start], &picture[scan.clone()].repeat(times), &picture[scan.end..]].concat()
    }

    #[test]
    fn the_header_is_that_of_rfc_2435() {
        let picture = longer(USUAL, 9);
        let parsed = jpeg::parse(&picture).expect("a picture");
        let (width, height) = (parsed.size.width.div_ceil(8) as u8, parsed.size.height.div_ceil(8) as u8);
        let payloads = payloads(&picture).expect("payloads");
        assert_eq!(payloads[0][..12], [0, 0, 0, 0, 1, 255, width, height, 0, 0, 0, 128]);
        assert_eq!(payloads[0][12..140], parsed.quantization.concat());
        let offset = (MAX_PAYLOAD - 140) as u16;
        assert_eq!(payloads[1][..8], [&[0, 0][..], &offset.to_be_bytes(), &[1, 255, width, height]].concat());
        let (last, full) = payloads.split_last().expect("payloads");
        assert!(full.iter().all(|payload| payload.len() == MAX_PAYLOAD) && last.len() <= MAX_PAYLOAD);
        let back: Vec<u8> =
            payloads.iter().enumerate().flat_map(|(i, p)| p[if i == 0 { 140 } else { 8 }..].to_vec()).collect();
        assert_eq!(back, picture[parsed.scan]);
    }

    #[test]
    fn restart_markers_have_a_header_of_their_own() {
        let interval = jpeg::parse(RESTARTS).expect("a picture").restart_interval;
        let payloads = payloads(&longer(RESTARTS, 9)).expect("payloads");
        for payload in &payloads {
            assert_eq!((payload[4], &payload[8..12]), (64, &[&interval.to_be_bytes()[..], &[255, 255]].concat()[..]));
        }
        assert!(payloads.len() > 1 && payloads.iter().all(|payload| payload.len() <= MAX_PAYLOAD));
    }

    #[test]
    fn what_has_no_room_in_a_header_is_not_sent() {
        let mut large = USUAL.to_vec();
        let frame = large.windows(2).position(|two| two == [0xff, 0xc0]).expect("a frame header");
        large[frame + 7..frame + 9].copy_from_slice(&2041_u16.to_be_bytes());
        assert_eq!(payloads(&large), Err(Problem("of more than 2040 pixels a side")));
        large[frame + 7..frame + 9].copy_from_slice(&2040_u16.to_be_bytes());
        assert_eq!(payloads(&large).expect("payloads")[0][6], 255);
    }

    /// Through GStreamer's own depayloader.
    #[test]
    fn gstreamer_takes_the_packets_of_mjpeg_apart() {
        gst::init().unwrap();
        let text = "appsrc name=in format=time \
                    caps=application/x-rtp,media=video,clock-rate=90000,encoding-name=JPEG,payload=26 ! rtpjpegdepay ! \
                    appsink name=out sync=false";
        for picture in [USUAL.to_vec(), WIDE.to_vec(), RESTARTS.to_vec(), longer(USUAL, 30)] {
            let pipeline = gst::parse::launch(text).unwrap().downcast::<gst::Pipeline>().unwrap();
            let input = pipeline.by_name("in").unwrap().downcast::<gst_app::AppSrc>().unwrap();
            let output = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
            pipeline.set_state(gst::State::Playing).unwrap();
            let payloads = payloads(&picture).expect("payloads");
            for (i, payload) in payloads.iter().enumerate() {
                let marker = if i + 1 == payloads.len() { 0x80 } else { 0 };
                let header = [0x80, 26 | marker, 0, i as u8, 0, 0, 0, 0, 0, 0, 0, 7];
                input.push_buffer(gst::Buffer::from_slice([&header[..], payload].concat())).unwrap();
            }
            input.end_of_stream().unwrap();
            let sample = output.try_pull_sample(gst::ClockTime::from_seconds(10)).expect("a picture");
            let map = sample.buffer().unwrap().map_readable().unwrap();
            let (found, expected) = (jpeg::parse(&map).expect("a picture"), jpeg::parse(&picture).expect("a picture"));
            assert_eq!(map[found.scan.clone()], picture[expected.scan.clone()]);
            assert_eq!((found.kind, found.restart_interval), (expected.kind, expected.restart_interval));
            assert_eq!(found.quantization, expected.quantization);
            pipeline.set_state(gst::State::Null).unwrap();
        }
    }
}
