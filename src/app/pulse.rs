//! Whether the program is alive: every thread of the data plane is asked to answer by itself.
//!
//! A process that exists may serve nobody, because one of its threads waits for something that never
//! comes. So whoever watches over it asks each thread a question, and a thread answers when its
//! runtime has come round to it, as it would to a request. What does not answer can't serve either.

use tokio::sync::{mpsc, oneshot, watch};

/// Questions that wait for a thread: there is one who asks, and who is not patient asks again.
const QUESTIONS_MAX: usize = 4;

type Question = oneshot::Sender<()>;

/// Asks all threads.
#[derive(Clone)]
pub struct Pulse {
    threads: Vec<mpsc::Sender<Question>>,
    draining: watch::Receiver<bool>,
}

/// A thread's own part: it answers.
pub(super) struct Beat(mpsc::Receiver<Question>);

impl Pulse {
    /// `draining` is true from when threads may end.
    pub(super) fn new(draining: watch::Receiver<bool>) -> Self {
        Self { threads: Vec::new(), draining }
    }

    /// For one more thread.
    pub(super) fn beat(&mut self) -> Beat {
        let (ask, asked) = mpsc::channel(QUESTIONS_MAX);
        self.threads.push(ask);
        Beat(asked)
    }

    /// Returns when every thread has come round, and never if one hangs, or has ended before it
    /// should. Cancel-safe.
    pub async fn turn(&self) {
        for thread in &self.threads {
            let (answer, answered) = oneshot::channel();
            let is_there = thread.send(answer).await.is_ok() && answered.await.is_ok();
            if !is_there && !*self.draining.borrow() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Beat {
    /// Answers for as long as the thread's runtime lives.
    pub(super) async fn go(mut self) {
        while let Some(question) = self.0.recv().await {
            // Who has asked may have given up.
            let _ = question.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as blocking;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// A thread like those of the data plane; what comes over the channel blocks it until the next.
    fn thread(beat: Beat) -> (blocking::Sender<()>, thread::JoinHandle<()>) {
        let (tell, told) = blocking::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                tokio::spawn(beat.go());
                loop {
                    match told.try_recv() {
                        Ok(()) => drop(told.recv()),
                        Err(blocking::TryRecvError::Empty) => {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        Err(blocking::TryRecvError::Disconnected) => return,
                    }
                }
            });
        });
        (tell, thread)
    }

    async fn turns(pulse: &Pulse) {
        let patience = Duration::from_secs(60);
        tokio::time::timeout(patience, pulse.turn()).await.expect("all threads answer");
    }

    async fn does_not_turn(pulse: &Pulse) {
        let turned = tokio::time::timeout(Duration::from_millis(300), pulse.turn()).await;
        assert!(turned.is_err(), "a thread that can't answer has answered");
    }

    #[tokio::test]
    async fn one_thread_that_hangs_is_enough_and_it_may_come_back() {
        let (_draining, drained) = watch::channel(false);
        let mut pulse = Pulse::new(drained);
        let (_one, _) = thread(pulse.beat());
        let (other, _) = thread(pulse.beat());
        turns(&pulse).await;
        other.send(()).expect("it listens");
        // It may answer once more before it has read that.
        while tokio::time::timeout(Duration::from_millis(300), pulse.turn()).await.is_ok() {}
        does_not_turn(&pulse).await;
        other.send(()).expect("it listens");
        turns(&pulse).await;
    }

    #[tokio::test]
    async fn a_thread_that_is_gone_counts_when_it_was_asked_to_go() {
        let (draining, drained) = watch::channel(false);
        let mut pulse = Pulse::new(drained);
        let (one, ended) = thread(pulse.beat());
        turns(&pulse).await;
        drop(one);
        ended.join().expect("no panic");
        does_not_turn(&pulse).await;
        draining.send_replace(true);
        turns(&pulse).await;
    }
}
