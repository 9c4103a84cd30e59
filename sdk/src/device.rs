//! The device: keeps its socket, comes back after every fault, and polls while there is none.
//!
//! Nothing runs behind the app's back: all happens inside [`Device::next_event`], which may be
//! dropped and called again at any time. Reading stops while the app does not ask for events, so
//! there is no queue to overflow.

use std::collections::VecDeque;
use std::future::pending;
use std::time::Duration;

use futures_util::future::BoxFuture;
use herald_protocol::{Hello, ServerFrame, Welcome};
use tokio::time::{Instant, sleep_until};

use crate::api::{Api, PollEntry};
use crate::backoff::Backoff;
use crate::error::SdkError;
use crate::event::{Event, Push};
use crate::link::{Goodbye, Link, Next};
use crate::state::{Credential, DeviceState, TokenState};
use crate::tokens::Tokens;

/// Tokens that one socket may carry (contract).
pub const TOKENS_MAX: usize = 100;

/// A socket that lived this long was a success, however it ended.
const STABLE_AFTER: Duration = Duration::from_secs(30);

enum Phase {
    Waiting { until: Instant, register: bool },
    Connecting(BoxFuture<'static, Result<(Link, Welcome), Goodbye>>),
    Registering(BoxFuture<'static, Result<Credential, SdkError>>),
    Up(Box<Link>),
    Away,
}

/// One device with all its tokens.
pub struct Device {
    api: Api,
    client: String,
    credential: Credential,
    tokens: Tokens,
    phase: Phase,
    backoff: Backoff,
    /// What one frame or one poll gave rise to, not yet fetched by the app.
    events: VecDeque<Event>,
    polling: Option<BoxFuture<'static, Result<Vec<PollEntry>, SdkError>>>,
    /// More is waiting than the last poll could carry.
    poll_again: bool,
}

impl Device {
    /// A device that begins to connect at the first [`Self::next_event`]. `client` is the name
    /// and version of the app, for the server's statistics.
    #[must_use]
    pub fn new(api: Api, state: DeviceState, client: &str) -> Self {
        let now = Instant::now();
        let mut tokens = Tokens::default();
        for kept in state.tokens.into_iter().take(TOKENS_MAX) {
            tokens.add(kept, now);
        }
        Self {
            api,
            client: client.to_owned(),
            credential: state.credential,
            tokens,
            phase: Phase::Waiting {
                until: now,
                register: false,
            },
            backoff: Backoff::default(),
            events: VecDeque::new(),
            polling: None,
            poll_again: false,
        }
    }

    /// What must outlive the process. Save it after acknowledging, and after
    /// [`Event::Registered`] and [`Event::Unregistered`].
    #[must_use]
    pub fn state(&self) -> DeviceState {
        DeviceState {
            credential: self.credential.clone(),
            tokens: self.tokens.to_states(),
        }
    }

    /// Mints a push token and takes it into the session.
    ///
    /// # Errors
    /// See [`Api::mint_token`], and [`SdkError::TooManyTokens`].
    pub async fn mint_token(
        &mut self,
        project_id: &str,
        package_name: &str,
        cert_sha256: &str,
    ) -> Result<String, SdkError> {
        if self.tokens.len() >= TOKENS_MAX {
            return Err(SdkError::TooManyTokens);
        }
        let token = self
            .api
            .mint_token(&self.credential, project_id, package_name, cert_sha256)
            .await?;
        let minted = TokenState {
            project_id: project_id.to_owned(),
            token: token.clone(),
            acked: 0,
        };
        self.tokens.add(minted, Instant::now());
        Ok(token)
    }

    /// Ends a token of this device for everyone, for ever.
    ///
    /// # Errors
    /// See [`Api::delete_token`]; the token is kept then.
    pub async fn delete_token(&mut self, token: &str) -> Result<(), SdkError> {
        let Some(project_id) = self.tokens.project_of(token) else {
            return Ok(());
        };
        self.api
            .delete_token(&self.credential, project_id, token)
            .await?;
        self.tokens.remove(token);
        Ok(())
    }

    /// The app has dealt with everything of this token up to `syn`. The server hears of it during
    /// [`Self::next_event`] or [`Self::close`].
    pub fn ack(&mut self, token: &str, syn: u64) {
        self.tokens.ack(token, syn);
    }

    /// Comes back after [`Event::Replaced`].
    pub fn resume(&mut self) {
        if matches!(self.phase, Phase::Away) {
            self.phase = Phase::Waiting {
                until: Instant::now(),
                register: false,
            };
        }
    }

    /// Sends the acknowledgements that are due and closes the socket properly.
    pub async fn close(mut self) {
        // Whatever cannot be told now is told by the next hello.
        let _ = self.tell_server().await;
        if let Phase::Up(link) = self.phase {
            link.close().await;
        }
    }

    /// The next thing the app should know of; `None` while the device stays away. May be dropped
    /// and called again without losing anything. Call it all the time: the socket is served, and
    /// kept alive, only in here.
    pub async fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            match &mut self.phase {
                Phase::Away => return None,
                Phase::Waiting { until, register } => {
                    let (until, register) = (*until, *register);
                    self.wait(until, register).await;
                }
                Phase::Connecting(connect) => match connect.await {
                    Ok((link, welcome)) => self.greeted(link, welcome),
                    Err(goodbye) => self.parted(goodbye, true),
                },
                Phase::Registering(register) => {
                    let outcome = register.await;
                    self.registered(outcome);
                }
                Phase::Up(_) => {
                    if let Err(goodbye) = self.serve().await {
                        self.parted(goodbye, false);
                    }
                }
            }
        }
    }

