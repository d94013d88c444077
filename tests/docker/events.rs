//! What the engine does, as it tells it itself. It remembers its last 256 events only, whoever
//! caused them, so it has to be listened to all the while.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::images::{Engine, command, unique};
use crate::support::PATIENCE;

/// How long to wait for one event before it is caused again.
const HEARD_WITHIN: Duration = Duration::from_millis(500);

/// Everything from the moment at which it was made.
pub(crate) struct Events {
    engine: Engine,
    listener: Child,
    heard: Arc<Mutex<Vec<Event>>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) at: SystemTime,
    pub(crate) action: String,
    /// A container's name.
    pub(crate) name: String,
    /// A volume's name, too.
    id: String,
}

impl Events {
    pub(crate) fn listen(engine: Engine) -> Self {
        let format = "{{.TimeNano}}\t{{.Action}}\t{{.Actor.ID}}\t{{.Actor.Attributes.name}}";
        let mut listener = command(&["events", "--format", format])
            .stdout(Stdio::piped())
            .spawn()
            .expect("docker runs");
        let output = listener.stdout.take().expect("it was piped");
        let heard: Arc<Mutex<Vec<Event>>> = Arc::default();
        let listening = Arc::clone(&heard);
        std::thread::spawn(move || listen(output, &listening));
        let events = Self { engine, listener, heard };
        events.catch_up();
        events
    }

    /// When a container did that.
    pub(crate) fn moments(&self, container: &str, action: &str) -> Vec<SystemTime> {
        let all = self.all().into_iter();
        all.filter(|event| event.name == container && event.action == action)
            .map(|event| event.at)
            .collect()
    }

    /// Everything so far, in order.
    pub(crate) fn all(&self) -> Vec<Event> {
        self.catch_up();
        self.heard.lock().unwrap().clone()
    }

    /// Returns when everything before this has been heard, because an event of our own has.
    fn catch_up(&self) {
        let mark = unique("mark");
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for verb in ["create", "rm"] {
                self.engine.docker(&["volume", verb, &mark]);
            }
            let again = Instant::now() + HEARD_WITHIN;
            while Instant::now() < again {
                if self.heard.lock().unwrap().iter().any(|event| event.id == mark) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        panic!("the engine does not tell what it does");
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        drop(self.listener.kill());
        drop(self.listener.wait());
    }
}

fn listen(output: ChildStdout, heard: &Mutex<Vec<Event>>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let mut words = line.split('\t').map(str::to_owned);
        let mut word = || words.next().unwrap();
        let at = UNIX_EPOCH + Duration::from_nanos(word().parse().unwrap());
        let (action, id, name) = (word(), word(), word());
        heard.lock().unwrap().push(Event { at, action, name, id });
    }
}
