//! A hello or subscribe that waits for the store: what was asked, and the frames of the answer.

use herald_protocol::{ServerFrame, TokenState, Welcome};

use crate::actors::action::Attached;
use crate::clock::Millis;
use crate::push::Syn;
use crate::store::{Contact, StoreError};
use crate::token::TokenId;

/// What a hello's answer carries beside its tokens.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// Names the session in logs.
    pub session: String,
    /// The server's clock.
    pub time: Millis,
    /// The ping interval asked of the device.
    pub ping_interval_ms: u64,
}

/// The tokens of one hello or subscribe, in the order of the frame.
#[derive(Debug)]
pub struct Opening {
    is_hello: bool,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    text: String,
    asked: Result<TokenId, &'static str>,
    /// The token ended while the store was asked.
    has_ended: bool,
}

impl Opening {
    /// Of a hello, or of a subscribe.
    pub fn new(is_hello: bool) -> Self {
        Self {
            is_hello,
            entries: Vec::new(),
        }
    }

    /// The next token as the device wrote it: the store is asked for it, or it is refused.
    pub fn add(&mut self, text: String, asked: Result<TokenId, &'static str>) {
        self.entries.push(Entry {
            text,
            asked,
            has_ended: false,
        });
    }

    /// A token ended: whether the device will read so in the answer.
    pub fn end(&mut self, token: TokenId) -> bool {
        let mut is_here = false;
        for entry in self.entries.iter_mut().filter(|it| it.asked == Ok(token)) {
            entry.has_ended = true;
            is_here = true;
        }
        is_here
    }

    /// The frames that answer the device. `take` makes a watermark or a refusal of what the store
    /// says of a token.
    pub fn answer(
        self,
        answers: Vec<Attached>,
        greeting: Greeting,
        mut take: impl FnMut(TokenId, Attached) -> Result<Syn, &'static str>,
    ) -> Vec<ServerFrame> {
        let mut answers = answers.into_iter();
        let states = self.entries.into_iter().map(|entry| {
            let syn_stored = entry.asked.and_then(|token| {
                let answer = answers.next();
                let answer = answer.unwrap_or(Err(StoreError::Unavailable("no answer")));
                match entry.has_ended {
                    true => take(token, Ok(Contact::Unregistered)),
                    false => take(token, answer),
                }
            });
            TokenState {
                token: entry.text,
                syn_stored: syn_stored.ok(),
                error: syn_stored.err().map(str::to_owned),
            }
        });
        if !self.is_hello {
            return states.map(ServerFrame::Subscribed).collect();
        }
        vec![ServerFrame::Welcome(Welcome {
            session: greeting.session,
            time: greeting.time,
            ping_interval_ms: greeting.ping_interval_ms,
            tokens: states.collect(),
        })]
    }
}
