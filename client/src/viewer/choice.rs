//! The pilot's choice among servers: the session asks, the window shows the question and gives the answer.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Between two questions in the log, whoever comes and goes.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// A server that can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Name, address and what is odd about it, on one line: `Nemo  10.0.0.2:8080`.
    pub label: String,
    /// Host and port of its HTTP API.
    pub address: String,
    /// Its id in discovery.
    pub id: String,
    /// What its announcement says of its key; it is proven when the session connects.
    pub key: Option<String>,
}

impl Offer {
    /// Whatever it calls itself now.
    pub fn is_same_server(&self, other: &Self) -> bool {
        (&self.address, &self.id, &self.key) == (&other.address, &other.id, &other.key)
    }
}

/// What the pilot is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// One sentence, without a full stop: what happened.
    pub text: String,
    /// At least one.
    pub offers: Vec<Offer>,
    /// When the session takes the first by itself; none: never.
    pub takes_first_at: Option<Instant>,
}

/// Whether the same servers are offered, whatever they call themselves now.
pub fn is_same_offer(these: &[Offer], those: &[Offer]) -> bool {
    these.len() == those.len() && these.iter().zip(those).all(|(this, that)| this.is_same_server(that))
}

impl Question {
    /// The place of the offer that was selected; the first, where none was or it is gone.
    pub fn place_of(&self, selected: Option<&Offer>) -> usize {
        let is_it = |offer: &Offer| selected.is_some_and(|selected| selected.is_same_server(offer));
        self.offers.iter().position(is_it).unwrap_or(0)
    }
}

/// One question at a time, and its answer.
#[derive(Debug, Default)]
pub struct Choice {
    state: Mutex<State>,
    answered: Notify,
}

#[derive(Debug, Default)]
struct State {
    question: Option<Question>,
    /// How many ask it.
    askers: usize,
    answer: Option<Offer>,
    /// The question that was logged last, and when.
    logged: Option<(Question, Instant)>,
}

/// Who asks by a choice that several share: the question ends when none of them asks any more.
#[derive(Debug)]
pub struct Asker {
    choice: Arc<Choice>,
    asks: AtomicBool,
}

impl Asker {
    pub fn of(choice: Arc<Choice>) -> Self {
        Self { choice, asks: AtomicBool::new(false) }
    }

    /// Asks. Logged when it is another question than before, with `how` it is answered.
    pub fn ask(&self, question: Question, how: &str) {
        let mut state = self.choice.lock();
        // Changed under the lock alone.
        state.askers += usize::from(!self.asks.swap(true, Ordering::Relaxed));
        let now = Instant::now();
        let is_said = |(before, at): &(Question, Instant)| {
            let is_same = before.text == question.text && is_same_offer(&before.offers, &question.offers);
            is_same || now.saturating_duration_since(*at) < LOG_INTERVAL
        };
        if !state.logged.as_ref().is_some_and(is_said) {
            let offers = question.offers.iter().map(|offer| format!("\n  {}", offer.label)).collect::<String>();
            let taken = match question.takes_first_at {
                Some(at) => format!(" (taken in {:.0} s)", at.saturating_duration_since(now).as_secs_f64()),
                None => String::new(),
            };
            tracing::warn!("{}{taken}; {how}:{offers}", question.text);
            state.logged = Some((question.clone(), now));
        }
        state.question = Some(question);
    }

    /// Takes the question back, where this one asked it.
    pub fn withdraw(&self) {
        let mut state = self.choice.lock();
        if self.asks.swap(false, Ordering::Relaxed) {
            state.askers -= 1;
            if state.askers == 0 {
                (state.question, state.answer) = (None, None);
            }
        }
    }
}

impl Deref for Asker {
    type Target = Choice;

    fn deref(&self) -> &Choice {
        &self.choice
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.withdraw();
    }
}

impl Choice {
    /// What is asked now, to be shown.
    pub fn question(&self) -> Option<Question> {
        self.lock().question.clone()
    }

    /// The pilot chose this one of the offers. The offer rather than its place: the list may have changed since it was
    /// drawn.
    pub fn choose(&self, offer: Offer) {
        let mut state = self.lock();
        if state.question.is_some() {
            state.answer = Some(offer);
            self.answered.notify_one();
        }
    }

    /// Waits for the answer, which ends the question. Safe to cancel.
    pub async fn chosen(&self) -> Offer {
        loop {
            let answered = self.answered.notified();
            {
                let mut state = self.lock();
                if let Some(offer) = state.answer.take() {
                    state.question = None;
                    return offer;
                }
            }
            answered.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(address: &str) -> Offer {
        Offer { label: format!("rov  {address}"), address: address.to_owned(), id: "7".to_owned(), key: None }
    }

    #[tokio::test]
    async fn an_answer_ends_the_question_and_one_to_no_question_is_none() {
        let choice = Asker::of(Arc::default());
        choice.choose(offer("a"));
        let offers = vec![offer("a"), offer("b")];
        choice.ask(Question { text: "two".to_owned(), offers, takes_first_at: None }, "choose");
        assert_eq!(choice.question().map(|question| question.offers.len()), Some(2));
        let (chosen, ()) = tokio::join!(choice.chosen(), async { choice.choose(offer("b")) });
        assert_eq!(chosen.address, "b");
        assert_eq!(choice.question(), None);
    }

    #[test]
    fn of_two_servers_with_one_id_at_one_address_the_selected_one_has_its_key() {
        let keyed = |key: &str| Offer { key: Some(key.to_owned()), ..offer("a") };
        let offers = vec![keyed("forged"), keyed("real"), offer("a")];
        let question = Question { text: String::new(), offers, takes_first_at: None };
        let renamed = Offer { label: "Nemo  a".to_owned(), ..keyed("real") };
        assert_eq!(question.place_of(Some(&renamed)), 1);
        assert_eq!(question.place_of(Some(&offer("a"))), 2);
        assert_eq!([question.place_of(None), question.place_of(Some(&keyed("gone")))], [0, 0]);
    }

    #[tokio::test]
    async fn a_question_that_is_taken_back_has_no_answer() {
        let choice = Asker::of(Arc::default());
        let question = Question { text: String::new(), offers: vec![offer("a")], takes_first_at: None };
        let ask = || choice.ask(question.clone(), "choose");
        ask();
        choice.choose(offer("a"));
        choice.withdraw();
        ask();
        let waited = tokio::time::timeout(std::time::Duration::from_millis(20), choice.chosen()).await;
        assert!(waited.is_err(), "{waited:?}");
    }

    #[test]
    fn the_answer_stays_while_one_of_several_asks() {
        let choice = Arc::<Choice>::default();
        let [bow, arm, closed] = [(); 3].map(|()| Asker::of(Arc::clone(&choice)));
        let question = Question { text: String::new(), offers: vec![offer("a")], takes_first_at: None };
        for asker in [&bow, &arm, &arm] {
            asker.ask(question.clone(), "choose");
        }
        choice.choose(offer("a"));
        closed.withdraw();
        drop(bow);
        assert_eq!(choice.lock().answer, Some(offer("a")));
        arm.withdraw();
        assert_eq!((choice.question(), choice.lock().answer.clone()), (None, None));
    }
}
