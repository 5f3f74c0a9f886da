//! JPEG pictures as far as MJPEG needs to know them (ITU-T T.81): what an RTP payload of RFC 2435 says of a picture,
//! and the Huffman tables that cameras leave out. Nothing here decodes pictures.

use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;
use thiserror::Error;

use crate::units::Resolution;

/// With which each picture begins.
pub const SOI: [u8; 2] = [0xff, 0xd8];
/// With which it ends.
pub const EOI: [u8; 2] = [0xff, 0xd9];

const DHT: u8 = 0xc4;
const DQT: u8 = 0xdb;
const DRI: u8 = 0xdd;
const SOS: u8 = 0xda;
/// The frame header of baseline pictures.
const SOF0: u8 = 0xc0;

/// Of a quantization table with 8 bit.
const TABLE: usize = 64;

/// The Huffman tables of annex K, as a segment DHT has them: DC and AC of luma, DC and AC of chroma. Pictures without
/// any, as many webcams give them, mean these, and RFC 2435 knows no others.
#[rustfmt::skip]
pub static HUFFMAN_TABLES: [u8; 416] = [
    0, 0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x0a, 0x0b, 0x10, 0, 2, 1, 3, 3,
    2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d, 1, 2, 3, 0, 4, 0x11, 5, 0x12, 0x21, 0x31, 0x41, 6, 0x13, 0x51, 0x61, 7, 0x22,
    0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 8, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72,
    0x82, 9, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37, 0x38,
    0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63,
    0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85, 0x86,
    0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
    0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8,
    0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8,
    0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 1, 0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0,
    0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x0a, 0x0b, 0x11, 0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77, 0, 1,
    2, 3, 0x11, 4, 5, 0x21, 0x31, 6, 0x12, 0x41, 0x51, 7, 0x61, 0x71, 0x13, 0x22, 0x32, 0x81, 8, 0x14, 0x42, 0x91,
    0xa1, 0xb1, 0xc1, 9, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1,
    0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46,
    0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69,
    0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92,
    0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3,
    0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4,
    0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5,
    0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
];

/// What stands in the way of an RTP payload; in words, as "the stream is ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Problem(pub &'static str);

/// A damaged picture, which says nothing of the others.
pub const NOT_WHOLE: Problem = Problem("no whole JPEG picture");
const OTHER_COLOURS: Problem = Problem("neither 4:2:0 nor 4:2:2");

/// What RFC 2435 says of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jpeg<'a> {
    pub size: Resolution,
    /// 0 of 4:2:2, 1 of 4:2:0.
    pub kind: u8,
    /// MCUs from restart marker to restart marker; 0: there are none.
    pub restart_interval: u16,
    /// Of luma and of chroma, in zigzag order.
    pub quantization: [&'a [u8]; 2],
    /// Where the coded data is, without its EOI.
    pub scan: Range<usize>,
}

/// Whether an RTP payload is the first of a picture: the offset of its fragment is 0 (RFC 2435 section 3.1).
pub fn begins_picture(payload: &[u8]) -> bool {
    payload.get(1..4) == Some(&[0; 3])
}

struct Segment<'a> {
    marker: u8,
    /// Where its marker begins.
    at: usize,
    body: &'a [u8],
    end: usize,
}

/// Up to the first scan, whose header is the last.
fn segments(data: &[u8]) -> impl Iterator<Item = Segment<'_>> {
    let mut next = data.starts_with(&SOI).then_some(SOI.len());
    std::iter::from_fn(move || {
        let at = next.take()?;
        // Fill bytes may stand in front.
        let fill = data.get(at..)?.iter().take_while(|byte| **byte == 0xff).count();
        let &[marker, high, low] = data.get(at + fill..)?.first_chunk()?;
        let end = at + fill + 1 + usize::from(u16::from_be_bytes([high, low]));
        let body = data.get(at + fill + 3..end).filter(|_| fill > 0)?;
        next = (marker != SOS).then_some(end);
        Some(Segment { marker, at, body, end })
    })
}

/// The size of a picture, whatever else it is.
pub fn size(data: &[u8]) -> Option<Resolution> {
    let is_frame = |marker: u8| matches!(marker, 0xc0..=0xcf) && !matches!(marker, DHT | 0xc8 | 0xcc);
    let frame = segments(data).find(|segment| is_frame(segment.marker))?;
    size_of(frame.body)
}

