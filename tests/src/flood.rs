//! Junk by UDP: ten thousand packets a second to each port, of every kind that a port of ours takes. Seeded.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// To each port, each second; fewer where the machine does not manage.
pub const RATE: u32 = 10_000;
/// Between two bursts.
const TICK: Duration = Duration::from_millis(4);
const BURST: u64 = 100;
/// Different packets; they are sent again and again.
const PACKETS: usize = 4_000;
/// Senders, so that tables with a limit reach it.
const SENDERS: usize = 40;

/// Sends junk to `ports` at 127.0.0.1 for `time`, from 127.0.0.2; `users` are names that STUN requests claim. Gives the
/// packets that were sent to each port in a second.
pub fn flood(ports: &[u16], users: &[String], time: Duration) -> f64 {
    let mut random = StdRng::seed_from_u64(4);
    let packets: Vec<_> = (0..PACKETS).map(|number| junk(number, users, &mut random)).collect();
    let bind = |_| UdpSocket::bind("127.0.0.2:0").expect("a UDP socket");
    let senders: Vec<_> = (0..SENDERS).map(bind).collect();
    let (start, mut sent) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        let due = (start.elapsed().as_secs_f64() * f64::from(RATE)) as u64;
        // What a busy machine has missed is made up for in part only: it would be a burst.
        for _ in 0..due.saturating_sub(sent).min(BURST) {
            for port in ports {
                // One that closes meanwhile is an error, and so is a full socket.
                let to = SocketAddr::from(([127, 0, 0, 1], *port));
                let _ = senders[sent as usize % SENDERS].send_to(&packets[sent as usize % PACKETS], to);
            }
            sent += 1;
        }
        std::thread::sleep(TICK);
    }
    sent as f64 / start.elapsed().as_secs_f64()
}

/// What looks like STUN, DTLS, RTP, RTCP, repair packets and discovery, and what looks like nothing.
fn junk(number: usize, users: &[String], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; random.random_range(0..1400)];
    random.fill_bytes(&mut bytes);
    let start = match number % 8 {
        0 => return stun_request(users.get(number / 8 % users.len().max(1)).map_or("nobody:x", |user| user), random),
        // Handshake, alert and data of DTLS 1.2, in epochs 0 and 1.
        1 => vec![[22, 21, 23][number / 8 % 3], 0xfe, 0xfd, 0, (number / 8 % 2) as u8, 0, 0, 0, 0, 0, 1, 0, 64],
        2 => [&[0x80, 96][..], &random.random::<[u8; 10]>()].concat(),
        // Sender and receiver reports, names, goodbyes and feedback, each of another source.
        3 => [&[0x81, [200, 201, 202, 203, 205, 206][number / 8 % 6], 0, 7], &random.random::<[u8; 4]>()[..]].concat(),
        4 => br#"{"rov":"query","v":1}"#.to_vec(),
        5 => br#"{"rov":"announce","v":1,"id":"#.to_vec(),
        6 => vec![0; 20],
        _ => Vec::new(),
    };
    if number % 8 == 4 {
        return start;
    }
    [start, bytes].concat()
}

/// A STUN binding request (RFC 8489 section 5) of this user, with a signature that is wrong.
fn stun_request(user: &str, random: &mut StdRng) -> Vec<u8> {
    const USERNAME: u16 = 6;
    const MESSAGE_INTEGRITY: u16 = 8;
    let mut attributes = Vec::new();
    for (kind, value) in [(USERNAME, user.as_bytes()), (MESSAGE_INTEGRITY, &random.random::<[u8; 20]>())] {
        attributes.extend(kind.to_be_bytes());
        attributes.extend((value.len() as u16).to_be_bytes());
        attributes.extend(value);
        attributes.resize(attributes.len().next_multiple_of(4), 0);
    }
    let mut message = vec![0, 1];
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend(0x2112_a442_u32.to_be_bytes());
    message.extend(random.random::<[u8; 12]>());
    message.extend(attributes);
    message
}
