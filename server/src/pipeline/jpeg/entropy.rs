//! Whether the scans of a JPEG picture hold all of its blocks (ITU-T T.81). Pure.
//!
//! Only the lengths of the Huffman codes are looked at: nothing is decoded. It takes a third of what decoding takes,
//! and so is asked only about pictures of which a decoder has made something suspicious. Limits: a picture that is
//! neither baseline nor extended sequential with 8 bits (progressive, arithmetic, lossless), or whose height comes
//! behind its scan, counts as whole.

use std::cell::OnceCell;

use rov_common::codec::jpeg::HUFFMAN_TABLES;

/// The bits of the longest code; at most 15 that are no code follow it.
const LONGEST: u32 = 16;
/// By the bits that the longest code would have.
type Codes = [Code; 1 << LONGEST];
/// The bytes of the longest block, and those that are read at once behind it.
const BEHIND: usize = 256 + 8;
const COEFFICIENTS: u16 = 64;
/// Bytes of two blocks and more of those whose coefficients all have the shortest code, as there are none in pictures.
const ZEROS: usize = 64;

/// Has the tables of the pictures before, as far as it was given them: not each picture of a stream needs to have them.
pub struct Entropy {
    /// Those for DC and those for AC, by their numbers.
    tables: [[Option<Table>; 4]; 2],
    /// An interval as it was before it was stuffed.
    bytes: Vec<u8>,
}

/// What the frame header says.
struct Frame {
    width: usize,
    height: usize,
    /// Of a sample: 8 as a rule.
    bits: u8,
    components: Vec<Component>,
}

struct Component {
    id: u8,
    /// Its blocks in an MCU.
    across: usize,
    down: usize,
    has_scan: bool,
}

impl Default for Entropy {
    /// Cameras that leave out the tables mean those of annex K.
    fn default() -> Self {
        let mut entropy = Self { tables: Default::default(), bytes: Vec::new() };
        entropy.read_tables(&HUFFMAN_TABLES);
        entropy
    }
}

impl Entropy {
    /// Of a picture from its SOI to its EOI.
    pub fn is_whole(&mut self, picture: &[u8]) -> bool {
        let (mut rest, mut frame, mut restart) = (picture.get(2..).unwrap_or_default(), None::<Frame>, 0);
        while let Some((marker, segment, behind)) = next_segment(rest) {
            rest = behind;
            let is_right = match marker {
                EOI => return frame.is_some_and(|frame| frame.components.iter().all(|component| component.has_scan)),
                DHT => self.read_tables(segment),
                DRI => read_restart(segment).map(|interval| restart = interval).is_some(),
                SOS => {
                    let behind = frame.as_mut().and_then(|frame| self.scan(frame, segment, restart, rest));
                    behind.map(|behind| rest = behind).is_some()
                }
                BASELINE | EXTENDED => {
                    frame = read_frame(segment);
                    if frame.as_ref().is_some_and(|frame| frame.height == 0 || frame.bits != 8) {
                        return true;
                    }
                    frame.is_some()
                }
                0xc2..=0xcf => return true,
                _ => true,
            };
            if !is_right {
                return false;
            }
        }
        false
    }

    /// Takes the tables of a picture that is not looked at: those behind it may need them.
    pub fn read_header(&mut self, picture: &[u8]) {
        header(picture, |marker, segment| {
            if marker == DHT {
                self.read_tables(segment);
            }
        });
    }

    fn read_tables(&mut self, mut segment: &[u8]) -> bool {
        while let [class_and_number, rest @ ..] = segment {
            let (class, number) = (usize::from(class_and_number >> 4), usize::from(class_and_number & 15));
            let Some(table) = self.tables.get_mut(class).and_then(|tables| tables.get_mut(number)) else {
                return false;
            };
            let Some((counts, rest)) = rest.split_first_chunk() else { return false };
            let count = counts.iter().map(|count| usize::from(*count)).sum();
            let Some((values, rest)) = rest.split_at_checked(count) else { return false };
            if table.as_ref().is_none_or(|table| table.counts != *counts || table.values != values) {
                *table = Some(Table::new(class, *counts, values));
            }
            segment = rest;
        }
        true
    }