fn size_of(frame: &[u8]) -> Option<Resolution> {
    let &[_, h, eight, w, idth] = frame.first_chunk()?;
    let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
    let size = Resolution::new(side(w, idth), side(h, eight));
    (size.pixels() > 0).then_some(size)
}

/// What an RTP payload says of a picture.
///
/// # Errors
/// Where RFC 2435 has no room for it: it knows baseline pictures with 4:2:0 or 4:2:2, in one scan, with the Huffman
/// tables of annex K. Nothing else is in the way of HTTP or of files.
pub fn parse(data: &[u8]) -> Result<Jpeg<'_>, Problem> {
    let (mut tables, mut frame, mut restart_interval) = ([None; 4], None, 0);
    for Segment { marker, body, end, .. } in segments(data) {
        match marker {
            DQT => read_quantization(body, &mut tables)?,
            DHT => check_huffman(body)?,
            DRI => restart_interval = u16::from_be_bytes(body.try_into().map_err(|_| NOT_WHOLE)?),
            SOF0 => frame = Some(read_frame(body)?),
            0xc1..=0xcf => return Err(Problem("no baseline JPEG (progressive, or of another kind)")),
            SOS => {
                let (size, kind, numbers) = frame.ok_or(NOT_WHOLE)?;
                let [Some(luma), Some(chroma)] = numbers.map(|number| *tables.get(usize::from(number))?) else {
                    return Err(NOT_WHOLE);
                };
                check_scan(body)?;
                let length = memmem::find(&data[end..], &EOI).filter(|length| *length > 0).ok_or(NOT_WHOLE)?;
                let scan = end..end + length;
                return Ok(Jpeg { size, kind, restart_interval, quantization: [luma, chroma], scan });
            }
            _ => {}
        }
    }
    Err(NOT_WHOLE)
}

fn read_quantization<'a>(mut body: &'a [u8], tables: &mut [Option<&'a [u8]>; 4]) -> Result<(), Problem> {
    while let [number, rest @ ..] = body {
        // Those with 16 bit have a number beyond 15, and belong to pictures with 12.
        let place = tables.get_mut(usize::from(*number)).ok_or(Problem("of more than 8 bit"))?;
        let (table, behind) = rest.split_at_checked(TABLE).ok_or(NOT_WHOLE)?;
        *place = Some(table);
        body = behind;
    }
    Ok(())
}

fn check_huffman(mut body: &[u8]) -> Result<(), Problem> {
    while let [_, rest @ ..] = body {
        let counts = rest.get(..16).ok_or(NOT_WHOLE)?;
        let length = 17 + counts.iter().map(|count| usize::from(*count)).sum::<usize>();
        let (table, behind) = body.split_at_checked(length).ok_or(NOT_WHOLE)?;
        if !usual_tables().any(|usual| usual == table) {
            return Err(Problem("coded with Huffman tables of its own"));
        }
        body = behind;
    }
    Ok(())
}

fn usual_tables() -> impl Iterator<Item = &'static [u8]> {
    let [dc, ac] = [17 + 12, 17 + 162];
    [0..dc, dc..dc + ac, dc + ac..2 * dc + ac, 2 * dc + ac..2 * (dc + ac)].into_iter().map(|at| &HUFFMAN_TABLES[at])
}

/// Size, kind, and the numbers of the quantization tables.
fn read_frame(body: &[u8]) -> Result<(Resolution, u8, [u8; 2]), Problem> {
    let size = size_of(body).ok_or(NOT_WHOLE)?;
    if body[0] != 8 {
        return Err(Problem("of more than 8 bit"));
    }
    let components = match body.get(5).zip(body.get(6..)) {
        Some((1, _)) => return Err(Problem("grey without colour")),
        Some((3, components)) => components,
        _ => return Err(OTHER_COLOURS),
    };
    let &[_, luma, luma_table, _, blue, blue_table, _, red, red_table] =
        components.first_chunk::<9>().ok_or(NOT_WHOLE)?;
    let kind = match (luma, blue, red) {
        (0x21, 0x11, 0x11) => 0,
        (0x22, 0x11, 0x11) => 1,
        _ => return Err(OTHER_COLOURS),
    };
    if blue_table != red_table {
        return Err(Problem("coded with a quantization table for each colour"));
    }
    Ok((size, kind, [luma_table, blue_table]))
}

