//! One device of the swarm: holds a socket as its habit says, and comes back when it is lost.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::socket::{NEVER, Over, Retry, Socket};
use super::tally::{Crew, Standing, Tally};
use crate::arrivals::Place;
use crate::clock::monotonic_ns;
use crate::contenders::Service;
use crate::habit::{Habit, around};
use crate::pipe::Cut;
use crate::register::Identity;

/// Ceiling of the first wait before coming back; it doubles up to [`RETURN_MAX`].
const RETURN_MIN: Duration = Duration::from_secs(1);
const RETURN_MAX: Duration = Duration::from_secs(30);

/// A device and what it knows.
pub struct Device {
    pub identity: Identity,
    pub place: Place,
    /// Arrivals that are to be acknowledged.
    pub unacked: u64,
    habit: Habit,
    catching_up: Option<CatchingUp>,
}

/// A device that a storm has cut off, and that has not seen everything since.
struct CatchingUp {
    cut_ns: u64,
    /// Up to where the log went when it was welcomed.
    syn_stored: u64,
}

/// A device and its connection.
pub struct Seat {
    device: Device,
    socket: Socket,
}

impl Device {
    pub fn new(identity: Identity, habit: Habit) -> Self {
        Self {
            identity,
            place: Place::default(),
            unacked: 0,
            habit,
            catching_up: None,
        }
    }

    /// How much it reads at a time.
    pub fn gulp_bytes(&self) -> usize {
        match self.habit {
            Habit::Slow { bytes, .. } => usize::try_from(bytes).unwrap_or(usize::MAX).max(1),
            _ => usize::MAX,
        }
    }

    /// Appends the frame that acknowledges everything shown, if it is this device's habit; returns
    /// how many arrivals that settles. `text` is working memory.
    pub fn write_ack(&mut self, service: &Service, text: &mut String, out: &mut Vec<u8>) -> u64 {
        if matches!(self.habit, Habit::Silent { .. }) || !self.place.owes() {
            return 0;
        }
        let syn = self.place.acknowledge();
        service.write_ack(text, out, &self.identity.token, syn);
        std::mem::take(&mut self.unacked)
    }

    /// Counts a device that has seen all that its welcome spoke of.
    pub fn note_caught_up(&mut self, tally: &mut Tally, now_ns: u64) {
        let shown = self.place.shown();
        let done = self
            .catching_up
            .take_if(|catching_up| shown >= catching_up.syn_stored);
        if let Some(done) = done {
            tally.storm.caught_up += 1;
            let took_ns = now_ns.saturating_sub(done.cut_ns);
            tally.storm_caught_up.record_ns(took_ns);
        }
    }

    /// A device that a storm cut off is back.
    fn note_back(&mut self, tally: &mut Tally, cut: Cut, syn_stored: u64) {
        let now_ns = monotonic_ns();
        tally.storm.back += 1;
        tally.storm_back.record_ns(now_ns.saturating_sub(cut.at_ns));
        self.catching_up = Some(CatchingUp {
            cut_ns: cut.at_ns,
            syn_stored,
        });
        self.note_caught_up(tally, now_ns);
    }
}

impl Seat {
    /// Connects a device for the first time.
    pub async fn take(crew: &Crew, identity: Identity, habit: Habit) -> anyhow::Result<Self> {
        let mut device = Device::new(identity, habit);
        let (socket, _) = Socket::open(crew, &mut device).await?;
        crew.tally.borrow_mut().open += 1;
        Ok(Self { device, socket })
    }

    pub fn token(&self) -> &str {
        &self.device.identity.token
    }

