//! One search for all streams that are watched: all of them come from one server, which one of them finds for the
//! others.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, watch};

use super::{Finder, Knowledge, Located};
use crate::heard::Heard;
use crate::receive::Transport;
use crate::target::{SessionConfig, SessionError};
use crate::viewer::Viewer;

/// Which server is watched.
pub struct Guide {
    finder: AsyncMutex<Finder>,
    knowledge: Knowledge,
    /// How many want the finder to search; whoever only listens leaves it to them.
    searching: watch::Sender<usize>,
    watched: watch::Sender<Watched>,
}

/// The server that a session connected to last.
#[derive(Clone, Default)]
struct Watched {
    server: Option<Located>,
    /// Sessions with it that stand.
    standing: usize,
    /// Counts the servers.
    turn: u64,
    /// How often the pilot left one for another.
    given_up: u64,
}

impl Guide {
    pub fn new(config: &SessionConfig) -> Result<Arc<Self>, SessionError> {
        let finder = Finder::new(config)?;
        let knowledge = finder.knowledge();
        let (searching, watched) = (watch::Sender::new(0), watch::Sender::default());
        Ok(Arc::new(Self { finder: AsyncMutex::new(finder), knowledge, searching, watched }))
    }

    pub fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    fn heard(&self) -> &Mutex<Heard> {
        &self.knowledge.heard
    }

    /// The server, and of it the stream that `config` names: the server that another stream comes from, where there is
    /// one.
    pub async fn find(&self, config: &SessionConfig, viewer: &Viewer) -> Result<Located, SessionError> {
        let server = match self.standing() {
            Some(server) => server,
            None => self.search(config, viewer).await?,
        };
        let Some(wanted) = &config.stream else { return Ok(server.carried()) };
        let found = server.clone();
        let selected = server.select(wanted, config).await.inspect_err(|_| self.failed(&found, Duration::ZERO))?;
        Ok(selected.carried())
    }

    fn standing(&self) -> Option<Located> {
        let watched = self.watched.borrow();
        let server = watched.server.clone().filter(|_| watched.standing > 0)?;
        let is_by_any = self.knowledge.wish.transport.is_none();
        Some(if is_by_any { server.with_proved_ways(self.heard()) } else { server })
    }

    async fn search(&self, config: &SessionConfig, viewer: &Viewer) -> Result<Located, SessionError> {
        let _searching = Searching::begin(&self.searching);
        let mut finder = self.finder.lock().await;
        // Another one has found it meanwhile, and connected.
        match self.standing() {
            Some(server) => Ok(server),
            None => finder.find_server(config, viewer).await,
        }
    }

    /// Listens to the servers while one is watched; never ends.
    pub async fn listen(&self) {
        let mut searching = self.searching.subscribe();
        loop {
            // The sender is a part of this.
            let _ = searching.wait_for(|number| *number == 0).await;
            let mut finder = self.finder.lock().await;
            tokio::select! {
                () = finder.listen() => {}
                _ = searching.wait_for(|number| *number > 0) => {}
            }
        }
    }

    /// How often the pilot left a server for another so far.
    pub fn given_up(&self) -> u64 {
        self.watched.borrow().given_up
    }

    /// The pilot leaves the server for another: all streams do.
    pub fn give_up(&self) {
        self.watched.send_modify(|watched| {
            watched.turn += 1;
            watched.given_up += 1;
            watched.standing = 0;
        });
    }

    /// Waits until another stream comes from another server than this, or the pilot leaves it: two vehicles shall never
    /// be on one screen. `given_up_before`: what [`Self::given_up`] was.
    pub async fn left(&self, server: &Located, given_up_before: u64) {
        let mut watched = self.watched.subscribe();
        let is_over = |watched: &Watched| {
            let is_other = watched.server.as_ref().is_some_and(|other| !other.is_at_place_of(server));
            watched.given_up != given_up_before || (watched.standing > 0 && is_other)
        };
        let _ = watched.wait_for(is_over).await;
    }

