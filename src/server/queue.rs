//! A bounded queue from which several jobs are taken at a time.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// How much may wait in a queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Number of jobs.
    pub jobs: usize,
    /// Their size in bytes, all together.
    pub bytes: usize,
}

/// Why jobs were not taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room for them now.
    Full,
    /// They will never be taken: the queue was closed.
    Closed,
}

/// A queue of jobs, each with its size in bytes. The jobs of a request are taken on together or not at all, and are
/// taken out as many at a time as the taker wants.
///
/// ```
/// use frostbert::internals::server::queue::{BatchQueue, QueueLimits, Refusal};
///
/// let queue = BatchQueue::new(QueueLimits { jobs: 3, bytes: 100 });
/// queue.push_all(vec![("a", 1), ("b", 1)]).unwrap();
/// assert_eq!(queue.push_all(vec![("c", 1), ("d", 1)]), Err(Refusal::Full));
/// assert_eq!(queue.take(10, 100), Some(vec!["a", "b"]));
/// queue.close();
/// assert_eq!(queue.take(10, 100), None);
/// ```
pub struct BatchQueue<J> {
    limits: QueueLimits,
    waiting: Mutex<WaitingJobs<J>>,
    changed: Condvar,
}

struct WaitingJobs<J> {
    jobs: VecDeque<(J, usize)>,
    bytes: usize,
    is_closed: bool,
}

impl<J> BatchQueue<J> {
    /// Creates an empty queue.
    pub fn new(limits: QueueLimits) -> BatchQueue<J> {
        let waiting = WaitingJobs { jobs: VecDeque::new(), bytes: 0, is_closed: false };
        BatchQueue { limits, waiting: Mutex::new(waiting), changed: Condvar::new() }
    }

    /// Puts jobs, each with its size in bytes, at the end of the queue: all of them or none. Jobs that are larger than
    /// all that may wait are taken on if nothing else waits.
    ///
    /// # Errors
    /// Returns why they were refused.
    pub fn push_all(&self, jobs: Vec<(J, usize)>) -> Result<(), Refusal> {
        let bytes: usize = jobs.iter().map(|(_, bytes)| bytes).sum();
        let mut waiting = self.lock();
        if waiting.is_closed {
            return Err(Refusal::Closed);
        }
        let fits = waiting.jobs.len() + jobs.len() <= self.limits.jobs
            && waiting.bytes.saturating_add(bytes) <= self.limits.bytes;
        if !fits && !waiting.jobs.is_empty() {
            return Err(Refusal::Full);
        }
        waiting.bytes += bytes;
        waiting.jobs.extend(jobs);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes the first jobs out, in order: as many as there are, but at most `most` of at most `bytes` bytes; one job
    /// is taken whatever its size. Waits until there is one. Returns `None` when the queue is closed and empty.
    pub fn take(&self, most: usize, bytes: usize) -> Option<Vec<J>> {
        let mut waiting = self.lock();
        while waiting.jobs.is_empty() {
            if waiting.is_closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let mut taken = Vec::new();
        let mut size = 0;
        while let Some((_, next)) = waiting.jobs.front() {
            if !taken.is_empty() && (taken.len() >= most || size + next > bytes) {
                break;
            }
            size += next;
            taken.extend(waiting.jobs.pop_front().map(|(job, _)| job));
        }
        waiting.bytes -= size;
        Some(taken)
    }

    /// Closes the queue: nothing more is taken on; what waits can still be taken out.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Closes the queue and returns what still waits.
    pub fn drain(&self) -> Vec<J> {
        self.close();
        let mut waiting = self.lock();
        waiting.bytes = 0;
        waiting.jobs.drain(..).map(|(job, _)| job).collect()
    }

    /// Number of jobs that wait.
    pub fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Whether no job waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the queue was closed.
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    fn lock(&self) -> MutexGuard<'_, WaitingJobs<J>> {
        // No code that can panic runs while it is locked.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread, time::Duration};

    use super::*;

    fn queue(jobs: usize, bytes: usize) -> BatchQueue<usize> {
        BatchQueue::new(QueueLimits { jobs, bytes })
    }

    /// Jobs that are as large as their numbers say.
    fn jobs(numbers: &[usize]) -> Vec<(usize, usize)> {
        numbers.iter().map(|number| (*number, *number)).collect()
    }

    #[test]
    fn jobs_are_taken_in_order_up_to_a_number_and_a_size() {
        let queue = queue(10, 1000);
        queue.push_all(jobs(&[3, 4])).unwrap();
        queue.push_all(jobs(&[5, 6, 7])).unwrap();
        assert_eq!(queue.take(2, 1000), Some(vec![3, 4]));
        assert_eq!(queue.take(10, 11), Some(vec![5, 6]));
        queue.push_all(jobs(&[8])).unwrap();
        assert_eq!(queue.take(10, 1), Some(vec![7]), "one job is taken whatever its size");
        assert_eq!(queue.take(0, 0), Some(vec![8]));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_request_is_taken_on_whole_or_not_at_all() {
        let queue = queue(4, 20);
        queue.push_all(jobs(&[5, 5, 5])).unwrap();
        assert_eq!(queue.push_all(jobs(&[1, 1])), Err(Refusal::Full), "two are too many");
        assert_eq!(queue.push_all(jobs(&[6])), Err(Refusal::Full), "six bytes are too many");
        assert_eq!(queue.len(), 3);
        queue.push_all(jobs(&[5])).unwrap();
        assert_eq!(queue.push_all(jobs(&[0])), Err(Refusal::Full));
        // What was taken out makes room, for its bytes too.
        assert_eq!(queue.take(2, 1000), Some(vec![5, 5]));
        queue.push_all(jobs(&[4, 6])).unwrap();
        assert_eq!(queue.take(9, 1000), Some(vec![5, 5, 4, 6]));
    }

    #[test]
    fn what_is_larger_than_the_queue_is_taken_on_when_nothing_waits() {
        let queue = queue(4, 20);
        queue.push_all(jobs(&[1])).unwrap();
        assert_eq!(queue.push_all(jobs(&[30])), Err(Refusal::Full));
        assert_eq!(queue.take(1, 1), Some(vec![1]));
        queue.push_all(jobs(&[30])).unwrap();
        assert_eq!(queue.push_all(jobs(&[1])), Err(Refusal::Full));
        assert_eq!(queue.take(1, 1), Some(vec![30]));
        queue.push_all(jobs(&[1])).unwrap();
    }

    #[test]
    fn a_closed_queue_takes_nothing_on_and_gives_out_what_waits() {
        let queue = queue(4, 20);
        queue.push_all(jobs(&[1, 2])).unwrap();
        assert!(!queue.is_closed());
        queue.close();
        assert!(queue.is_closed());
        assert_eq!(queue.push_all(jobs(&[3])), Err(Refusal::Closed));
        assert_eq!(queue.take(1, 1), Some(vec![1]));
        assert_eq!(queue.drain(), [2]);
        assert_eq!(queue.take(1, 1), None);
    }

    #[test]
    fn a_taker_waits_for_jobs_and_for_the_end() {
        let queue = Arc::new(queue(4, 20));
        let taker = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let mut taken = Vec::new();
                while let Some(jobs) = queue.take(10, 1000) {
                    taken.extend(jobs);
                }
                taken
            })
        };
        for number in 1..=9 {
            while queue.push_all(jobs(&[number])) == Err(Refusal::Full) {
                thread::sleep(Duration::from_millis(1));
            }
        }
        queue.close();
        assert_eq!(taker.join().unwrap(), (1..=9).collect::<Vec<usize>>());
    }
}
