//! What tests of decoders need: bytes that were right before somebody changed them, and the memory
//! that looking at them took.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Counts what each thread allocates; the same one as the binary's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What any decoder may allocate beyond a multiple of its input.
const ALLOCATED_ANYWAY: u64 = 4 * 1024;

/// Bytes that this thread allocates while `work` runs, those that are freed again counted too.
fn allocated_by<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let counter = tikv_jemalloc_ctl::thread::allocatedp::read().expect("a counter");
    let before = counter.get();
    let result = work();
    (result, counter.get() - before)
}

/// Runs `decode`, which must not allocate more than eight times what it was given, and a little.
#[track_caller]
pub(crate) fn thriftily<T>(bytes: &[u8], decode: impl FnOnce(&[u8]) -> T) -> T {
    let (decoded, allocated) = allocated_by(|| decode(bytes));
    let given = bytes.len() as u64;
    assert!(
        allocated <= 8 * given + ALLOCATED_ANYWAY,
        "{allocated} bytes for the {given} of {bytes:02x?}"
    );
    decoded
}

/// One change of some bytes.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Flip(Index, u8),
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    /// A part stands somewhere else once more.
    Repeat(Index, usize, Index),
    Cut(Index),
}

/// Some changes, few enough that most of what was right stays right.
pub(crate) fn changes() -> impl Strategy<Value = Vec<Change>> {
    let place = any::<Index>;
    let change = prop_oneof![
        4 => (place(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (place(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (place(), any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        2 => place().prop_map(Change::Remove),
        1 => (place(), 1..40_usize, place())
            .prop_map(|(from, length, to)| Change::Repeat(from, length, to)),
        1 => place().prop_map(Change::Cut),
    ];
    vec(change, 1..5)
}

/// The bytes with these changes.
pub(crate) fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let length = bytes.len();
        if length == 0 {
            break;
        }
        match change {
            Change::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Change::Set(at, byte) => bytes[at.index(length)] = *byte,
            Change::Insert(at, byte) => bytes.insert(at.index(length), *byte),
            Change::Remove(at) => drop(bytes.remove(at.index(length))),
            Change::Repeat(from, part, to) => {
                let start = from.index(length);
                let part = bytes[start..length.min(start + part)].to_vec();
                let at = to.index(length);
                bytes.splice(at..at, part);
            }
            Change::Cut(at) => bytes.truncate(at.index(length)),
        }
    }
    bytes
}

/// The same for a text.
pub(crate) fn changed_text(text: &str, changes: &[Change]) -> String {
    let bytes = changed(text.as_bytes().to_vec(), changes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Bytes of no meaning.
pub(crate) fn nonsense() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..200)
}

#[test]
fn what_is_allocated_is_counted() {
    let (_, small) = allocated_by(|| [0_u8; 16]);
    assert_eq!(small, 0);
    let (block, large) = allocated_by(|| Vec::<u8>::with_capacity(1 << 20));
    assert!(large >= 1 << 20, "{large} for {}", block.capacity());
}

#[test]
#[should_panic(expected = "bytes for the 3 of")]
fn a_decoder_that_believes_a_length_is_caught() {
    thriftily(b"\xff\xff\xff", |_| Vec::<u8>::with_capacity(1 << 16));
}
