//! Everybody hostile at once: at the server, or at a decoy that costs next to nothing, so that what the
//! crowd takes from the machine by itself can be told from what it does to the server.

use std::cell::{Cell, RefCell};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::attack::{Case, Speech, play};

/// Between two rounds of the same: each endless sender fills about ten megabits a second. One that is not
/// optimised is sent a tenth, or its processor alone would be judged.
const PACE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 100 } else { 10 });

/// Those who are cut off come back this soon.
const REST: Duration = Duration::from_millis(if cfg!(debug_assertions) { 2_000 } else { 100 });

/// Clients of the crowd that only drip their headers.
const DRIPPING: usize = if cfg!(debug_assertions) { 25 } else { 100 };

/// One connection of everybody's is open by then.
const GATHERS_WITHIN: Duration = Duration::from_millis(300);

/// How long a member of the crowd stayed each time, by its place.
pub type Habits = Vec<Duration>;

/// Whom the crowd attacks.
pub enum Target {
    /// This address.
    Server(String),
    /// Somebody who accepts and reads and says nothing. Each member leaves by itself when the server
    /// would have cut it off: as long after it came as it stayed there.
    Decoy(Habits),
}

/// A crowd on a thread of its own, until it is told to stop.
pub struct Crowd {
    over: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Habits)>,
}

impl Crowd {
    /// Everybody has come when it is there.
    pub async fn gather(cases: &[Case], target: Target) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (is_over, speeches) = (Arc::clone(&over), speeches(cases));
        let (ready, is_ready) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            gives_way();
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let (address, habits) = match target {
                    Target::Server(address) => (address, None),
                    Target::Decoy(habits) => (decoy().await, Some(habits)),
                };
                let ready = async {
                    tokio::time::sleep(GATHERS_WITHIN).await;
                    ready.send(()).expect("somebody waits");
                };
                let riot = riot(&address, &speeches, habits.as_deref(), &is_over);
                tokio::join!(riot, ready).0
            })
        });
        is_ready.await.expect("a crowd");
        Self { over, thread }
    }

    /// Ends it; how many attacks were played to their end, and how long each member stayed.
    pub fn disperse(self) -> (usize, Habits) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

fn speeches(cases: &[Case]) -> Vec<Speech> {
    let drip = b"GET /nowhere HTTP/1.1\r\nHost: herald\r\nA: bbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    let dripping = std::iter::repeat_n(Speech::Drip(drip.to_vec()), DRIPPING);
    let cases = cases.iter().map(|case| case.speech.clone());
    dripping.chain(cases).collect()
}

/// Strangers have machines of their own: this thread has only what nobody else wants of this one. A
/// machine that cannot do that has a dearer crowd, beside either target.
fn gives_way() {
    let own = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    let Some(thread) = own.file_name() else {
        return;
    };
    let _ = Command::new("renice")
        .args(["-n", "19", "-p"])
        .arg(thread)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

async fn decoy() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut piece = vec![0; 64 * 1024];
                while let Ok(1..) = stream.read(&mut piece).await {}
            });
        }
    });
    address
}

async fn riot(
    address: &str,
    speeches: &[Speech],
    habits: Option<&[Duration]>,
    is_over: &AtomicBool,
) -> (usize, Habits) {
    let played = Cell::new(0);
    // Who is still there at the end has not been cut off.
    let stayed = RefCell::new(vec![Duration::MAX; speeches.len()]);
    let members = speeches.iter().enumerate().map(|(place, speech)| {
        let (played, stayed) = (&played, &stayed);
        let limit = habits.map_or(Duration::MAX, |habits| habits[place]);
        async move {
            loop {
                if let Ok(heard) = tokio::time::timeout(limit, play(address, speech, PACE)).await {
                    stayed.borrow_mut()[place] = heard.took;
                }
                played.set(played.get() + 1);
                tokio::time::sleep(REST).await;
            }
        }
    });
    let end = async {
        while !is_over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = futures_util::future::join_all(members) => {}
        () = end => {}
    }
    let stayed = stayed.take();
    (played.get(), stayed)
}