/// All components in one scan, with the tables that each has by RFC 2435.
fn check_scan(body: &[u8]) -> Result<(), Problem> {
    match body {
        [3, _, 0, _, 0x11, _, 0x11, 0, 63, 0] => Ok(()),
        _ => Err(Problem("coded in several scans, or with other tables than usual")),
    }
}

/// A picture that says with which Huffman tables it is coded: one without any gets those of annex K in front of its
/// scan. Any other is returned itself, not a copy.
pub fn with_huffman_tables(picture: Bytes) -> Bytes {
    let is_wanted = |segment: &Segment| matches!(segment.marker, DHT | SOS);
    let scan = segments(&picture).find(is_wanted).filter(|found| found.marker == SOS).map(|scan| scan.at);
    let Some(at) = scan else { return picture };
    let mut out = Vec::with_capacity(picture.len() + HUFFMAN_TABLES.len() + 4);
    out.extend_from_slice(&picture[..at]);
    out.extend_from_slice(&[0xff, DHT]);
    out.extend_from_slice(&(HUFFMAN_TABLES.len() as u16 + 2).to_be_bytes());
    out.extend_from_slice(&HUFFMAN_TABLES);
    out.extend_from_slice(&picture[at..]);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: &[u8] = include_bytes!("../../../fuzz/corpus/jpeg/420.jpg");
    const WIDE: &[u8] = include_bytes!("../../../fuzz/corpus/jpeg/422.jpg");
    const RESTARTS: &[u8] = include_bytes!("../../../fuzz/corpus/jpeg/restarts.jpg");
    const WITHOUT_TABLES: &[u8] = include_bytes!("../../../fuzz/corpus/jpeg/without_tables.jpg");

    #[test]
    fn what_rtp_says_of_a_picture_is_read() {
        for (picture, kind, has_restarts) in
            [(USUAL, 1, false), (WIDE, 0, false), (RESTARTS, 0, true), (WITHOUT_TABLES, 0, false)]
        {
            let jpeg = parse(picture).expect("a picture");
            assert_eq!((jpeg.kind, jpeg.restart_interval > 0), (kind, has_restarts));
            assert_eq!(size(picture), Some(jpeg.size));
            assert!(jpeg.quantization.iter().all(|table| table.len() == TABLE));
            assert_eq!(picture[jpeg.scan.end..][..2], EOI);
            let padded = [picture, &[0; 99]].concat();
            assert_eq!(parse(&padded), parse(picture), "cameras write anything behind the end");
            assert!((0..picture.len()).all(|length| parse(&picture[..length]) == Err(NOT_WHOLE)), "cut off");
        }
    }

    #[test]
    fn what_rtp_has_no_room_for_is_named() {
        for (picture, problem) in [
            (&include_bytes!("../../../fuzz/corpus/jpeg/444.jpg")[..], "neither 4:2:0 nor 4:2:2"),
            (include_bytes!("../../../fuzz/corpus/jpeg/grey.jpg"), "grey without colour"),
            (
                include_bytes!("../../../fuzz/corpus/jpeg/progressive.jpg"),
                "no baseline JPEG (progressive, or of another kind)",
            ),
            (include_bytes!("../../../fuzz/corpus/jpeg/optimized.jpg"), "coded with Huffman tables of its own"),
        ] {
            assert_eq!(parse(picture), Err(Problem(problem)));
            assert!(size(picture).is_some());
        }
    }

    #[test]
    fn a_picture_without_huffman_tables_gets_the_usual_ones() {
        let before = Bytes::from_static(WITHOUT_TABLES);
        let after = with_huffman_tables(before.clone());
        assert_eq!(after.len(), before.len() + HUFFMAN_TABLES.len() + 4);
        let (old, new) = (parse(&before).expect("a picture"), parse(&after).expect("a picture"));
        assert_eq!(before[old.scan], after[new.scan]);
        let again = with_huffman_tables(after.clone());
        assert_eq!((again.as_ptr(), again.len()), (after.as_ptr(), after.len()), "copied although it has them");
        let broken = Bytes::from_static(&USUAL[..99]);
        assert_eq!(with_huffman_tables(broken.clone()), broken);
    }
}
