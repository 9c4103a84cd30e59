# Counts stacks, one a paragraph, by the first of these that fits: thread and frames.
function what() {
    if (/^committer/) {
        if (/fdatasync|persist/) return "commit: sync"
        if (/journal/) return "commit: journal"
        if (/WriteBatch|lsm_tree/) return "commit: batch, memtable"
        return "commit: settle, tell the shards"
    }
    if (/^fjall/) return "engine: write out, merge"
    if (/^housekeeper/) return "housekeeping"
    if (/session::Pump|actors::session|actors::registry/) {
        if (/sendto|__send/) return "session: write to the socket"
        if (/recvfrom|__recv/) return "session: read from the socket"
        if (/store::embedded/) return "session: acks to the store"
        return "session: frames, conversation"
    }
    if (/actors::router|routing_table/) return "router"
    if (/actors::storage|store::embedded/) return "storage: admit, number, stage"
    if (/h1::dispatcher|HttpServiceHandler|herald::http/) {
        if (/sendto|__send/) return "http: write the answer"
        if (/recvfrom|__recv/) return "http: read the request"
        if (/fcm|serde/) return "http: the message"
        if (/herald::token/) return "http: open the token"
        return "http: head, route, answer"
    }
    if (/epoll_wait|io::driver|__write/) return "runtime: wait, wake up"
    return "runtime: tasks"
}

{ count[what()]++ }

END { for (it in count) printf "%5.1f %%  %s\n", 100 * count[it] / NR, it }