    /// What is behind a scan that has all of its blocks.
    fn scan<'a>(&mut self, frame: &mut Frame, header: &[u8], restart: usize, data: &'a [u8]) -> Option<&'a [u8]> {
        let Self { tables: [dc, ac], bytes } = self;
        let (count, selectors) = header.split_first()?;
        let selectors = selectors.get(..usize::from(*count) * 2)?;
        let most = |of: fn(&Component) -> usize| frame.components.iter().map(of).max();
        let (most_across, most_down) = (most(|of| of.across)?, most(|of| of.down)?);
        let mut units = frame.width.div_ceil(8 * most_across) * frame.height.div_ceil(8 * most_down);
        let mut blocks = Vec::new();
        for selector in selectors.chunks_exact(2) {
            let component = frame.components.iter_mut().find(|component| component.id == selector[0])?;
            component.has_scan = true;
            let dc = dc.get(usize::from(selector[1] >> 4))?.as_ref()?.codes()?;
            let ac = ac.get(usize::from(selector[1] & 15))?.as_ref()?.codes()?;
            if *count > 1 {
                blocks.extend(std::iter::repeat_n((dc, ac), component.across * component.down));
            } else {
                // Alone in a scan it has no block more than its picture needs.
                units = (frame.width * component.across).div_ceil(8 * most_across)
                    * (frame.height * component.down).div_ceil(8 * most_down);
                blocks.push((dc, ac));
            }
        }
        let mut rest = data;
        loop {
            rest = take_interval(rest, bytes);
            let expected = if restart > 0 { units.min(restart) } else { units };
            let length = coded_bytes(bytes, expected, &blocks)?;
            // Where zeros are no end of a block, whole blocks of them are no picture.
            if has_zeros(&bytes[..length]) && blocks.iter().any(|(_, ac)| ac[0].passes != TO_END) {
                return None;
            }
            units -= expected;
            if units == 0 {
                // Restarts that begin nothing any more.
                while let [0xff, 0xd0..=0xd7, behind @ ..] = rest {
                    rest = take_interval(behind, bytes);
                }
                return Some(rest);
            }
            match rest {
                [0xff, 0xd0..=0xd7, behind @ ..] => rest = behind,
                _ => return None,
            }
        }
    }
}

/// Whether a picture, up to its EOI, has a long run of zeros in its first scan. Quickly told; whether it is damage is
/// another question.
pub fn scan_has_zeros(picture: &[u8]) -> bool {
    header(picture, |_, _| ()).is_some_and(has_zeros)
}

/// In each interval between two restarts the pixel that is decoded last, of a baseline picture with one scan: where
/// data was missing, it is grey. Empty where that is not known.
pub fn ends_of_intervals(picture: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let (mut frame, mut restart) = (None, 0);
    header(picture, |marker, segment| match marker {
        BASELINE | EXTENDED => frame = read_frame(segment),
        DRI => restart = read_restart(segment).unwrap_or_default(),
        _ => {}
    });
    frame.filter(|frame| frame.height > 0).into_iter().flat_map(move |Frame { width, height, components, .. }| {
        let most = |of: fn(&Component) -> usize| components.iter().map(of).max().unwrap_or(1);
        // A component that is alone has its blocks one after the other.
        let (across, down) = if components.len() > 1 { (most(|of| of.across), most(|of| of.down)) } else { (1, 1) };
        let columns = width.div_ceil(8 * across);
        let units = columns * height.div_ceil(8 * down);
        let interval = if restart > 0 { restart } else { units };
        (1..=units.div_ceil(interval)).map(move |number| {
            let last = (number * interval).min(units) - 1;
            let (x, y) = ((last % columns + 1) * 8 * across, (last / columns + 1) * 8 * down);
            (x.min(width) - 1, y.min(height) - 1)
        })
    })
}

