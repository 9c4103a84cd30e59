//! What goes wrong, and how the machine gets over it.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::crowd::Phase;
use crate::harness::{FaultyDisk, Server, ServerOptions};

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing, for once.
    Nothing,
    /// SIGKILL.
    Kill,
    /// SIGKILL, and again as soon as it is well.
    KillTwice,
    /// SIGKILL, and again while it recovers, at three moments.
    KillInRecovery,
    /// SIGKILL while syncs hang.
    KillInSync,
    /// SIGKILL out of SIGSTOP: those who wait for it have waited for nothing.
    KillInPause,
    /// SIGTERM, and SIGKILL in the middle of the drain.
    KillInDrain,
    /// SIGTERM: a drain in the middle of everything.
    Restart,
    /// The same, and back with another number of workers, so that tokens change their shards.
    OtherWorkers,
    /// SIGSTOP for a while.
    Pause,
    /// SIGSTOP and SIGCONT, many times.
    Stutter,
    /// Syncs take a while.
    SlowSync,
    /// Every sync is as slow as a tired disk's.
    SlowDisk,
    /// The power fails: what was not synced is gone, but for a torn piece of it.
    PowerCut,
    /// The power fails, and again while the server recovers.
    PowerCutInRecovery,
    /// A sync fails.
    FailedSync,
    /// The disk is full.
    FullDisk,
    /// The clock jumps an hour ahead.
    ClockForward,
    /// The clock jumps an hour back.
    ClockBack,
    /// The clock goes to and fro by seconds.
    ClockAstray,
    /// A second server is started on the same directory.
    Rival,
    /// Strangers connect, say nothing or nonsense, and stay.
    Strangers,
}

/// All of them, and how often each is in a deck.
pub const DECK: [(Fault, usize); 22] = [
    (Fault::Nothing, 1),
    (Fault::Kill, 2),
    (Fault::KillTwice, 1),
    (Fault::KillInRecovery, 1),
    (Fault::KillInSync, 1),
    (Fault::KillInPause, 1),
    (Fault::KillInDrain, 1),
    (Fault::Restart, 1),
    (Fault::OtherWorkers, 1),
    (Fault::Pause, 1),
    (Fault::Stutter, 1),
    (Fault::SlowSync, 1),
    (Fault::SlowDisk, 1),
    (Fault::PowerCut, 2),
    (Fault::PowerCutInRecovery, 1),
    (Fault::FailedSync, 1),
    (Fault::FullDisk, 1),
    (Fault::ClockForward, 1),
    (Fault::ClockBack, 1),
    (Fault::ClockAstray, 1),
    (Fault::Rival, 1),
    (Fault::Strangers, 1),
];

impl Fault {
    /// How often a running server is killed with SIGKILL, the power cuts included.
    pub fn kills(self) -> usize {
        match self {
            Self::Kill | Self::KillInSync | Self::KillInPause | Self::KillInDrain => 1,
            Self::KillTwice | Self::PowerCutInRecovery => 2,
            Self::KillInRecovery => 4,
            Self::PowerCut => 1,
            _ => 0,
        }
    }

    /// Whether the server's clock is wrong for a while.
    pub fn moves_clock(self) -> bool {
        matches!(
            self,
            Self::ClockForward | Self::ClockBack | Self::ClockAstray
        )
    }
}

/// A server and what it stands on.
pub struct Machine {
    pub server: Server,
    pub faults: Faults,
}

/// The switches.
pub struct Faults {
    disk: FaultyDisk,
}

const HOUR_MS: i64 = 60 * 60 * 1_000;

/// Strangers at a time.
const STRANGERS: usize = 40;

/// Most workers of a server.
const WORKERS_MAX: u32 = 4;

impl Machine {
    /// A server on a disk and under a clock that can be tampered with.
    pub async fn start() -> Self {
        let faults = Faults {
            disk: FaultyDisk::new(),
        };
        let server = Server::with(faults.options(2)).await;
        Self { server, faults }
    }

    /// Waits until the server is there and well, started anew if it must be.
    pub async fn recover(&mut self, fault: Fault, random: &mut SmallRng) {
        match fault {
            Fault::Nothing | Fault::Pause | Fault::Stutter => {}
            Fault::SlowSync | Fault::Rival | Fault::Strangers => {}
            Fault::SlowDisk => self.faults.mend(),
            Fault::ClockForward | Fault::ClockBack | Fault::ClockAstray => {
                self.faults.disk.move_clock(0);
            }
            Fault::Kill | Fault::KillInSync | Fault::KillInPause => self.bring_back().await,
            Fault::KillTwice => {
                self.bring_back().await;
                self.bring_back().await;
            }
            Fault::KillInRecovery => {
                self.end();
                for _ in 0..3 {
                    let moment = Duration::from_millis(random.random_range(5..120));
                    self.server.start_and_kill(moment).await;
                }
                self.server.start_again().await;
            }
            // The drain may have been quicker.
            Fault::KillInDrain => {
                self.server.exit_status().await;
                self.server.start_again().await;
            }
            Fault::Restart | Fault::OtherWorkers => {
                self.ends_with(0).await;
                if fault == Fault::OtherWorkers {
                    let workers = random.random_range(1..=WORKERS_MAX);
                    let options = self.faults.options(workers);
                    return self.server.start_again_with(options).await;
                }
                self.server.start_again().await;
            }
            Fault::PowerCut | Fault::PowerCutInRecovery => {
                self.end();
                self.cut_power(random);
                if fault == Fault::PowerCutInRecovery {
                    let moment = Duration::from_millis(random.random_range(5..120));
                    self.server.start_and_kill(moment).await;
                    self.cut_power(random);
                }
                self.server.start_again().await;
            }
            Fault::FailedSync => {
                self.ends_with(70).await;
                self.faults.mend();
                self.server.start_again().await;
            }
            Fault::FullDisk => self.recover_from_a_full_disk().await,
        }
    }

