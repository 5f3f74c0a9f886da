//! The text form of link conditions, and of a script that changes them over time. [`HELP`] describes it.

use std::time::Duration;

use crate::link::{Burst, Conditions, Queue, Reorder};

pub const HELP: &str = "\
Link (--link, and the rest of a script's line): a direction, then settings, separated by spaces. What is not named \
stays.

  to-topside | to-rov | both     video goes to topside; without one of them: both

  delay=20ms                     each frame takes so long
  jitter=5ms                     so much longer or shorter, without reordering
  jitter=5ms/unordered           drawn for each frame anew, so that frames overtake one another
  loss=1%                        random loss
  burst=1%/30%[/50%]             Gilbert-Elliott: chance to enter the bad state, to leave it [and what it loses: 100%]
  reorder=5%/5ms                 so many frames are held back by up to so long
  duplicate=1%                   so many frames come twice
  rate=2Mbit | 500kbit | 0 | none
  queue=200ms | 64kB             what waits for the rate; the rest is dropped
  outage=on | off                nothing passes
  outage=2s                      in a script: on, and off 2 s later
  clear                          all as without any --link

Script (--script FILE): a line for each step, in any order; # begins a comment.

  at 5s to-topside loss=1%
  at 10s both outage=2s
  at 20s clear delay=2ms";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToTopside,
    ToRov,
    Both,
}

/// One change of the link, of one direction or both.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub way: Way,
    settings: Vec<Setting>,
}

/// A change at a time since the start.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub at: Duration,
    pub change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Setting {
    Delay(Duration),
    Jitter { jitter: Duration, unordered: bool },
    Loss(f64),
    Burst(Burst),
    Reorder(Reorder),
    Duplicate(f64),
    Rate(Option<u64>),
    Queue(Queue),
    Outage(bool),
    Clear,
}

impl Change {
    /// `conditions` with this change.
    pub fn apply(&self, mut conditions: Conditions) -> Conditions {
        for setting in &self.settings {
            match *setting {
                Setting::Delay(delay) => conditions.delay = delay,
                Setting::Jitter { jitter, unordered } => {
                    (conditions.jitter, conditions.unordered) = (jitter, unordered);
                }
                Setting::Loss(loss) => conditions.loss = loss,
                Setting::Burst(burst) => conditions.burst = Some(burst).filter(|burst| burst.enter > 0.0),
                Setting::Reorder(reorder) => conditions.reorder = Some(reorder).filter(|reorder| reorder.share > 0.0),
                Setting::Duplicate(share) => conditions.duplicate = share,
                Setting::Rate(rate) => conditions.rate = rate,
                Setting::Queue(queue) => conditions.queue = queue,
                Setting::Outage(outage) => conditions.outage = outage,
                Setting::Clear => conditions = Conditions::default(),
            }
        }
        conditions
    }

    fn is_to(&self, way: Way) -> bool {
        self.way == Way::Both || self.way == way
    }

    pub fn is_to_topside(&self) -> bool {
        self.is_to(Way::ToTopside)
    }

    pub fn is_to_rov(&self) -> bool {
        self.is_to(Way::ToRov)
    }
}

/// What `--link` takes.
pub fn link(text: &str) -> Result<Change, String> {
    match parse(text)? {
        (change, None) => Ok(change),
        (_, Some(_)) => Err("outage=DURATION is for scripts: here on or off".to_owned()),
    }
}

/// The steps of a script, in the order of their times.
pub fn script(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            steps.extend(step(line).map_err(|error| format!("line {}: {error}", number + 1))?);
        }
    }
    // Stable: of steps at one time the first in the text goes first.
    steps.sort_by_key(|step| step.at);
    Ok(steps)
}

fn step(line: &str) -> Result<Vec<Step>, String> {
    let mistake = || format!("'{line}': write 'at TIME SETTING...', as in 'at 5s to-topside loss=1%'");
    let rest = line.strip_prefix("at ").ok_or_else(mistake)?.trim_start();
    let (at, rest) = rest.split_once(char::is_whitespace).ok_or_else(mistake)?;
    let at = duration(at)?;
    let (change, ends) = parse(rest)?;
    let end = ends.map(|after| Step {
        at: at + after,
        change: Change { way: change.way, settings: vec![Setting::Outage(false)] },
    });
    Ok(std::iter::once(Step { at, change }).chain(end).collect())
}

/// The change, and after how long an outage in it ends.
fn parse(text: &str) -> Result<(Change, Option<Duration>), String> {
    let mut words = text.split_whitespace().peekable();
    let way = match words.peek() {
        Some(&"to-topside") => Some(Way::ToTopside),
        Some(&"to-rov") => Some(Way::ToRov),
        Some(&"both") => Some(Way::Both),
        _ => None,
    };
    if way.is_some() {
        words.next();
    }
    let (mut settings, mut ends) = (Vec::new(), None);
    for word in words {
        let setting = match word.split_once('=') {
            Some(("outage", value)) if !["on", "off"].contains(&value) => {
                ends = Some(duration(value)?);
                Setting::Outage(true)
            }
            Some((name, value)) => setting(name, value)?,
            None if word == "clear" => Setting::Clear,
            None => return Err(format!("'{word}': give NAME=VALUE, or clear (netlab --help lists them)")),
        };
        settings.push(setting);
    }
    if settings.is_empty() {
        return Err(format!("'{text}': a setting is missing, as in 'to-topside loss=1%'"));
    }
    Ok((Change { way: way.unwrap_or(Way::Both), settings }, ends))
}

