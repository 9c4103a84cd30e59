//! What an append, an acknowledgement, a read with nothing new and a contact cost as the store gets
//! to hold more and more tokens: each figure, and its ratio to that of the fewest tokens.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use herald::clock::{Clock, Millis};
use herald::store::embedded::{EmbeddedStore, fsck};
use herald::store::{PageLimit, Store, StoreError};
use herald::token::{DeviceId, ProjectHash, TokenAddress, TokenId};

use super::{append_all, open};

/// The fewest tokens; then ten times as many, and so on.
const TOKENS_MIN: usize = 10_000;

/// Tokens that are worked on in one pass, spread evenly over all.
const SAMPLE: usize = 10_000;

/// Passes, each over other tokens if there are enough; the median is shown. So many that merging comes in at its
/// average.
const PASSES: usize = 100;

const IN_FLIGHT: usize = 64;

/// Grows a store to `tokens_max` tokens, with a row of figures at each power of ten.
pub fn run(tokens_max: usize) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let now = Clock::system().now();
    let mut first: Option<Figures> = None;
    let (mut held, mut wanted) = (0, TOKENS_MIN);
    Figures::print_head();
    while wanted <= tokens_max {
        let store = open(directory.path(), &Default::default())?;
        for index in held..wanted {
            contact(&store, &token(index, now), now)?;
        }
        come_to_rest(&store)?;
        let mut figures = Figures::of_warm(&store, wanted, now)?;
        drop(store);
        figures.add_cold(directory.path(), wanted, now)?;
        figures.print(wanted, first.as_ref().unwrap_or(&figures));
        first.get_or_insert(figures);
        (held, wanted) = (wanted, wanted * 10);
    }
    Ok(())
}

/// What one call costs, in microseconds, and what the store takes.
struct Figures {
    /// A push to a token that has had none in the life time of a push, made durable, 64 at a time: it moves
    /// the time at which the token is looked at. Processor time of all threads, with the acknowledgement.
    first_processor: f64,
    /// A push to a token that has had another, with nothing pending.
    append: f64,
    /// What of it was processor time, of all threads.
    append_processor: f64,
    /// The same of append and acknowledgement together, which also has what is merged meanwhile.
    both_processor: f64,
    /// The acknowledgement that empties the token again.
    ack: f64,
    /// A read with nothing new.
    read: f64,
    /// A contact that changes nothing.
    contact: f64,
    /// The same for a token that is not in memory.
    cold_contact: f64,
    /// The check of the whole store, a token.
    check: f64,
    resident_megabytes: f64,
    disk_megabytes: f64,
}

impl Figures {
    /// With the ledgers of all tokens in memory, as far as the cache holds them.
    fn of_warm(store: &EmbeddedStore, tokens: usize, now: Millis) -> anyhow::Result<Self> {
        let samples = || (0..PASSES).map(|pass| sample(tokens, pass, now));
        let first_processor = processor_time_of(|| {
            samples().try_for_each(|sample| {
                append(store, &sample, now);
                acknowledge(store, &sample, now)
            })
        })?;
        come_to_rest(store)?;
        let (mut appends, mut processor) = (Vec::new(), Vec::new());
        let (mut acks, mut reads, mut contacts) = (Vec::new(), Vec::new(), Vec::new());
        let both_processor = processor_time_of(|| {
            samples().try_for_each(|sample| {
                processor.push(processor_time_of(|| {
                    appends.push(timed(|| {
                        append(store, &sample, now);
                        Ok(())
                    })?);
                    Ok(())
                })?);
                acks.push(timed(|| acknowledge(store, &sample, now))?);
                Ok(())
            })
        })?;
        for sample in samples() {
            reads.push(timed(|| {
                let read = |token| done(store.read(token, 0, PAGE, now));
                Ok(sample.iter().try_for_each(|token| read(token).map(drop))?)
            })?);
            contacts.push(timed(|| {
                Ok(sample.iter().try_for_each(|it| contact(store, it, now))?)
            })?);
        }
        Ok(Self {
            first_processor: first_processor / PASSES as f64,
            append: median(appends),
            append_processor: median(processor),
            both_processor: both_processor / PASSES as f64,
            ack: median(acks),
            read: median(reads),
            contact: median(contacts),
            cold_contact: 0.0,
            check: 0.0,
            resident_megabytes: resident_megabytes()?,
            disk_megabytes: store.disk_bytes()? as f64 / 1e6,
        })
    }

