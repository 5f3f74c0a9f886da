//! Telemetry from MAVLink 1 and 2: the few messages that say how deep the vehicle is, where it looks and how much is
//! left in its battery. Frames by <https://mavlink.io/en/guide/serialization.html>, messages by its `common.xml`.
//!
//! A datagram is whole frames, one behind the other, as autopilots and routers send them; behind the first byte that
//! begins none, the rest is left out, so that a datagram costs no more than its length. Signatures are not checked:
//! whoever can send to the port can send values. The crate `mavlink` with its dialects would be 30 times as much code
//! to build; of `mavlink-core` the checksum is used.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use mavlink_core::{MAV_STX, MAV_STX_V2, calculate_crc};

use super::Board;
use super::whose::{OF_ANOTHER, OF_OTHER_SYSTEM, Sender, Whose};

/// The longest payload of the messages that are read.
const PAYLOAD: usize = 64;
/// Flags of MAVLink 2 that a reader must know: a signature follows.
const SIGNED: u8 = 1;
const SIGNATURE: usize = 13;
/// At the surface, and of sea water: pascals for each metre.
const SURFACE_HPA: f64 = 1013.25;
const PASCALS_PER_METRE: f64 = 1025.0 * 9.80665;
/// So long the depth of the autopilot counts, and not that of the pressure alone.
const BY_AUTOPILOT: Duration = Duration::from_secs(2);

/// The message that ground stations send as well: it says of no system that it is a vehicle.
const SYSTEM_TIME: u32 = 2;

/// What was heard of a vehicle.
#[derive(Debug, Default)]
pub struct Link {
    /// The one alone that is listened to; none: whoever is heard first.
    system: Option<u8>,
    whose: Whose,
    /// Who said it, and when.
    depth_by_autopilot: Option<(Sender, Instant)>,
}

struct Frame<'a> {
    system: u8,
    message: u32,
    payload: &'a [u8],
}

impl Link {
    pub fn of(system: Option<u8>) -> Self {
        Self { system, ..Self::default() }
    }

    /// Takes what the frames of a datagram say of declared fields.
    ///
    /// # Errors
    /// Where something in it is no frame, or another vehicle's values are shown.
    pub fn take(&mut self, datagram: &[u8], address: IpAddr, board: &Board, now: Instant) -> Result<(), &'static str> {
        let (mut rest, mut taken) = (datagram, Ok(()));
        if rest.is_empty() {
            return Err("it is empty");
        }
        while !rest.is_empty() {
            let (frame, behind) = frame(rest)?;
            rest = behind;
            let Some(frame) = frame else { continue };
            let sender = Sender { address, system: Some(frame.system) };
            if frame.message == SYSTEM_TIME && !self.whose.is(sender) {
                continue;
            }
            if self.system.is_some_and(|system| system != frame.system) {
                taken = Err(OF_OTHER_SYSTEM);
            } else if self.whose.takes(sender, board, now) {
                self.message(&frame, sender, board, now);
            } else {
                taken = Err(OF_ANOTHER);
            }
        }
        taken
    }

    fn message(&mut self, frame: &Frame, sender: Sender, board: &Board, now: Instant) {
        // Of MAVLink 2, zeros at the end of a payload are left out.
        let mut bytes = [0; PAYLOAD];
        let length = frame.payload.len().min(PAYLOAD);
        bytes[..length].copy_from_slice(&frame.payload[..length]);
        let float = |at| f64::from(f32::from_le_bytes(part(&bytes, at)));
        let mut set = |name, value| self.whose.set(name, value, board, now);
        match frame.message {
            // SYS_STATUS: millivolts, unless they are not known.
            1 => {
                let millivolts = u16::from_le_bytes(part(&bytes, 14));
                if millivolts != u16::MAX {
                    set("battery", f64::from(millivolts) / 1000.0);
                }
            }
            // Microseconds since 1970, once they are known.
            SYSTEM_TIME => {
                let micros = u64::from_le_bytes(part(&bytes, 0));
                if micros > 0 {
                    set("time", micros as f64 / 1e6);
                }
            }
            // ATTITUDE: radians.
            30 => {
                set("roll", float(4).to_degrees());
                set("pitch", float(8).to_degrees());
            }
            // VFR_HUD: the altitude of what is below the surface is negative.
            74 => {
                if set("depth", -float(8)) {
                    self.depth_by_autopilot = Some((sender, now));
                }
                set("heading", f64::from(i16::from_le_bytes(part(&bytes, 16))));
            }
            // SCALED_PRESSURE2: hectopascals, and hundredths of degrees in the water.
            137 => {
                let is_known = self
                    .depth_by_autopilot
                    .is_some_and(|(by, at)| by == sender && now.saturating_duration_since(at) < BY_AUTOPILOT);
                if !is_known {
                    set("depth", (float(4) - SURFACE_HPA) * 100.0 / PASCALS_PER_METRE);
                }
                set("temperature", f64::from(i16::from_le_bytes(part(&bytes, 12))) / 100.0);
            }
            _ => {}
        }
    }
}