fn setting(name: &str, value: &str) -> Result<Setting, String> {
    let parts: Vec<&str> = value.split('/').collect();
    Ok(match (name, parts.as_slice()) {
        ("delay", [delay]) => Setting::Delay(duration(delay)?),
        ("jitter", [jitter]) => Setting::Jitter { jitter: duration(jitter)?, unordered: false },
        ("jitter", [jitter, "unordered"]) => Setting::Jitter { jitter: duration(jitter)?, unordered: true },
        ("loss", [loss]) => Setting::Loss(share(loss)?),
        ("burst", [enter, leave]) => Setting::Burst(Burst { enter: share(enter)?, leave: share(leave)?, loss: 1.0 }),
        ("burst", [enter, leave, loss]) => {
            Setting::Burst(Burst { enter: share(enter)?, leave: share(leave)?, loss: share(loss)? })
        }
        ("reorder", [part, hold]) => Setting::Reorder(Reorder { share: share(part)?, hold: duration(hold)? }),
        ("duplicate", [part]) => Setting::Duplicate(share(part)?),
        ("rate", ["none"]) => Setting::Rate(None),
        ("rate", [rate]) => Setting::Rate(Some(bits(rate)?)),
        ("queue", [queue]) => Setting::Queue(match bytes(queue) {
            Some(bytes) => Queue::Bytes(bytes),
            None => Queue::Time(duration(queue)?),
        }),
        ("outage", ["on"]) => Setting::Outage(true),
        ("outage", ["off"]) => Setting::Outage(false),
        _ => return Err(format!("'{name}={value}' is not known: netlab --help lists the settings and their values")),
    })
}

pub fn duration(text: &str) -> Result<Duration, String> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let seconds = units.iter().find_map(|(unit, factor)| Some(number(text.strip_suffix(unit)?)? * factor));
    // An hour is longer than any run.
    seconds
        .filter(|seconds| *seconds <= 3600.0)
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("'{text}' is no time: write 20ms, 1.5s or 100us, at most 3600s"))
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.strip_suffix('%').and_then(number).filter(|percent| *percent <= 100.0);
    share.map(|percent| percent / 100.0).ok_or_else(|| format!("'{text}' is no share: write 0% to 100%"))
}

fn bits(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    let units = [("kbit", 1e3), ("Mbit", 1e6), ("Gbit", 1e9)];
    let bits = units.iter().find_map(|(unit, factor)| Some(number(text.strip_suffix(unit)?)? * factor));
    bits.map(|bits| bits as u64).ok_or_else(|| format!("'{text}' is no rate: write 2Mbit, 500kbit, 0 or none"))
}

fn bytes(text: &str) -> Option<usize> {
    let bytes = match text.strip_suffix("kB") {
        Some(kilobytes) => number(kilobytes)? * 1e3,
        None => number(text.strip_suffix('B')?)?,
    };
    Some(bytes as usize)
}

/// Not negative and finite.
fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(text: &str) -> Conditions {
        link(text).unwrap().apply(Conditions::default())
    }

    #[test]
    fn settings_are_read_with_their_units() {
        let all = conditions(
            "both delay=20ms jitter=5ms/unordered loss=1% burst=1%/25%/50% reorder=5%/5ms duplicate=2.5% rate=1.5Mbit \
             queue=64kB outage=on",
        );
        assert_eq!((all.delay, all.jitter, all.unordered), (Duration::from_millis(20), Duration::from_millis(5), true));
        assert_eq!((all.loss, all.duplicate, all.rate), (0.01, 0.025, Some(1_500_000)));
        assert_eq!(all.burst, Some(Burst { enter: 0.01, leave: 0.25, loss: 0.5 }));
        assert_eq!(all.reorder, Some(Reorder { share: 0.05, hold: Duration::from_millis(5) }));
        assert_eq!((all.queue, all.outage), (Queue::Bytes(64_000), true));
        assert_eq!(conditions("queue=250ms rate=0").queue, Queue::Time(Duration::from_millis(250)));
        assert_eq!(link("clear").unwrap().apply(all), Conditions::default());
        assert_eq!(link("rate=none loss=0%").unwrap().apply(all), Conditions { rate: None, loss: 0.0, ..all });
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_word_that_is_wrong() {
        for (text, word) in [
            ("loss=1", "'1'"),
            ("loss=-1%", "'-1%'"),
            ("loss=101%", "'101%'"),
            ("delay=5", "'5'"),
            ("delay=inf s", "'inf'"),
            ("delay=1e9s", "'1e9s'"),
            ("rate=2", "'2'"),
            ("speed=2Mbit", "speed"),
            ("jitter=5ms/sorted", "sorted"),
            ("to-topside", "to-topside"),
            ("down", "'down'"),
            ("outage=2s", "scripts"),
        ] {
            let error = link(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_script_is_a_list_of_steps_in_the_order_of_time() {
        let steps = script("# first\n at 10s both outage=2s\n\nat 500ms to-rov loss=1% # why\n").unwrap();
        let at: Vec<u64> = steps.iter().map(|step| step.at.as_millis() as u64).collect();
        assert_eq!(at, [500, 10_000, 12_000]);
        assert!(steps[0].change.is_to_rov() && !steps[0].change.is_to_topside());
        let outage = |step: &Step| step.change.apply(Conditions::default()).outage;
        assert!(outage(&steps[1]) && !outage(&steps[2]) && steps[2].change.way == Way::Both);
        let error = script("at 1s loss=1%\nin 2s loss=0%").unwrap_err();
        assert!(error.starts_with("line 2"), "{error}");
    }
}
