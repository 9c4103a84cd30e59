//! Frames of a client that asks for nothing: how many it may send before its connection ends.

/// Frames without a request; bytes of one that count as another; and what a request gives back.
const FRAMES_MAX: usize = 20_000;
const BYTES_OF_FRAME: usize = 16;
const FRAMES_OF_REQUEST: usize = 2_000;

const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const CONTINUATION: u8 = 9;

/// Frames that no request has paid for.
#[derive(Debug, Default)]
pub(super) struct IdleFrames(usize);

impl IdleFrames {
    /// A frame has begun.
    pub(super) fn note(&mut self, kind: u8, length: usize) {
        self.0 = match kind {
            HEADERS => self.0.saturating_sub(FRAMES_OF_REQUEST),
            DATA | CONTINUATION => self.0 + 1,
            _ => self.0 + 1 + length / BYTES_OF_FRAME,
        };
    }

    /// Whether there were too many.
    pub(super) fn are_too_many(&self) -> bool {
        self.0 > FRAMES_MAX
    }
}