    /// Holds the connection, and comes back when it is lost, for as long as the process lives.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn keeps its arguments twice, and there are many devices"
    )]
    pub fn hold(mut self, crew: Rc<Crew>) -> impl Future<Output = ()> {
        async move {
            let mut standing = crew.standing.subscribe();
            loop {
                let over = match self.serve(&crew, &mut standing).await {
                    Ok(never) => match never {},
                    Err(over) => over,
                };
                let retry = over.retry;
                crew.tally.borrow_mut().lose(over);
                // In a box, for it is large and a device is seldom on its way.
                if !Box::pin(self.come_back(&crew, &mut standing, retry)).await {
                    return;
                }
                crew.tally.borrow_mut().open += 1;
            }
        }
    }

    /// False when the device has to stay away.
    async fn come_back(
        &mut self,
        crew: &Crew,
        standing: &mut watch::Receiver<Standing>,
        retry: Retry,
    ) -> bool {
        let mut ceiling = RETURN_MIN;
        let mut wait = match retry {
            Retry::Never => return false,
            Retry::After(advised) => advised,
            Retry::BackOff => ceiling.mul_f64(rand::random()),
            Retry::Departed => self.stay_away(standing).await,
            Retry::Cut(cut) => Duration::from_nanos(cut.jitter_ns).mul_f64(rand::random()),
        };
        loop {
            sleep(wait).await;
            match Socket::open(crew, &mut self.device).await {
                Ok((socket, syn_stored)) => {
                    self.socket = socket;
                    if let Retry::Cut(cut) = retry {
                        let mut tally = crew.tally.borrow_mut();
                        self.device.note_back(&mut tally, cut, syn_stored);
                    }
                    return true;
                }
                Err(error) => {
                    let mut tally = crew.tally.borrow_mut();
                    tally.disconnect_reason = Some(format!("{error:#}"));
                    tally.storm.failed += u64::from(matches!(retry, Retry::Cut(_)));
                    ceiling = (ceiling * 2).min(RETURN_MAX);
                    wait = ceiling.mul_f64(rand::random());
                }
            }
        }
    }

    /// Is away for as long as the habit says, or until everybody is called back; returns how long
    /// to wait then.
    async fn stay_away(&mut self, standing: &mut watch::Receiver<Standing>) -> Duration {
        let Habit::Restless { away_ms, .. } = self.device.habit else {
            return Duration::ZERO;
        };
        tokio::select! {
            () = sleep(around(away_ms)) => Duration::ZERO,
            _ = standing.wait_for(|standing| standing.calm) => {
                self.device.habit = Habit::Good;
                RETURN_MIN.mul_f64(rand::random())
            }
        }
    }

    async fn serve(
        &mut self,
        crew: &Crew,
        standing: &mut watch::Receiver<Standing>,
    ) -> Result<std::convert::Infallible, Over> {
        let Self { device, socket } = self;
        let joined = *standing.borrow_and_update();
        if joined.calm {
            device.habit = Habit::Good;
        }
        socket.begin(crew, device).await?;
        let mut ping_at = Instant::now() + socket.ping_every;
        let mut leave_at = Instant::now() + stays(device.habit);
        loop {
            tokio::select! {
                handled = socket.read(crew, device) => {
                    let unsent = handled?;
                    socket.write_all(&unsent).await?;
                    if let Habit::Slow { pause_ms, .. } = device.habit {
                        sleep(Duration::from_millis(pause_ms)).await;
                    }
                }
                // One timer for both: there are many devices.
                () = sleep_until(ping_at.min(leave_at)) => {
                    if leave_at <= Instant::now() {
                        if standing.borrow().calm {
                            leave_at = Instant::now() + NEVER;
                            continue;
                        }
                        if rand::random() {
                            socket.say_goodbye();
                        }
                        return Err(Over::planned(Retry::Departed));
                    }
                    socket.ping().await?;
                    ping_at = Instant::now() + socket.ping_every;
                }
                Ok(()) = standing.changed() => {
                    let now = *standing.borrow_and_update();
                    if let Some(cut) = now.cut.filter(|_| now.cuts != joined.cuts) {
                        let wait = Duration::from_nanos(cut.at_ns.saturating_sub(monotonic_ns()));
                        sleep(wait).await;
                        return Err(Over::planned(Retry::Cut(cut)));
                    }
                    if now.calm {
                        device.habit = Habit::Good;
                        leave_at = Instant::now() + NEVER;
                        socket.acknowledge(crew, device).await?;
                    }
                }
            }
        }
    }
}

/// How long a device stays once it is connected.
fn stays(habit: Habit) -> Duration {
    match habit {
        Habit::Restless { stays_ms, .. } | Habit::Silent { stays_ms } => around(stays_ms),
        _ => NEVER,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::target::Target;

    /// A hundred thousand of them fit a laptop.
    const DEVICE_BYTES_MAX: usize = 1_024;

    #[tokio::test]
    async fn an_idle_device_is_small() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let server = listener.local_addr().expect("an address");
        let stream = TcpStream::connect(server).await.expect("connects");
        let seat = Seat {
            device: Device::new(Identity::of_a_name(), Habit::Good),
            socket: Socket::of(stream),
        };
        let task = seat.hold(Rc::new(Crew::new(Service::Nchan(server), Vec::new())));
        let bytes = size_of_val(&task);
        assert!(bytes <= DEVICE_BYTES_MAX, "{bytes} bytes");
    }

    #[test]
    fn a_silent_device_acknowledges_once_it_is_good() {
        let identity = Identity {
            device_id: "d".into(),
            device_secret: "s".into(),
            token: "t".into(),
        };
        let mut device = Device::new(identity, Habit::Silent { stays_ms: 1 });
        let service = Service::Herald(Target::of_nobody());
        let (mut text, mut out) = (String::new(), Vec::new());
        let mut arrivals = crate::arrivals::Arrivals::default();
        device.place.reconnect();
        arrivals.arrive(&mut device.place, 1, 7);
        device.unacked = 1;
        assert_eq!(device.write_ack(&service, &mut text, &mut out), 0);
        assert!(out.is_empty());
        device.habit = Habit::Good;
        assert_eq!(device.write_ack(&service, &mut text, &mut out), 1);
        assert_eq!(text, r#"{"type":"ack","token":"t","syn":7}"#);
        assert_eq!(device.write_ack(&service, &mut text, &mut out), 0);
    }
}
