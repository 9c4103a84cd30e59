//! What goes wrong, and how the machine gets over it.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;

use crate::harness::{FaultyDisk, Server};

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing, for once.
    Nothing,
    /// SIGKILL.
    Kill,
    /// SIGTERM: a drain in the middle of everything.
    Restart,
    /// SIGSTOP for a while.
    Pause,
    /// Syncs take a while.
    SlowSync,
    /// Syncs hang, and then comes SIGKILL.
    KillInSync,
    /// The power fails: what was not synced is gone, but for a torn piece of it.
    PowerCut,
    /// A sync fails.
    FailedSync,
    /// The disk is full.
    FullDisk,
    /// The clock jumps an hour ahead.
    ClockForward,
    /// The clock jumps an hour back.
    ClockBack,
}

impl Fault {
    /// Every fault once, some more often, in a random order.
    pub fn deck(random: &mut SmallRng) -> Vec<Self> {
        let mut deck = vec![
            Self::Nothing,
            Self::Kill,
            Self::Kill,
            Self::Kill,
            Self::Restart,
            Self::Pause,
            Self::SlowSync,
            Self::KillInSync,
            Self::PowerCut,
            Self::PowerCut,
            Self::PowerCut,
            Self::FailedSync,
            Self::FullDisk,
            Self::ClockForward,
            Self::ClockBack,
        ];
        deck.shuffle(random);
        deck
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

impl Machine {
    /// A server on a disk and under a clock that can be tampered with.
    pub async fn start() -> Self {
        let disk = FaultyDisk::new();
        let settings = vec![
            ("HERALD_SOCKET__PARK_AFTER_MS", "50".to_owned()),
            ("HERALD_LIMITS__FAN_OUT_COPIES_PER_SECOND", "300".to_owned()),
        ];
        let server = Server::with(disk.options(settings)).await;
        Self {
            server,
            faults: Faults { disk },
        }
    }

    /// Waits until the server is there and well, started anew if it must be.
    pub async fn recover(&mut self, fault: Fault, random: &mut SmallRng) {
        match fault {
            Fault::Kill | Fault::KillInSync => {
                self.server.kill();
                self.faults.mend();
                self.server.start_again().await;
            }
            Fault::PowerCut => {
                self.server.kill();
                self.faults.mend();
                let torn = random.random_range(0..20_000);
                let store = self.server.data().join("store");
                self.faults.disk.cut_power(&store, torn);
                self.server.start_again().await;
            }
            Fault::Restart => {
                let status = self.server.exit_status().await;
                assert_eq!(status.code(), Some(0), "a clean drain");
                self.server.start_again().await;
            }
            Fault::FailedSync => {
                let status = self.server.exit_status().await;
                assert_eq!(status.code(), Some(70), "a failed sync is final");
                self.faults.mend();
                self.server.start_again().await;
            }
            // It may have had nothing to write meanwhile; after one failed write it must be gone.
            Fault::FullDisk => {
                let ended = self.server.has_ended();
                self.faults.mend();
                if ended {
                    let status = self.server.exit_status().await;
                    assert_eq!(status.code(), Some(70), "a failed write is final");
                } else {
                    self.server.kill();
                }
                self.server.start_again().await;
            }
            Fault::Nothing | Fault::Pause | Fault::SlowSync => {}
            Fault::ClockForward | Fault::ClockBack => self.faults.disk.move_clock(0),
        }
    }
}

impl Faults {
    /// It happens. Afterwards the server is well, or on its way out.
    pub async fn happen(&self, fault: Fault, server: &Server) {
        let moment = |millis| tokio::time::sleep(Duration::from_millis(millis));
        let signal = |signal| kill(server.pid(), signal).expect("signalled");
        match fault {
            Fault::Nothing => {}
            Fault::Kill => signal(Signal::SIGKILL),
            Fault::Restart => {
                server.terminate();
                moment(100).await;
            }
            Fault::Pause => {
                signal(Signal::SIGSTOP);
                moment(400).await;
                signal(Signal::SIGCONT);
            }
            Fault::SlowSync => {
                for _ in 0..4 {
                    self.disk.stall();
                    moment(120).await;
                    self.disk.resume();
                    moment(30).await;
                }
            }
            Fault::KillInSync | Fault::PowerCut => {
                self.disk.stall();
                moment(60).await;
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
            Fault::ClockForward | Fault::ClockBack => {
                let by = if fault == Fault::ClockBack { -1 } else { 1 };
                self.disk.move_clock(by * HOUR_MS);
                moment(300).await;
            }
        }
    }

    fn mend(&self) {
        self.disk.mend_everything();
    }
}