const BASELINE: u8 = 0xc0;
const EXTENDED: u8 = 0xc1;
const DHT: u8 = 0xc4;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DRI: u8 = 0xdd;

/// The next marker, what its segment holds, and what is behind that.
fn next_segment(mut data: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    // Fill bytes.
    while let [0xff, 0xff, ..] = data {
        data = &data[1..];
    }
    match data {
        [0xff, EOI, behind @ ..] => Some((EOI, &[], behind)),
        [0xff, marker, rest @ ..] => {
            let (segment, behind) = rest.split_at_checked(u16::from_be_bytes(*rest.first_chunk()?).into())?;
            Some((*marker, segment.get(2..)?, behind))
        }
        _ => None,
    }
}

/// Gives each segment of a picture to `take`, up to the first scan; that scan and what is behind it, if there is one.
fn header(picture: &[u8], mut take: impl FnMut(u8, &[u8])) -> Option<&[u8]> {
    let mut rest = picture.get(2..)?;
    loop {
        let (marker, segment, behind) = next_segment(rest)?;
        match marker {
            SOS => return Some(behind),
            EOI => return None,
            _ => take(marker, segment),
        }
        rest = behind;
    }
}

fn read_restart(segment: &[u8]) -> Option<usize> {
    segment.first_chunk().map(|interval| u16::from_be_bytes(*interval).into())
}

fn read_frame(segment: &[u8]) -> Option<Frame> {
    let [bits, height_high, height_low, width_high, width_low, count, components @ ..] = segment else { return None };
    let side = |high, low| usize::from(u16::from_be_bytes([high, low]));
    let components = components.get(..usize::from(*count) * 3)?.chunks_exact(3).map(|component| {
        let (across, down) = (usize::from(component[1] >> 4), usize::from(component[1] & 15));
        let is_right = (1..=4).contains(&across) && (1..=4).contains(&down);
        is_right.then_some(Component { id: component[0], across, down, has_scan: false })
    });
    let components = components.collect::<Option<Vec<_>>>().filter(|components| (1..=4).contains(&components.len()))?;
    let (width, height) = (side(*width_high, *width_low), side(*height_high, *height_low));
    (width > 0).then_some(Frame { width, height, bits: *bits, components })
}

/// Puts what is in front of the next marker into `bytes`, without its stuffing, and returns the rest.
fn take_interval<'a>(mut data: &'a [u8], bytes: &mut Vec<u8>) -> &'a [u8] {
    bytes.clear();
    loop {
        let length = memchr::memchr(0xff, data).unwrap_or(data.len());
        let (codes, rest) = data.split_at(length);
        bytes.extend_from_slice(codes);
        match rest {
            [0xff, 0, rest @ ..] => {
                bytes.push(0xff);
                data = rest;
            }
            // Fill bytes in front of a marker.
            [0xff, 0xff, ..] => data = &rest[1..],
            _ => return rest,
        }
    }
}

/// How many of the `bytes` hold so many MCUs of these blocks; none where they do not. More means nothing to decoders,
/// and cameras write it. Nor do bits of the last byte that are not there: they are zeros to decoders.
fn coded_bytes(bytes: &mut Vec<u8>, units: usize, blocks: &[(&Codes, &Codes)]) -> Option<usize> {
    let length = bytes.len();
    bytes.resize(length + BEHIND, 0);
    let mut at = 0;
    for _ in 0..units {
        for (dc, ac) in blocks {
            at = behind_block(bytes, at, dc, ac).filter(|behind| *behind < (length + 1) * 8)?;
        }
    }
    bytes.truncate(length);
    Some(at.div_ceil(8).min(length))
}