    /// With a store that was opened a moment ago.
    fn add_cold(&mut self, directory: &Path, tokens: usize, now: Millis) -> anyhow::Result<()> {
        let began = Instant::now();
        let report = fsck(directory, now)?;
        anyhow::ensure!(report.is_clean(), "{report}");
        self.check = began.elapsed().as_secs_f64() * 1e6 / tokens as f64;
        let store = open(directory, &Default::default())?;
        let sample = sample(tokens, 0, now);
        self.cold_contact =
            timed(|| Ok(sample.iter().try_for_each(|it| contact(&store, it, now))?))?;
        Ok(())
    }

    const COLUMNS: [Column; 9] = [
        ("first cpu us", |it| it.first_processor),
        ("append us", |it| it.append),
        ("append cpu us", |it| it.append_processor),
        ("both cpu us", |it| it.both_processor),
        ("ack us", |it| it.ack),
        ("read us", |it| it.read),
        ("contact us", |it| it.contact),
        ("cold contact us", |it| it.cold_contact),
        ("fsck us a token", |it| it.check),
    ];

    fn print_head() {
        print!("{:>10}", "tokens");
        for (title, _) in Self::COLUMNS {
            print!(" {title:>15}");
        }
        println!(" {:>8} {:>8}", "rss MB", "disk MB");
    }

    fn print(&self, tokens: usize, first: &Self) {
        print!("{tokens:>10}");
        for (_, of) in Self::COLUMNS {
            let (value, first) = (of(self), of(first));
            print!(" {:>15}", format!("{value:.2} ({:.2})", value / first));
        }
        println!(
            " {:>8.0} {:>8.0}",
            self.resident_megabytes, self.disk_megabytes
        );
    }
}

/// A title, and what stands below it.
type Column = (&'static str, fn(&Figures) -> f64);

const PAGE: PageLimit = PageLimit {
    pushes: 100,
    bytes: 1 << 20,
};

/// Token number `index`, the same in every call, so that ten million of them need no memory here.
fn token(index: usize, now: Millis) -> TokenAddress {
    let half = |salt: u64| scrambled(index as u64 ^ salt);
    let bytes = u128::from(half(0)) << 64 | u128::from(half(0x5bd1_e995_0000_0001));
    TokenAddress {
        id: TokenId(bytes.to_be_bytes()),
        device: DeviceId((index as u128).to_be_bytes()),
        ..TokenAddress::mint(DeviceId([0; 16]), ProjectHash::of("bench"), now)
    }
}

/// The finalizer of SplitMix64: one to one, and as good as random.
fn scrambled(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn sample(tokens: usize, pass: usize, now: Millis) -> Vec<TokenAddress> {
    let indices = (0..SAMPLE).map(|index| (index * (tokens / SAMPLE) + pass) % tokens);
    indices.map(|index| token(index, now)).collect()
}

fn append(store: &EmbeddedStore, sample: &[TokenAddress], now: Millis) {
    append_all(store, sample, SAMPLE, IN_FLIGHT, now);
}

fn acknowledge(store: &EmbeddedStore, sample: &[TokenAddress], now: Millis) -> anyhow::Result<()> {
    let ack = |token| until_room(|| done(store.ack(token, u64::MAX, now)));
    Ok(sample.iter().try_for_each(|token| ack(token).map(drop))?)
}

fn contact(store: &EmbeddedStore, token: &TokenAddress, now: Millis) -> Result<(), StoreError> {
    until_room(|| done(store.contact(token, 1, None, now))).map(drop)
}

/// What this store answers, it answers at once.
fn done<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    call.now_or_never().unwrap_or(Err(StoreError::Full))
}

/// Tries again while the queue is full.
fn until_room<T>(mut call: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    loop {
        match call() {
            Err(StoreError::Full) => std::thread::yield_now(),
            outcome => return outcome,
        }
    }
}

/// Microseconds a token that some work on a sample takes.
fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64() * 1e6 / SAMPLE as f64)
}

/// The same in processor time of all threads.
fn processor_time_of(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let before = processor_time()?;
    work()?;
    Ok((processor_time()? - before).as_secs_f64() * 1e6 / SAMPLE as f64)
}

/// Waits until everything is written, and tables have been merged.
fn come_to_rest(store: &EmbeddedStore) -> anyhow::Result<()> {
    let (mut seen, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_secs(5) {
        let bytes = store.disk_bytes()?;
        if bytes != seen {
            (seen, since) = (bytes, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Processor time that all threads have used.
fn processor_time() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    // Time of the user and of the system are fields 14 and 15, in hundredths of a second.
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: Result<Vec<u64>, _> = ticks.map(str::parse).collect();
    Ok(Duration::from_millis(10 * ticks?.iter().sum::<u64>()))
}

fn resident_megabytes() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|it| it.trim().strip_suffix(" kB"));
    Ok(kilobytes.unwrap_or_default().parse::<f64>()? * 1024.0 / 1e6)
}