    /// A session stands with the server, by this transport, until what is returned is dropped.
    pub fn stands(self: &Arc<Self>, server: &Located, by: Transport) -> Standing {
        server.mark_watched(self.heard(), by);
        let mut turn = 0;
        self.watched.send_modify(|watched| {
            if !watched.server.as_ref().is_some_and(|other| other.is_at_place_of(server)) {
                *watched = Watched { standing: 0, turn: watched.turn + 1, ..watched.clone() };
            }
            // As it was found last.
            watched.server = Some(server.whole());
            watched.standing += 1;
            turn = watched.turn;
        });
        Standing { guide: Arc::clone(self), turn }
    }

    /// Whether ever a session stood.
    pub fn has_stood(&self) -> bool {
        self.watched.borrow().turn > 0
    }

    /// No session came about, after so long, and none stands.
    pub fn failed(&self, server: &Located, waited: Duration) {
        if self.standing().is_none() {
            server.mark_failed(self.heard(), waited);
        }
    }
}

/// A search that waits or goes on.
struct Searching<'a>(&'a watch::Sender<usize>);

impl<'a> Searching<'a> {
    fn begin(number: &'a watch::Sender<usize>) -> Self {
        number.send_modify(|number| *number += 1);
        Self(number)
    }
}

impl Drop for Searching<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|number| *number -= 1);
    }
}

/// A session that stands.
pub struct Standing {
    guide: Arc<Guide>,
    turn: u64,
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.guide.watched.send_modify(|watched| {
            if watched.turn == self.turn {
                watched.standing -= 1;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use url::Url;

    use super::*;
    use crate::cli::Cli;
    use crate::receive::Way;

    fn server(address: &str) -> Located {
        let url = Url::parse(&format!("http://{address}/whep")).unwrap();
        Located::named(Way::WebRtc(url), address.to_owned(), None)
    }

    async fn is_left(guide: &Guide, server: &Located, given_up_before: u64) -> bool {
        tokio::time::timeout(Duration::from_millis(20), guide.left(server, given_up_before)).await.is_ok()
    }

    #[tokio::test]
    async fn all_streams_come_from_one_server() {
        let config = Cli::try_parse_from(["rov-client", "--url", "http://10.0.0.2/whep"]).unwrap().session().unwrap();
        let guide = Guide::new(&config).unwrap();
        let (nemo, dory) = (server("10.0.0.2"), server("10.0.0.3"));
        assert!(!guide.has_stood() && !is_left(&guide, &nemo, 0).await, "none is watched yet");
        let first = guide.stands(&nemo, Transport::WebRtc);
        let second = guide.stands(&nemo, Transport::WebRtc);
        assert_eq!(guide.find(&config, &Viewer::new()).await.unwrap().address, nemo.address);
        assert!(!is_left(&guide, &nemo, 0).await && is_left(&guide, &dory, 0).await);
        drop(first);
        assert!(is_left(&guide, &dory, 0).await, "one still stands");
        drop(second);
        assert!(!is_left(&guide, &dory, 0).await, "whoever is lost keeps nobody from another");
        let other = guide.stands(&dory, Transport::WebRtc);
        assert!(is_left(&guide, &nemo, 0).await);
        guide.give_up();
        assert!(is_left(&guide, &dory, 0).await && !is_left(&guide, &dory, guide.given_up()).await);
        drop(other);
        let _again = guide.stands(&nemo, Transport::WebRtc);
        assert!(guide.standing().is_some(), "the end of an earlier session counts for that server alone");
    }

    #[test]
    fn each_session_that_ends_is_counted_for_the_server_it_stood_with() {
        let config = Cli::try_parse_from(["rov-client", "--url", "http://10.0.0.2/whep"]).unwrap().session().unwrap();
        let guide = Guide::new(&config).unwrap();
        std::thread::scope(|scope| {
            for address in ["10.0.0.2", "10.0.0.3", "10.0.0.4"] {
                let guide = &guide;
                scope.spawn(move || (0..3000).for_each(|_| drop(guide.stands(&server(address), Transport::WebRtc))));
            }
        });
        assert!(guide.standing().is_none());
    }
}