/// Whether there are so many zeros as of a part that never came.
fn has_zeros(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, &[0; ZEROS]).is_some()
}

/// The bit behind the block that begins `at` this one; none where something else is there.
fn behind_block(bytes: &[u8], mut at: usize, dc: &Codes, ac: &Codes) -> Option<usize> {
    let (mut codes, mut coefficients) = (dc, 0);
    while coefficients < COEFFICIENTS {
        let Code { bits, passes } = code(codes, bytes, at)?;
        at += usize::from(bits);
        coefficients += u16::from(passes);
        codes = ac;
    }
    // A run of zeros does not go over the end.
    (coefficients == COEFFICIENTS || coefficients >= TO_END.into()).then_some(at)
}

/// A code with the bits behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Code {
    /// None are: it is no code.
    bits: u8,
    /// How many coefficients it stands for; [`TO_END`] for all the others of its block.
    passes: u8,
}

/// More than a block has.
const TO_END: u8 = 128;

const DC: usize = 0;

/// A Huffman table as it was declared, and what comes of it.
struct Table {
    class: usize,
    counts: [u8; 16],
    values: Vec<u8>,
    /// Made when they are needed. None where there are more codes of a length than there can be.
    codes: OnceCell<Option<Box<Codes>>>,
}

impl Table {
    fn new(class: usize, counts: [u8; 16], values: &[u8]) -> Self {
        Self { class, counts, values: values.to_vec(), codes: OnceCell::new() }
    }

    fn codes(&self) -> Option<&Codes> {
        self.codes.get_or_init(|| self.make_codes()).as_deref()
    }

    fn make_codes(&self) -> Option<Box<Codes>> {
        let mut codes = Box::new([Code::default(); 1 << LONGEST]);
        let (mut start, mut left) = (0, self.values.iter());
        for (length, count) in (1..=16).zip(self.counts) {
            for value in left.by_ref().take(count.into()) {
                let end = start + (1 << (LONGEST - u32::from(length)));
                let (run, size) = (value >> 4, value & 15);
                let passes = match (self.class, run, size) {
                    (DC, 0, _) => Some(1),
                    (DC, ..) => None,
                    (_, 15, 0) => Some(16),
                    (_, _, 0) => Some(TO_END),
                    _ => Some(run + 1),
                };
                let code = passes.map_or_else(Code::default, |passes| Code { bits: length + size, passes });
                codes.get_mut(start..end)?.fill(code);
                start = end;
            }
        }
        Some(codes)
    }
}

