//! The same work over and over: devices that are connected, and senders who each wait for the
//! delivery before they send again.

use futures_util::future::join_all;

use crate::harness::{Credential, Door, Socket};

/// A device with one token, on a socket.
pub struct Receiver {
    pub device: Credential,
    pub token: String,
    pub socket: Socket,
}

impl Receiver {
    /// A new device that has said hello.
    pub async fn connect(door: &Door) -> Self {
        let device = door.device().await;
        let token = door.token(&device).await;
        let (socket, _) = door.hello(&device, &[(&token, 1)]).await;
        Self {
            device,
            token,
            socket,
        }
    }

    /// Has pushes sent to it one by one, each acknowledged before the next.
    pub async fn receive(&mut self, door: &Door, pushes: usize) {
        for _ in 0..pushes {
            door.push(&self.token, "counted").await;
            let push = self.socket.push().await;
            let syn = push["syn"].as_u64().expect("a syn");
            self.socket.ack(&self.token, syn).await;
        }
        self.socket.sync().await;
    }
}

/// So many devices, connected.
pub async fn connect_all(door: &Door, receivers: usize) -> Vec<Receiver> {
    join_all((0..receivers).map(|_| Receiver::connect(door))).await
}

/// As many senders as receivers, `pushes` from each.
pub async fn push_to_all(door: &Door, receivers: &mut [Receiver], pushes: usize) {
    let receivers = receivers.iter_mut();
    join_all(receivers.map(|receiver| receiver.receive(door, pushes))).await;
}
