//! Starts one worker's share of a node, on the worker's own thread.

use std::rc::Rc;

use actix::prelude::*;

use crate::actors::Node;
use crate::actors::conversation::Conversation;
use crate::actors::node::Worker;
use crate::actors::registry::{Registry, Sessions, WORKERS_MAX};
use crate::actors::router::Router;
use crate::actors::storage::Storage;
use crate::actors::stream::DeviceStream;
use crate::token::DeviceId;

/// The way in for sockets of one worker.
pub struct Entrance<S: DeviceStream> {
    sessions: Rc<Sessions<S>>,
}

impl<S: DeviceStream> Clone for Entrance<S> {
    fn clone(&self) -> Self {
        Self {
            sessions: Rc::clone(&self.sessions),
        }
    }
}

impl<S: DeviceStream> Entrance<S> {
    /// Makes a session of an upgraded stream. `leftover` was read behind the upgrade request;
    /// `device` is who the request's credential has proven.
    pub fn enter(&self, stream: S, leftover: &[u8], device: Option<DeviceId>) {
        self.sessions
            .enter(stream, leftover, Conversation::new(device));
    }
}

/// Starts the actors of worker number `index` on this thread's runtime: its shard's Storage and
/// Router, and its Registry.
///
/// # Errors
/// When the kernel has no descriptor left, or the worker was started before.
pub fn start<S: DeviceStream>(node: &Node, index: usize) -> std::io::Result<Entrance<S>> {
    let refused = |what| std::io::Error::new(std::io::ErrorKind::InvalidInput, what);
    if index >= WORKERS_MAX {
        return Err(refused("too many workers"));
    }
    let sessions = Sessions::new(index, node.clone())?;
    let registry = Registry::new(Rc::clone(&sessions)).start();
    let router = Router::new(node.clone()).start();
    let storage = Storage::new(node.clone(), router.clone()).start();
    let worker = Worker {
        storage,
        router,
        notify: registry.clone().recipient(),
        end_project: registry.clone().recipient(),
        close_all: registry.clone().recipient(),
        beat: registry.recipient(),
    };
    if !node.seat(index, worker) {
        return Err(refused("no such worker, or it runs already"));
    }
    Ok(Entrance { sessions })
}