fn code(codes: &Codes, bytes: &[u8], at: usize) -> Option<Code> {
    let ahead = u32::from_be_bytes(*bytes.get(at / 8..)?.first_chunk()?) << (at % 8);
    Some(codes[(ahead >> (u32::BITS - LONGEST)) as usize]).filter(|code| code.bits > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! kept {
        ($name:literal) => {
            ($name, include_bytes!(concat!("../../../../fuzz/corpus/jpeg/", $name, ".jpg")))
        };
    }

    /// Of 72x50 pixels.
    const BASELINE_PICTURES: [(&str, &[u8]); 7] = [
        kept!("420"),
        kept!("422"),
        kept!("444"),
        kept!("grey"),
        kept!("optimized"),
        kept!("restarts"),
        kept!("without_tables"),
    ];
    /// With long codes.
    const LONG: &[u8] = kept!("long").1;
    const PROGRESSIVE: &[u8] = kept!("progressive").1;

    fn is_whole(picture: &[u8]) -> bool {
        Entropy::default().is_whole(picture)
    }

    /// Where the codes begin, and where they end.
    fn scan(picture: &[u8]) -> (usize, usize) {
        let sos = picture.windows(2).position(|two| two == [0xff, SOS]).unwrap();
        (sos + 2 + usize::from(u16::from_be_bytes([picture[sos + 2], picture[sos + 3]])), picture.len() - 2)
    }

    #[test]
    fn a_picture_is_whole_with_all_of_its_blocks_alone() {
        for (name, picture) in BASELINE_PICTURES {
            assert!(is_whole(picture), "{name}");
            let (start, end) = scan(picture);
            for at in (start..end - 40).step_by(7) {
                let cut = [&picture[..at], &picture[end..]].concat();
                assert!(!is_whole(&cut), "{name}: cut off at {at}");
                let gap = [&picture[..at], &picture[end.min(at + (end - start) / 4)..]].concat();
                assert!(!is_whole(&gap), "{name}: without a quarter from {at} on");
            }
            let mut zeros = picture.to_vec();
            zeros[(start + end) / 2..end].fill(0);
            assert!(!is_whole(&zeros) && scan_has_zeros(&zeros) && !scan_has_zeros(picture), "{name}: zeros");
            assert!(!is_whole(&picture[..end]), "{name}: without its end");
        }
    }

    #[test]
    fn what_means_nothing_to_decoders_is_no_damage() {
        for (name, picture) in BASELINE_PICTURES {
            let end = scan(picture).1;
            let spare = [&picture[..end], &[0x55; 30], &[0xff, 0xff], &picture[end..], &[0; 100]].concat();
            assert!(is_whole(&spare), "{name}");
            for restart in [&[0xff, 0xd3][..], &[0xff, 0xd3, 0xff, 0xff, 0xd4, 0x55]] {
                let restarts = [&picture[..end], restart, &picture[end..]].concat();
                assert!(is_whole(&restarts), "{name}: a restart behind the last interval");
            }
        }
    }

    #[test]
    fn the_tables_of_pictures_before_are_those_of_pictures_without_any() {
        let optimized = kept!("optimized").1;
        let mut without = optimized.to_vec();
        while let Some(at) = without.windows(2).position(|two| two == [0xff, DHT]) {
            let length = usize::from(u16::from_be_bytes([without[at + 2], without[at + 3]]));
            without.drain(at..at + 2 + length);
        }
        let mut entropy = Entropy::default();
        assert!(!entropy.is_whole(&without), "by those of annex K");
        entropy.read_header(optimized);
        assert!(entropy.is_whole(&without));
    }

    /// As cameras make them that are set to their best.
    #[test]
    fn zeros_that_are_as_long_as_the_codes_in_their_place_are_damage() {
        let (start, end) = scan(LONG);
        for at in (start..end - 300).step_by(50) {
            let mut zeros = LONG.to_vec();
            zeros[at..at + 300].fill(0);
            assert!(!is_whole(&zeros) && scan_has_zeros(&zeros), "at {at}");
        }
        let padded = [&LONG[..end], &[0; 300], &LONG[end..]].concat();
        assert!(is_whole(LONG) && is_whole(&padded), "behind the last block");
    }

    #[test]
    fn of_what_is_coded_in_another_way_nothing_is_known() {
        let (start, end) = scan(PROGRESSIVE);
        assert!(is_whole(PROGRESSIVE) && is_whole(&[&PROGRESSIVE[..(start + end) / 2], &PROGRESSIVE[end..]].concat()));
        assert_eq!(ends_of_intervals(PROGRESSIVE).count(), 0);
    }

    #[test]
    fn each_interval_ends_at_a_corner_of_its_last_block() {
        for (name, picture) in BASELINE_PICTURES.into_iter().filter(|(name, _)| *name != "restarts") {
            assert_eq!(ends_of_intervals(picture).collect::<Vec<_>>(), [(71, 49)], "{name}");
        }
        // After each three of 5 by 7 MCUs of 16x8.
        let ends: Vec<_> = ends_of_intervals(kept!("restarts").1).collect();
        assert_eq!((ends.len(), &ends[..3], ends[11]), (12, &[(47, 7), (15, 15), (63, 15)][..], (71, 49)));
    }
}