/// What goes into the checksum of a message that is read, by its number.
fn extra(message: u32) -> Option<u8> {
    Some(match message {
        1 => 124,
        SYSTEM_TIME => 137,
        30 => 39,
        74 => 20,
        137 => 195,
        _ => return None,
    })
}

/// The first frame, if it has a message that is read, and what is behind it.
fn frame(bytes: &[u8]) -> Result<(Option<Frame<'_>>, &[u8]), &'static str> {
    let cut = "a frame is cut off";
    // Where the payload begins, and what is behind the checksum.
    let (begin, behind) = match bytes {
        [MAV_STX, ..] => (6, 0),
        [MAV_STX_V2, _, 0, ..] => (10, 0),
        [MAV_STX_V2, _, SIGNED, ..] => (10, SIGNATURE),
        [MAV_STX_V2, _, _, ..] => return Err("a frame has flags that are not known"),
        [MAV_STX_V2, ..] => return Err(cut),
        _ => return Err("it is no MAVLink"),
    };
    let length = usize::from(*bytes.get(1).ok_or(cut)?);
    let end = begin + length;
    let (whole, rest) = bytes.split_at_checked(end + 2 + behind).ok_or(cut)?;
    let (system, message) = match begin {
        6 => (whole[3], u32::from(whole[5])),
        _ => (whole[5], u32::from_le_bytes([whole[7], whole[8], whole[9], 0])),
    };
    let Some(extra) = extra(message) else { return Ok((None, rest)) };
    if calculate_crc(&whole[1..end], extra).to_le_bytes() != whole[end..end + 2] {
        return Err("the checksum of a frame is wrong");
    }
    Ok((Some(Frame { system, message, payload: &whole[begin..end] }), rest))
}

fn part<const N: usize>(bytes: &[u8; PAYLOAD], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FieldConfig;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// Of MAVLink 2.
    fn framed(message: u32, payload: &[u8]) -> Vec<u8> {
        framed_by(1, message, payload)
    }

    fn framed_by(system: u8, message: u32, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u8;
        let [low, middle, high, _] = message.to_le_bytes();
        let header = [MAV_STX_V2, length, 0, 0, 7, system, 1, low, middle, high];
        let mut frame = [&header[..], payload].concat();
        let checksum = calculate_crc(&frame[1..], extra(message).unwrap_or_default());
        frame.extend(checksum.to_le_bytes());
        frame
    }

    fn hud(altitude: f32, heading: i16) -> Vec<u8> {
        let mut payload = vec![0; 20];
        payload[8..12].copy_from_slice(&altitude.to_le_bytes());
        payload[16..18].copy_from_slice(&heading.to_le_bytes());
        payload
    }

    fn pressure(hpa: f32) -> Vec<u8> {
        let mut payload = vec![0; 14];
        payload[4..8].copy_from_slice(&hpa.to_le_bytes());
        payload[12..14].copy_from_slice(&412_i16.to_le_bytes());
        payload
    }

    fn board() -> Board {
        Board::new(
            ["depth", "heading", "roll", "pitch", "battery", "temperature", "time"].map(FieldConfig::named).into(),
        )
    }

    /// HEARTBEAT, VFR_HUD, ATTITUDE, SYS_STATUS, SYSTEM_TIME and SCALED_PRESSURE2, made by pymavlink 2.4.50.
    #[test]
    fn each_message_is_read_in_both_versions() {
        let versions: [&[u8]; 2] = [
            include_bytes!("../../../fuzz/corpus/telemetry/pymavlink-v1"),
            include_bytes!("../../../fuzz/corpus/telemetry/pymavlink-v2"),
        ];
        for datagram in versions {
            let (board, now) = (board(), Instant::now());
            assert_eq!(Link::default().take(datagram, HERE, &board, now), Ok(()));
            let values = board.values(now);
            let all: Vec<_> = values.iter().map(|(name, value)| format!("{name} {}", value.text)).collect();
            let depth_is_by_the_hud = "battery 15.2 V, depth 2.5 m, heading 270°, pitch -11°, roll 6°, temperature 4.1 \
                                       °C, time 22:13:20";
            assert_eq!(all.join(", "), depth_is_by_the_hud);
        }
    }

    #[test]
    fn without_an_autopilot_that_knows_the_depth_it_is_by_the_pressure() {
        let (board, start, mut link) = (board(), Instant::now(), Link::default());
        let depth = |now| board.text("depth", now);
        link.take(&framed(74, &hud(-1.0, 0)), HERE, &board, start).expect("a frame");
        link.take(&framed(137, &pressure(2013.25)), HERE, &board, start + BY_AUTOPILOT / 2).expect("a frame");
        assert_eq!(depth(start).as_deref(), Some("1.0 m"));
        link.take(&framed(137, &pressure(2013.25)), HERE, &board, start + BY_AUTOPILOT).expect("a frame");
        assert_eq!(depth(start + BY_AUTOPILOT).as_deref(), Some("9.9 m"));
    }

    #[test]
    fn values_of_another_vehicle_are_not_taken() {
        let (board, now, mut link) = (board(), Instant::now(), Link::default());
        let heartbeat = [&[MAV_STX_V2, 9, 0, 0, 7, 255, 190, 0, 0, 0][..], &[0; 11]].concat();
        assert_eq!(link.take(&heartbeat, HERE, &board, now), Ok(()), "a ground station");
        link.take(&framed_by(3, 74, &hud(-2.0, 0)), HERE, &board, now).expect("the first");
        let both = [framed_by(4, 74, &hud(-50.0, 0)), framed_by(3, 74, &hud(-2.5, 0))].concat();
        assert_eq!(link.take(&both, HERE, &board, now), Err(OF_ANOTHER));
        // With the number that all autopilots have at first.
        let there = [10, 0, 0, 9].into();
        assert_eq!(link.take(&framed_by(3, 74, &hud(-50.0, 0)), there, &board, now), Err(OF_ANOTHER));
        assert_eq!(board.text("depth", now).as_deref(), Some("2.5 m"));
    }

    #[test]
    fn the_vehicle_that_was_heard_first_has_its_place_back_with_its_own_values_alone() {
        let (board, start, mut link) = (board(), Instant::now(), Link::default());
        let later = start + Duration::from_secs(90);
        link.take(&framed_by(1, 74, &hud(-2.0, 0)), HERE, &board, start).expect("the first");
        link.take(&framed_by(2, 74, &hud(-50.0, 0)), HERE, &board, later).expect("that one is silent");
        link.take(&framed_by(1, 137, &pressure(2013.25)), HERE, &board, later).expect("it is there again");
        assert_eq!(board.text("depth", later).as_deref(), Some("9.9 m"), "whatever the other's autopilot knows");
        assert_eq!(board.text("heading", later), None);
        assert_eq!(link.take(&framed_by(2, 74, &hud(-50.0, 0)), HERE, &board, later), Err(OF_ANOTHER));
    }

    #[test]
    fn the_system_that_is_named_is_taken_alone_whoever_is_heard_first() {
        let (board, now, mut link) = (board(), Instant::now(), Link::of(Some(1)));
        let later = now + Duration::from_secs(90);
        assert_eq!(link.take(&framed_by(2, 74, &hud(-50.0, 0)), HERE, &board, now), Err(OF_OTHER_SYSTEM));
        link.take(&framed_by(1, 74, &hud(-2.0, 0)), HERE, &board, now).expect("its own");
        assert_eq!(link.take(&framed_by(2, 74, &hud(-50.0, 0)), HERE, &board, later), Err(OF_OTHER_SYSTEM));
        assert_eq!(board.text("depth", now).as_deref(), Some("2.0 m"));
    }

    #[test]
    fn the_time_of_a_ground_station_is_no_vehicles() {
        let (board, now, mut link) = (board(), Instant::now(), Link::default());
        let time = |micros: u64| [&micros.to_le_bytes()[..], &[0; 4]].concat();
        let mut take = |system, message, payload: &[u8]| {
            link.take(&framed_by(system, message, payload), HERE, &board, now).expect("not refused");
        };
        take(255, SYSTEM_TIME, &time(1_000_000));
        take(1, SYSTEM_TIME, &time(2_000_000));
        assert_eq!(board.changes(), 0, "nor is it known yet whose the other is");
        take(1, 74, &hud(-2.5, 0));
        take(255, SYSTEM_TIME, &time(1_000_000));
        take(1, SYSTEM_TIME, &time(3_000_000));
        let text = |name| board.text(name, now);
        assert_eq!((text("depth").as_deref(), text("time").as_deref()), (Some("2.5 m"), Some("00:00:03")));
    }

    #[test]
    fn zeros_at_the_end_may_be_left_out_and_a_signature_may_follow() {
        let (board, now) = (board(), Instant::now());
        let payload = hud(-2.5, 0);
        let mut signed = framed(74, &payload[..12]);
        signed[2] = SIGNED;
        let end = signed.len() - 2;
        let checksum = calculate_crc(&signed[1..end], 20).to_le_bytes();
        signed[end..].copy_from_slice(&checksum);
        signed.extend([9; SIGNATURE]);
        let both = [&signed[..], &framed(74, &hud(-3.5, 10))].concat();
        assert_eq!(Link::default().take(&both, HERE, &board, now), Ok(()));
        assert_eq!(board.text("depth", now).as_deref(), Some("3.5 m"));
        assert_eq!(Link::default().take(&signed, HERE, &board, now), Ok(()));
        assert_eq!(board.text("depth", now).as_deref(), Some("2.5 m"));
    }

    #[test]
    fn what_is_no_frame_is_refused_and_no_number_is_no_depth() {
        let (board, now) = (board(), Instant::now());
        let good = framed(74, &hud(-2.5, 270));
        for length in 0..good.len() {
            assert!(Link::default().take(&good[..length], HERE, &board, now).is_err(), "{length} bytes");
        }
        for at in [1, 2, 7, 15, good.len() - 1] {
            let mut damaged = good.clone();
            damaged[at] ^= 0x42;
            assert!(at == 7 || Link::default().take(&damaged, HERE, &board, now).is_err(), "byte {at}");
        }
        assert_eq!(board.changes(), 0);
        let _ = Link::default().take(&framed(74, &hud(f32::NAN, 1)), HERE, &board, now);
        assert_eq!((board.text("depth", now), board.changes()), (None, 1), "the heading alone");
    }
}