    /// Sleeps until the next attempt, and lets a poll run meanwhile.
    async fn wait(&mut self, until: Instant, register: bool) {
        if self.polling.is_none() && self.poll_again && self.tokens.is_clear() && !register {
            self.start_poll();
        }
        tokio::select! {
            () = sleep_until(until) => self.begin(register),
            answer = poll_answer(&mut self.polling) => {
                self.polling = None;
                self.polled(answer);
            }
        }
    }

    fn begin(&mut self, register: bool) {
        let api = self.api.clone();
        // The socket catches up by itself; an answer to a poll would only come twice.
        self.polling = None;
        self.poll_again = false;
        self.phase = if register {
            Phase::Registering(Box::pin(async move { api.register().await }))
        } else {
            let hello = self.hello();
            Phase::Connecting(Box::pin(Link::open(api, hello)))
        };
    }

    fn hello(&mut self) -> Hello {
        Hello {
            device_id: Some(self.credential.device_id.clone()),
            device_secret: Some(self.credential.device_secret.clone()),
            tokens: self.tokens.greet(),
            client: Some(self.client.clone()),
        }
    }

    fn greeted(&mut self, link: Link, welcome: Welcome) {
        tracing::debug!(session = welcome.session, "device is connected");
        self.phase = Phase::Up(Box::new(link));
        self.events.push_back(Event::Connected {
            session: welcome.session,
        });
        for state in welcome.tokens {
            self.subscribed(state);
        }
    }

    fn subscribed(&mut self, answer: herald_protocol::TokenState) {
        if let Some(status) = answer.error {
            let event = self.tokens.refused(answer.token, status, Instant::now());
            self.events.extend(event);
        }
    }

    fn parted(&mut self, goodbye: Goodbye, never_up: bool) {
        if let Phase::Up(link) = &self.phase
            && link.age() >= STABLE_AFTER
        {
            self.backoff.reset();
        }
        if goodbye.next == Next::StayAway {
            self.phase = Phase::Away;
            self.events.push_back(Event::Replaced);
            return;
        }
        let own = self.backoff.next_delay(rand::random());
        let retry_in = match goodbye.next {
            Next::After(advised) => advised,
            _ => own,
        };
        let register = goodbye.next == Next::Register;
        self.phase = Phase::Waiting {
            until: Instant::now() + retry_in,
            register,
        };
        self.poll_again = never_up && !register;
        self.events.push_back(Event::Disconnected {
            reason: goodbye.reason,
            retry_in,
        });
    }

    fn registered(&mut self, outcome: Result<Credential, SdkError>) {
        match outcome {
            Ok(credential) => {
                self.credential = credential;
                let lost = self.tokens.take_all();
                self.phase = Phase::Waiting {
                    until: Instant::now(),
                    register: false,
                };
                self.events.push_back(Event::Registered { lost });
            }
            Err(error) => self.parted(
                Goodbye {
                    next: Next::Register,
                    reason: error.to_string(),
                },
                true,
            ),
        }
    }

    /// Tells the server what is due, then listens for one frame.
    async fn serve(&mut self) -> Result<(), Goodbye> {
        self.tell_server().await?;
        let wake_at = self.tokens.wake_at();
        let Phase::Up(link) = &mut self.phase else {
            return Ok(());
        };
        let event = match link.next(wake_at).await? {
            Some(ServerFrame::Push(push)) => self.tokens.arrived(Push {
                token: push.token,
                syn: push.syn,
                message_id: push.message_id,
                time: push.time,
                message: push.message,
            }),
            Some(ServerFrame::Deleted { token, up_to_syn }) => {
                self.tokens.deleted(token, up_to_syn)
            }
            Some(ServerFrame::Unregistered { token }) => {
                self.tokens
                    .refused(token, "UNREGISTERED".to_owned(), Instant::now())
            }
            Some(ServerFrame::Subscribed(answer)) => {
                self.subscribed(answer);
                None
            }
            Some(ServerFrame::Error { status, message }) => {
                tracing::warn!(status, message, "server reports a fault of this device");
                None
            }
            Some(ServerFrame::Welcome(_) | ServerFrame::Pong | ServerFrame::Unknown) | None => None,
        };
        self.events.extend(event);
        Ok(())
    }

    /// Sends subscriptions and acknowledgements that are due.
    async fn tell_server(&mut self) -> Result<(), Goodbye> {
        let Phase::Up(link) = &mut self.phase else {
            return Ok(());
        };
        let now = Instant::now();
        while let Some(frame) = self.tokens.due(now) {
            link.send(&frame).await?;
            self.tokens.told(&frame);
        }
        Ok(())
    }

    fn start_poll(&mut self) {
        self.poll_again = false;
        let requests = self.tokens.poll_requests();
        if requests.is_empty() {
            return;
        }
        let (api, credential) = (self.api.clone(), self.credential.clone());
        self.polling = Some(Box::pin(
            async move { api.poll(&credential, &requests).await },
        ));
    }

    fn polled(&mut self, answer: Result<Vec<PollEntry>, SdkError>) {
        let entries = match answer {
            Ok(entries) => entries,
            Err(error) => {
                tracing::debug!(%error, "poll failed");
                return;
            }
        };
        for entry in entries {
            self.poll_again |= entry.partial_content;
            self.events
                .extend(self.tokens.polled(entry, Instant::now()));
        }
    }
}

async fn poll_answer(
    polling: &mut Option<BoxFuture<'static, Result<Vec<PollEntry>, SdkError>>>,
) -> Result<Vec<PollEntry>, SdkError> {
    match polling {
        Some(polling) => polling.await,
        None => pending().await,
    }
}
