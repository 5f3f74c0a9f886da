//! What can be watched instead of what is watched: another sender at an RTP destination, or the server that was watched
//! before. Asked beside the picture, or in its place when there is none.

use std::net::IpAddr;
use std::time::Instant;

use rov_common::sync::lock;

use crate::find::Knowledge;
use crate::receive::OpenWay;
use crate::viewer::{Offer, Question, Viewer};

/// Asks the pilot where there is a choice.
pub fn offer(viewer: &Viewer, can_ask: bool, link: &OpenWay, knowledge: &Knowledge, now: Instant) {
    if let OpenWay::Rtp(receiver) = link
        && let Some(news) = lock(receiver.senders()).take_news()
    {
        viewer.set_news(news);
    }
    let question = match link {
        OpenWay::Rtp(receiver) => lock(receiver.senders()).others(now).map(|others| {
            let offer = |ip: &IpAddr| {
                let address = ip.to_string();
                Offer { label: address.clone(), address, id: String::new(), key: None }
            };
            let offers = others.machines.iter().map(offer).collect();
            let question = Question { text: others.text, offers, takes_first_at: others.takes_first_at };
            (question, "to watch another, start again with --host ADDRESS")
        }),
        OpenWay::WebRtc(_) | OpenWay::Rtsp(_) => None,
    };
    let question = question.or_else(|| Some((knowledge.back(now)?, "to go back, start again")));
    match question {
        Some((question, how)) => viewer.choice.ask(question, if can_ask { "choose in the window" } else { how }),
        None => viewer.choice.withdraw(),
    }
}

/// The pilot chose this one. Gives the reason where the session has to end for it.
pub fn choose(link: &OpenWay, knowledge: &Knowledge, offer: Offer) -> Option<String> {
    if let (OpenWay::Rtp(receiver), Ok(ip)) = (link, offer.address.parse()) {
        if lock(receiver.senders()).choose(ip, Instant::now()) {
            tracing::info!("watching {ip}, as chosen");
        }
        return None;
    }
    let reason = format!("going back to {}", offer.label);
    knowledge.choose(offer);
    Some(reason)
}