    /// It may have had nothing to write meanwhile; after one failed write it must be gone.
    async fn recover_from_a_full_disk(&mut self) {
        let has_ended = self.server.has_ended();
        self.faults.mend();
        if has_ended {
            self.ends_with(70).await;
        } else {
            self.server.kill();
        }
        self.server.start_again().await;
    }

    /// The only ways out: 0 after a drain, 70 after a failed write or sync.
    async fn ends_with(&mut self, code: i32) {
        let status = self.server.exit_status().await;
        assert_eq!(status.code(), Some(code));
    }

    fn end(&mut self) {
        self.server.kill();
        self.faults.mend();
    }

    async fn bring_back(&mut self) {
        self.end();
        self.server.start_again().await;
    }

    fn cut_power(&self, random: &mut SmallRng) {
        // Half of the time cleanly, so that what was on its way is gone for certain.
        let torn = [0, random.random_range(0..20_000)][random.random_range(0..2)];
        let store = self.server.data().join("store");
        self.faults.disk.cut_power(&store, torn);
    }
}

impl Faults {
    fn options(&self, workers: u32) -> ServerOptions {
        self.disk.options(vec![
            ("HERALD_HTTP__WORKERS", workers.to_string()),
            ("HERALD_SOCKET__PARK_AFTER_MS", "50".to_owned()),
            // What does not fit must be found in the store.
            ("HERALD_SOCKET__MAILBOX", "2".to_owned()),
            // So slowly that most crashes find a push to many unfinished.
            ("HERALD_LIMITS__FAN_OUT_COPIES_PER_SECOND", "40".to_owned()),
        ])
    }

    /// It happens. Afterwards the server is well, or on its way out.
    pub async fn happen(&self, fault: Fault, server: &Server, phase: &watch::Sender<Phase>) {
        let signal = |signal| kill(server.pid(), signal).expect("signalled");
        match fault {
            Fault::Nothing => {}
            Fault::Kill | Fault::KillTwice | Fault::KillInRecovery => signal(Signal::SIGKILL),
            Fault::KillInPause => {
                signal(Signal::SIGSTOP);
                moment(100).await;
                signal(Signal::SIGKILL);
            }
            Fault::KillInDrain => {
                server.terminate();
                moment(10).await;
                // Not reaped yet, so there is something to signal, even if it has ended.
                signal(Signal::SIGKILL);
            }
            Fault::Restart | Fault::OtherWorkers => {
                server.terminate();
                moment(100).await;
            }
            Fault::Pause => self.pause(server, 1, 400).await,
            Fault::Stutter => self.pause(server, 12, 20).await,
            Fault::SlowSync => self.slow_syncs(phase).await,
            Fault::SlowDisk => {
                self.disk.slow_down();
                moment(400).await;
            }
            Fault::KillInSync | Fault::PowerCut | Fault::PowerCutInRecovery => {
                self.disk.stall();
                phase.send_replace(Phase::Look);
                moment(150).await;
                signal(Signal::SIGKILL);
            }
            Fault::FailedSync => {
                self.disk.fail();
                moment(100).await;
            }
            Fault::FullDisk => {
                self.disk.fill();
                moment(200).await;
            }
            Fault::ClockForward => self.move_clock(&[HOUR_MS], 300).await,
            Fault::ClockBack => self.move_clock(&[-HOUR_MS], 300).await,
            Fault::ClockAstray => self.move_clock(&[3_000, -3_000, 700, -700], 80).await,
            Fault::Rival => {
                let status = server.rival().await;
                assert_ne!(status.code(), Some(0), "it had nothing to serve from");
            }
            Fault::Strangers => strangers(server).await,
        }
    }

    async fn pause(&self, server: &Server, times: u32, millis: u64) {
        for _ in 0..times {
            kill(server.pid(), Signal::SIGSTOP).expect("signalled");
            moment(millis).await;
            kill(server.pid(), Signal::SIGCONT).expect("signalled");
            moment(millis.min(20)).await;
        }
    }

    async fn slow_syncs(&self, phase: &watch::Sender<Phase>) {
        for _ in 0..4 {
            self.disk.stall();
            phase.send_replace(Phase::Look);
            moment(120).await;
            self.disk.resume();
            phase.send_replace(Phase::Work);
            moment(30).await;
        }
    }

    async fn move_clock(&self, steps: &[i64], millis: u64) {
        for by in steps {
            self.disk.move_clock(*by);
            moment(millis).await;
        }
    }

    fn mend(&self) {
        self.disk.mend_everything();
    }
}

async fn moment(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// They hold their connections for a while; a third says nothing, a third nonsense, and a third
/// stops in the middle of a send.
async fn strangers(server: &Server) {
    let unfinished =
        "POST /v1/projects/demo/messages:send HTTP/1.1\r\ncontent-length: 900\r\n\r\n{";
    let mut connections = Vec::new();
    for number in 0..STRANGERS {
        let said = ["", "\u{16}\u{3}\u{1}\0\0", unfinished][number % 3];
        let connected = TcpStream::connect(server.listen()).await;
        let mut connection = connected.expect("the server listens");
        // It may hang up before all is said.
        let _ = connection.write_all(said.as_bytes()).await;
        connections.push(connection);
    }
    moment(300).await;
}
