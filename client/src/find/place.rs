//! Which server answers at an address that the user named: the one of the first session, or another one. Pure.
//!
//! Nothing is announced for such an address, and whoever has it is followed; but never without a word.

use rov_common::api::Stats;

/// What is known of the server that answers there. One for all streams.
#[derive(Debug, Default)]
pub struct Place {
    /// None: nothing yet.
    known: Option<Known>,
    /// How many others came there, and what was said of the last.
    others: u64,
    news: String,
}

#[derive(Debug)]
struct Known {
    /// None: it has not said it yet.
    id: Option<String>,
    /// None: it proves nothing.
    key: Option<String>,
    /// It said that it has its key for one run alone: by another one it may well be the same.
    is_key_of_run: bool,
    /// The key is of a later run than what it said last.
    is_key_new: bool,
    name: String,
}

/// Of how many others one stream was told; none: it has had no session yet.
#[derive(Debug, Default)]
pub struct Seen(Option<u64>);

/// Whose proof or statistics they are.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// Of the server whose video is watched, as before.
    Same,
    /// Of that too, and it is another one than before: what the pilot has to know.
    Other(String),
    /// Of another one than that whose video is watched: the same.
    Aside(String),
}

impl Place {
    /// A session stands with a server that proved this key, if it did: what that says of who it is. None: its
    /// statistics have to.
    pub fn proven(&mut self, address: &str, key: Option<&str>, seen: &mut Seen) -> Option<Said> {
        let said = key.and_then(|key| self.by_key(address, key));
        self.for_stream(said, seen)
    }

    /// The statistics that came from there, while a session stands with a server that proved `key`, if it did. None:
    /// that session ends.
    pub fn told(&mut self, address: &str, key: Option<&str>, stats: &Stats, seen: &mut Seen) -> Option<Said> {
        if self.is_left(key) {
            return None;
        }
        let said = self.by_statistics(address, key, stats);
        self.for_stream(Some(said), seen)
    }

    /// What the stream is told that has been told so much: of each other server, whichever stream met it first.
    fn for_stream(&mut self, said: Option<Said>, seen: &mut Seen) -> Option<Said> {
        match &said {
            Some(Said::Aside(_)) => return said,
            Some(Said::Other(news)) => {
                self.others += 1;
                self.news.clone_from(news);
            }
            Some(Said::Same) | None => {}
        }
        let before = seen.0.replace(self.others);
        let has_missed = before.is_some_and(|before| before != self.others);
        if has_missed { Some(Said::Other(self.news.clone())) } else { said }
    }

    fn by_key(&mut self, address: &str, key: &str) -> Option<Said> {
        // One that says no key, of another make, may have one for each session.
        let known = self.known.as_mut().filter(|known| known.key.is_some())?;
        if known.key.as_deref() == Some(key) {
            return (!known.is_key_new).then_some(Said::Same);
        }
        if known.is_key_of_run {
            // Its statistics say whether it is another one.
            (known.key, known.is_key_new) = (Some(key.to_owned()), true);
            return None;
        }
        let news = has_other_key(address, &known.name);
        *known =
            Known { id: None, key: Some(key.to_owned()), is_key_of_run: false, is_key_new: false, name: String::new() };
        Some(Said::Other(news))
    }

    fn by_statistics(&mut self, address: &str, key: Option<&str>, stats: &Stats) -> Said {
        let said = stats.key.as_deref();
        // Of another make.
        if stats.id.is_empty() {
            return Said::Same;
        }
        if key.zip(said).is_some_and(|(proven, said)| proven != said) {
            let name = called(&stats.name);
            return Said::Aside(format!("two servers have the address {address}: {name} answers there, too"));
        }
        let now = Known {
            id: Some(stats.id.clone()),
            key: said.map(str::to_owned),
            is_key_of_run: stats.key_is_of_this_run,
            is_key_new: false,
            name: stats.name.clone(),
        };
        let Some(Known { id: Some(id), key, is_key_of_run, name, .. }) = self.known.replace(now) else {
            return Said::Same;
        };
        if id == stats.id {
            let is_other = !is_key_of_run && key.as_deref().zip(said).is_some_and(|(before, now)| before != now);
            return if is_other { Said::Other(has_other_key(address, &name)) } else { Said::Same };
        }
        let is_namesake = name == stats.name;
        let who = if is_namesake { "another server" } else { called(&stats.name) };
        let of_name = if is_namesake { ", of the same name" } else { "" };
        Said::Other(format!("{who} answers at {address}, not {} as before{of_name}", called(&name)))
    }

