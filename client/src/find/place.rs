//! Which server answers at an address that the user named: the one of the first session, or another one. Pure.
//!
//! Nothing is announced for such an address, and whoever has it is followed; but never without a word.

use rov_common::api::Stats;

/// What is known of the server that answers there; none: nothing yet.
#[derive(Debug, Default)]
pub struct Place(Option<Known>);

#[derive(Debug)]
struct Known {
    /// None: it has not said it yet.
    id: Option<String>,
    /// None: it proves nothing.
    key: Option<String>,
    /// It said that it has this key for its run alone: by another one it may well be the same.
    is_key_of_run: bool,
    name: String,
}

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
    /// A session stands with a server that proved this key: what that says of who it is. None: its statistics have to.
    pub fn proven(&mut self, address: &str, key: &str) -> Option<Said> {
        // One that says no key, of another make, may have one for each session.
        let known = self.0.as_mut().filter(|known| known.key.is_some())?;
        if known.key.as_deref() == Some(key) {
            return Some(Said::Same);
        }
        if known.is_key_of_run {
            // Its statistics say whether it is another one.
            known.key = Some(key.to_owned());
            return None;
        }
        let news = has_other_key(address, &known.name);
        *known = Known { id: None, key: Some(key.to_owned()), is_key_of_run: false, name: String::new() };
        Some(Said::Other(news))
    }

    /// The statistics that came from there, while a session stands with a server that proved `key`, if it did.
    pub fn told(&mut self, address: &str, key: Option<&str>, stats: &Stats) -> Said {
        let said = stats.key.as_deref();
        // Of another make; or of a session that ends.
        if stats.id.is_empty() || self.is_left(key) {
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
            name: stats.name.clone(),
        };
        let Some(Known { id: Some(id), key, is_key_of_run, name }) = self.0.replace(now) else { return Said::Same };
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
        let now = self.0.as_ref().and_then(|known| known.key.as_deref());
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

    /// Nemo, known by its first session.
    fn nemo() -> Place {
        let mut place = Place::default();
        assert_eq!(place.proven(HERE, "a"), None, "the first");
        assert_eq!(place.told(HERE, Some("a"), &stats("1", "a", "Nemo")), Said::Same);
        assert_eq!(place.proven(HERE, "a"), Some(Said::Same));
        assert_eq!(place.told(HERE, Some("a"), &stats("1", "a", "Nemo")), Said::Same);
        place
    }

    fn other(said: Option<Said>) -> String {
        match said {
            Some(Said::Other(news)) => news,
            said => panic!("{said:?}"),
        }
    }

    #[test]
    fn another_server_at_the_address_is_said_once() {
        let mut place = nemo();
        let news = other(place.proven(HERE, "b"));
        assert_eq!(news, "another server answers at 192.168.2.2:8080, or Nemo with a new key");
        assert_eq!((place.proven(HERE, "b"), place.is_left(Some("b"))), (Some(Said::Same), false));
        assert_eq!(place.told(HERE, Some("b"), &stats("2", "b", "Dory")), Said::Same, "it was said");
        // Back again.
        assert!(other(place.proven(HERE, "a")).contains("or Dory with a new key"));
    }

    #[test]
    fn what_proves_nothing_is_told_by_its_statistics() {
        let news = other(Some(nemo().told(HERE, None, &stats("2", "b", "Dory"))));
        assert_eq!(news, "Dory answers at 192.168.2.2:8080, not Nemo as before");
        // As of two machines with copies of one image, whose ids and names are the same.
        let news = other(Some(nemo().told(HERE, None, &stats("1", "b", "Nemo"))));
        assert_eq!(news, "another server answers at 192.168.2.2:8080, or Nemo with a new key");
        let news = other(Some(nemo().told(HERE, None, &stats("2", "b", "Nemo"))));
        assert_eq!(news, "another server answers at 192.168.2.2:8080, not Nemo as before, of the same name");
        let news = other(Some(nemo().told(HERE, Some("a"), &stats("3", "a", "Nemo 2"))));
        assert_eq!(news, "Nemo 2 answers at 192.168.2.2:8080, not Nemo as before");
    }

    #[test]
    fn what_another_one_says_while_the_video_is_proven_is_not_taken_for_its_own() {
        let mut place = nemo();
        let Said::Aside(warning) = place.told(HERE, Some("a"), &stats("2", "b", "Dory")) else { panic!("{place:?}") };
        assert_eq!(warning, "two servers have the address 192.168.2.2:8080: Dory answers there, too");
        assert_eq!(place.told(HERE, Some("a"), &stats("1", "a", "Nemo")), Said::Same, "nothing was learnt of it");
    }

    #[test]
    fn sessions_with_the_one_before_end() {
        let mut place = nemo();
        assert!(!place.is_left(Some("a")));
        place.proven(HERE, "b");
        assert!(place.is_left(Some("a")) && !place.is_left(None));
        assert_eq!(place.told(HERE, Some("a"), &stats("1", "a", "Nemo")), Said::Same);
        assert!(place.is_left(Some("a")), "what that one says does not bring it back");
    }

    #[test]
    fn one_that_has_a_new_key_in_each_run_is_the_same_by_its_id() {
        let of_run = |id, key, name| Stats { key_is_of_this_run: true, ..stats(id, key, name) };
        for proves in [true, false] {
            let mut place = Place::default();
            for key in ["a", "b", "c"] {
                let proven = Some(key).filter(|_| proves);
                assert_eq!(proven.and_then(|key| place.proven(HERE, key)), None);
                assert!(!place.is_left(proven));
                assert_eq!(place.told(HERE, proven, &of_run("1", key, "Nemo")), Said::Same);
            }
            assert!(place.is_left(Some("a")), "sessions with the run before end");
            let proven = Some("d").filter(|_| proves);
            assert_eq!(proven.and_then(|key| place.proven(HERE, key)), None);
            let Said::Other(news) = place.told(HERE, proven, &of_run("2", "d", "Dory")) else { panic!("{place:?}") };
            assert_eq!(news, "Dory answers at 192.168.2.2:8080, not Nemo as before");
        }
    }

    #[test]
    fn servers_of_another_make_may_have_another_key_for_each_session() {
        let mut place = Place::default();
        for key in ["a", "b", "c"] {
            assert_eq!(place.proven(HERE, key), None);
            assert_eq!(place.told(HERE, Some(key), &stats("1", "", "Old")), Said::Same);
            assert!(!place.is_left(Some("a")));
        }
        assert_eq!(Place::default().told(HERE, Some("a"), &stats("", "", "")), Said::Same);
    }
}
