//! The answers to a request, which are found one by one, in any order, and passed on when all are there.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::{encoder::tokenizer::CUT_INTO_WINDOWS, error::Error, extraction::embedder::TOKENISE};

/// Why a text has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// The text cannot be encoded. The message contains the beginning of the text.
    Input(String),
    /// The text takes too many windows. The message contains the beginning of the text.
    TooLong(String),
    /// The model failed. The message may contain the beginning of the text.
    Model(String),
    /// The server stopped before it came to this text.
    Stopped,
}

impl AnswerError {
    pub(super) fn of(error: &Error) -> AnswerError {
        match error {
            Error::Encoder { action, reason } if *action == TOKENISE => {
                AnswerError::Input(reason.clone())
            }
            Error::Encoder { action, reason } if *action == CUT_INTO_WINDOWS => {
                AnswerError::TooLong(reason.clone())
            }
            _ => AnswerError::Model(error.to_string()),
        }
    }
}

/// The answers to the texts of a request, in their order.
pub type Answers<T> = Vec<Result<T, AnswerError>>;

/// What is done with the answers when all of them are there.
type OnDone<T> = Box<dyn FnOnce(Answers<T>) + Send>;

/// A request that waits for its answers. When it is dropped, nobody wants them any more, and what was not begun is left
/// undone.
#[derive(Debug)]
pub struct Ticket {
    is_abandoned: Arc<AtomicBool>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }
}

/// The place of one answer among those to a request. If it is dropped without an answer, that is
/// [`AnswerError::Stopped`].
pub(super) struct AnswerSlot<T> {
    collected: Arc<CollectedAnswers<T>>,
    place: usize,
    is_filled: bool,
}

struct CollectedAnswers<T> {
    answers: Mutex<UnfinishedAnswers<T>>,
    is_abandoned: Arc<AtomicBool>,
}

struct UnfinishedAnswers<T> {
    found: Vec<Option<Result<T, AnswerError>>>,
    n_missing: usize,
    on_done: Option<OnDone<T>>,
}

/// Returns the ticket of a request with `n` texts, and the places of their answers; `on_done` is called with all of
/// them.
pub(super) fn places<T>(
    n: usize,
    on_done: impl FnOnce(Answers<T>) + Send + 'static,
) -> (Ticket, Vec<AnswerSlot<T>>) {
    let is_abandoned = Arc::new(AtomicBool::new(false));
    let collected = Arc::new(CollectedAnswers {
        answers: Mutex::new(UnfinishedAnswers {
            found: (0..n).map(|_| None).collect(),
            n_missing: n,
            on_done: Some(Box::new(on_done)),
        }),
        is_abandoned: Arc::clone(&is_abandoned),
    });
    let place = |place| AnswerSlot { collected: Arc::clone(&collected), place, is_filled: false };
    (Ticket { is_abandoned }, (0..n).map(place).collect())
}

impl<T> AnswerSlot<T> {
    /// Whether somebody still waits for the answer.
    pub(super) fn is_awaited(&self) -> bool {
        !self.collected.is_abandoned.load(Ordering::Relaxed)
    }

    pub(super) fn fill(mut self, answer: Result<T, AnswerError>) {
        self.put(answer);
    }

    fn put(&mut self, answer: Result<T, AnswerError>) {
        self.is_filled = true;
        let mut answers = self.collected.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.found[self.place] = Some(answer);
        answers.n_missing -= 1;
        if answers.n_missing > 0 {
            return;
        }
        let found = std::mem::take(&mut answers.found);
        let on_done = answers.on_done.take();
        drop(answers);
        let found = found.into_iter().map(|answer| answer.unwrap_or(Err(AnswerError::Stopped)));
        if let Some(on_done) = on_done {
            on_done(found.collect());
        }
    }
}

impl<T> Drop for AnswerSlot<T> {
    fn drop(&mut self) {
        if !self.is_filled {
            self.put(Err(AnswerError::Stopped));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn answers_are_passed_on_in_order_when_the_last_is_there() {
        let (sender, answers) = mpsc::channel();
        let (_ticket, mut places) =
            places(3, move |found: Answers<u8>| sender.send(found).unwrap());
        places.pop().unwrap().fill(Ok(3));
        places.remove(0).fill(Err(AnswerError::Input("`` has no token".into())));
        assert!(answers.try_recv().is_err(), "one is missing");
        assert!(places[0].is_awaited());
        places.remove(0).fill(Ok(2));
        let refused = Err(AnswerError::Input("`` has no token".into()));
        assert_eq!(answers.try_recv().unwrap(), [refused, Ok(2), Ok(3)]);
    }

    #[test]
    fn places_that_are_dropped_are_answered_and_dropped_tickets_are_noticed() {
        let (sender, answers) = mpsc::channel();
        let (ticket, mut places) = places(2, move |found: Answers<u8>| sender.send(found).unwrap());
        places.pop().unwrap().fill(Ok(2));
        assert!(places[0].is_awaited());
        drop(ticket);
        assert!(!places[0].is_awaited());
        drop(places);
        assert_eq!(answers.try_recv().unwrap(), [Err(AnswerError::Stopped), Ok(2)]);
    }

    #[test]
    fn texts_without_a_token_or_of_many_windows_are_at_fault_and_else_the_model_is() {
        let reason = "`x` has no token".to_string();
        let of = |action| AnswerError::of(&Error::Encoder { action, reason: reason.clone() });
        assert_eq!(of(TOKENISE), AnswerError::Input(reason.clone()));
        assert_eq!(of(CUT_INTO_WINDOWS), AnswerError::TooLong(reason.clone()));
        assert!(matches!(of("run the model"), AnswerError::Model(_)));
    }
}