    /// Whether another server than the one that proved this key is watched by now: two vehicles shall never be on one
    /// screen.
    pub fn is_left(&self, key: Option<&str>) -> bool {
        let now = self.known.as_ref().and_then(|known| known.key.as_deref());
        now.zip(key).is_some_and(|(now, key)| now != key)
    }
}

/// It proves that it is another one, or that it has lost the key of before.
fn has_other_key(address: &str, before: &str) -> String {
    format!("another server answers at {address}, or {} with a new key", called(before))
}

/// The name, for people.
fn called(name: &str) -> &str {
    if name.is_empty() { "a server without a name" } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "192.168.2.2:8080";

    fn stats(id: &str, key: &str, name: &str) -> Stats {
        let key = Some(key.to_owned()).filter(|key| !key.is_empty());
        Stats { id: id.to_owned(), key, name: name.to_owned(), ..Stats::default() }
    }

    /// The place, as the only stream sees it.
    #[derive(Debug, Default)]
    struct Only(Place, Seen);

    impl Only {
        fn proven(&mut self, key: &str) -> Option<Said> {
            self.0.proven(HERE, Some(key), &mut self.1)
        }

        fn told(&mut self, key: Option<&str>, stats: &Stats) -> Option<Said> {
            self.0.told(HERE, key, stats, &mut self.1)
        }
    }

    /// Nemo, known by its first session.
    fn nemo() -> Only {
        let mut place = Only::default();
        assert_eq!(place.proven("a"), None, "the first");
        assert_eq!(place.told(Some("a"), &stats("1", "a", "Nemo")), Some(Said::Same));
        assert_eq!(place.proven("a"), Some(Said::Same));
        assert_eq!(place.told(Some("a"), &stats("1", "a", "Nemo")), Some(Said::Same));
        place
    }

    fn other(said: Option<Said>) -> String {
        match said {
            Some(Said::Other(news)) => news,
            said => panic!("{said:?}"),
        }
    }

    fn of_run(id: &str, key: &str, name: &str) -> Stats {
        Stats { key_is_of_this_run: true, ..stats(id, key, name) }
    }

    #[test]
    fn another_server_at_the_address_is_said_once() {
        let mut place = nemo();
        let news = other(place.proven("b"));
        assert_eq!(news, "another server answers at 192.168.2.2:8080, or Nemo with a new key");
        assert_eq!((place.proven("b"), place.0.is_left(Some("b"))), (Some(Said::Same), false));
        assert_eq!(place.told(Some("b"), &stats("2", "b", "Dory")), Some(Said::Same), "it was said");
        // Back again.
        assert!(other(place.proven("a")).contains("or Dory with a new key"));
    }

    #[test]
    fn another_server_is_said_once_to_each_stream_whichever_met_it() {
        let dory = stats("2", "b", "Dory");
        for by_key in [true, false] {
            let Only(mut place, mut first) = nemo();
            let mut second = Seen::default();
            assert_eq!(place.proven(HERE, Some("a"), &mut second), Some(Said::Same));
            let key = Some("b").filter(|_| by_key);
            let met =
                if by_key { place.proven(HERE, key, &mut first) } else { place.told(HERE, key, &dory, &mut first) };
            let news = other(met);
            // One without a session so far takes nobody for Nemo.
            let mut third = Seen::default();
            assert_ne!(place.proven(HERE, key, &mut third), Some(Said::Other(news.clone())));
            // What another machine says, or one of the former that still stands, is not taken for it.
            let aside = place.told(HERE, Some("b"), &stats("3", "c", "Marlin"), &mut second);
            assert!(matches!(aside, Some(Said::Aside(_))), "{aside:?}");
            assert_eq!(place.told(HERE, Some("a"), &dory, &mut second), None);
            assert_eq!(place.proven(HERE, key, &mut second), Some(Said::Other(news)));
            for seen in [&mut first, &mut second, &mut third] {
                assert_eq!(place.told(HERE, key, &dory, seen), Some(Said::Same));
                assert_eq!(place.proven(HERE, Some("b"), seen), Some(Said::Same));
            }
        }
    }

    #[test]
    fn a_key_of_one_run_says_nothing_before_the_statistics_of_its_run() {
        let mut place = Only::default();
        assert_eq!(place.proven("a"), None);
        assert_eq!(place.told(Some("a"), &of_run("1", "a", "Nemo")), Some(Said::Same));
        // Sessions that ended before.
        assert_eq!([place.proven("b"), place.proven("b")], [None, None]);
        let (dory, mut second) = (of_run("2", "b", "Dory"), Seen::default());
        assert_eq!(place.0.proven(HERE, Some("b"), &mut second), None);
        let news = other(place.told(Some("b"), &dory));
        assert_eq!(news, "Dory answers at 192.168.2.2:8080, not Nemo as before");
        assert_eq!(place.0.told(HERE, Some("b"), &dory, &mut second), Some(Said::Other(news)));
        assert_eq!(place.proven("b"), Some(Said::Same));
    }

    #[test]
    fn what_proves_nothing_is_told_by_its_statistics() {
        let news = other(nemo().told(None, &stats("2", "b", "Dory")));
        assert_eq!(news, "Dory answers at 192.168.2.2:8080, not Nemo as before");
        // As of two machines with copies of one image, whose ids and names are the same.
        let news = other(nemo().told(None, &stats("1", "b", "Nemo")));
        assert_eq!(news, "another server answers at 192.168.2.2:8080, or Nemo with a new key");
        let news = other(nemo().told(None, &stats("2", "b", "Nemo")));
        assert_eq!(news, "another server answers at 192.168.2.2:8080, not Nemo as before, of the same name");
        let news = other(nemo().told(Some("a"), &stats("3", "a", "Nemo 2")));
        assert_eq!(news, "Nemo 2 answers at 192.168.2.2:8080, not Nemo as before");
    }

    #[test]
    fn what_another_one_says_while_the_video_is_proven_is_not_taken_for_its_own() {
        let mut place = nemo();
        let aside = place.told(Some("a"), &stats("2", "b", "Dory"));
        let warning = "two servers have the address 192.168.2.2:8080: Dory answers there, too";
        assert_eq!(aside, Some(Said::Aside(warning.to_owned())));
        assert_eq!(place.told(Some("a"), &stats("1", "a", "Nemo")), Some(Said::Same), "nothing was learnt of it");
    }

    #[test]
    fn sessions_with_the_one_before_end() {
        let mut place = nemo();
        assert!(!place.0.is_left(Some("a")));
        place.proven("b");
        assert!(place.0.is_left(Some("a")) && !place.0.is_left(None));
        assert_eq!(place.told(Some("a"), &stats("1", "a", "Nemo")), None);
        assert!(place.0.is_left(Some("a")), "what that one says does not bring it back");
    }

    #[test]
    fn one_that_has_a_new_key_in_each_run_is_the_same_by_its_id() {
        for proves in [true, false] {
            let mut place = Only::default();
            for key in ["a", "b", "c"] {
                let proven = Some(key).filter(|_| proves);
                assert_eq!(proven.and_then(|key| place.proven(key)), None);
                assert!(!place.0.is_left(proven));
                assert_eq!(place.told(proven, &of_run("1", key, "Nemo")), Some(Said::Same));
            }
            assert!(place.0.is_left(Some("a")), "sessions with the run before end");
            let proven = Some("d").filter(|_| proves);
            assert_eq!(proven.and_then(|key| place.proven(key)), None);
            let news = other(place.told(proven, &of_run("2", "d", "Dory")));
            assert_eq!(news, "Dory answers at 192.168.2.2:8080, not Nemo as before");
        }
    }

    #[test]
    fn servers_of_another_make_may_have_another_key_for_each_session() {
        let mut place = Only::default();
        for key in ["a", "b", "c"] {
            assert_eq!(place.proven(key), None);
            assert_eq!(place.told(Some(key), &stats("1", "", "Old")), Some(Said::Same));
            assert!(!place.0.is_left(Some("a")));
        }
        assert_eq!(Only::default().told(Some("a"), &stats("", "", "")), Some(Said::Same));
    }
}
