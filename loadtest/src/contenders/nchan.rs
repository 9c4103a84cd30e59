//! Nchan, the publish and subscribe module of nginx: a recipient is a WebSocket on a channel of its
//! own, and a publish an HTTP POST, which is answered once the message is in shared memory.

use std::net::SocketAddr;
use std::path::Path;

use super::{Answered, Connection, Hearing, Pushed, Running, Service, hear_frame, read_data};
use crate::http::{CallError, Caller, write_request};
use crate::ledger::Outcome;
use crate::websocket::Incoming;

/// The server's program.
pub const PROGRAM: &str = "nginx";

/// Where Debian has the module.
pub const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// Nobody asks for another name.
const HOST: &str = "nchan";

/// Starts nginx with this module, a worker for each processor as Debian's configuration has it,
/// and 50 messages kept for each channel.
pub async fn start(scratch: &Path) -> anyhow::Result<Running> {
    let mut running = Running::prepare(scratch)?;
    let server = running.free_address()?;
    let text = configuration(server, running.directory());
    let file = running.write_file("nginx.conf", &text)?;
    running.spawn(PROGRAM, |command| {
        command.args(["-e", "stderr", "-c"]).arg(file);
    })?;
    running
        .until_ready(async || Ok(Connection::open(server, None).await.map(drop)?))
        .await?;
    running.open(Service::Nchan(server), None);
    Ok(running)
}

fn configuration(server: SocketAddr, directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "daemon off;\nworker_processes auto;\npid {directory}/nginx.pid;\nerror_log stderr error;\n\
         load_module {MODULE};\n\
         events {{ worker_connections 65536; multi_accept on; }}\n\
         http {{\n\
         access_log off;\n\
         client_body_temp_path {directory}/body;\n\
         proxy_temp_path {directory}/proxy;\n\
         fastcgi_temp_path {directory}/fastcgi;\n\
         uwsgi_temp_path {directory}/uwsgi;\n\
         scgi_temp_path {directory}/scgi;\n\
         keepalive_requests 1000000000;\n\
         nchan_shared_memory_size 1024m;\n\
         server {{\n\
         listen {server} backlog=4096;\n\
         location ~ ^/sub/(\\w+)$ {{ nchan_subscriber websocket; nchan_channel_id $1; }}\n\
         location ~ ^/pub/(\\w+)$ {{ nchan_publisher http; nchan_channel_id $1;\n\
         nchan_message_buffer_length 50; }}\n\
         }}\n}}\n"
    )
}

/// Subscribes a recipient to its channel.
pub async fn subscribe(connection: &mut Connection, name: &str) -> anyhow::Result<()> {
    connection.upgrade(HOST, &format!("/sub/{name}")).await
}

/// See [`Service::hear`].
pub fn hear<'a>(bytes: &'a [u8], reply: &mut Vec<u8>, pushed: Pushed<'_, 'a>) -> Hearing<'a> {
    hear_frame(bytes, reply, |message, _| {
        let Incoming::Text(text) = message else {
            return Err("a frame is not text".to_owned());
        };
        pushed(None, read_data(text.as_bytes())?);
        Ok(())
    })
}

/// One publisher.
pub struct Publisher {
    caller: Caller,
    request: Vec<u8>,
}

impl Publisher {
    /// See [`Service::publisher`].
    pub fn new(server: SocketAddr) -> Self {
        Self {
            caller: Caller::new(server, None),
            request: Vec::new(),
        }
    }

    /// See [`super::Publisher::publish`].
    pub async fn publish(&mut self, to: &str, data: &str) -> Result<Answered, CallError> {
        self.request.clear();
        let head = format!(
            "POST /pub/{to} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n"
        );
        write_request(&mut self.request, &head, data.as_bytes());
        let answer = self.caller.call(&self.request).await?;
        Ok(match answer.status {
            // 201: somebody listens; 202: nobody does, and it is kept.
            201 | 202 => Answered::yes(),
            _ => Answered::no(Outcome::Refused, answer.to_string()),
        })
    }
}
