//! What happens to a token's pushes: numbers, pages, acknowledgements, replacement, races.

use super::*;

pub async fn pushes_are_numbered_and_read_in_order(open: Open<'_>) {
    let subject = open(LIMITS);
    let (token, other) = (token_of("demo"), token_of("demo"));
    let mut sent = Vec::new();
    for syn in 1..=5 {
        let push = push(token, START + syn);
        sent.push(push.clone());
        let stored = Appended::Stored {
            syn,
            prev_syn: syn - 1,
            syn_stored: syn,
            deleted_up_to: None,
            audience: Audience::Here,
        };
        assert_eq!(subject.send(push).await, stored);
    }
    assert_eq!(
        subject.send_live(push(other, START)).await,
        1,
        "tokens count alone"
    );
    let read = subject.read(&token, 0, START).await;
    assert_eq!(syns_of(&read), [1, 2, 3, 4, 5]);
    for (read, sent) in read.iter().zip(&sent) {
        assert_eq!(read.message_id, sent.message_id);
        assert_eq!(read.accepted_at, sent.accepted_at);
        assert_eq!(read.expires_at, sent.expires_at);
        assert_eq!(read.message, sent.message);
    }
    assert_eq!(syns_of(&subject.read(&token, 3, START).await), [4, 5]);
    assert_eq!(subject.contact(&token, 0, START).await, live(5, 0));
    subject.assert_conserved(6).await;
    subject.assert_totals(2, 6);
}

pub async fn pages_are_cut_by_count_and_by_bytes(open: Open<'_>) {
    let subject = open(LIMITS);
    let token = token_of("demo");
    for _ in 0..5 {
        subject.send_live(push(token, START)).await;
    }
    let size = push(token, START).message.len();

    let page = subject.page(&token, 0, 2, usize::MAX, START).await;
    assert_eq!(syns_of(&page.pushes), [1, 2]);
    assert_eq!((page.read_up_to, page.syn_stored, page.more), (2, 5, true));
    let page = subject.page(&token, 2, 3, usize::MAX, START).await;
    assert_eq!(syns_of(&page.pushes), [3, 4, 5]);
    assert_eq!((page.read_up_to, page.syn_stored, page.more), (5, 5, false));

    let page = subject.page(&token, 0, 10, 0, START).await;
    assert_eq!(syns_of(&page.pushes), [1], "one push is always returned");
    assert_eq!((page.read_up_to, page.more), (1, true));
    let page = subject.page(&token, 0, 10, size + 1, START).await;
    assert_eq!(syns_of(&page.pushes), [1, 2], "the second passes the limit");
    let page = subject.page(&token, 4, 10, 0, START).await;
    assert_eq!((page.read_up_to, page.more), (5, false));

    let page = subject.page(&token, 9, 10, 10, START).await;
    assert_eq!(
        (page.pushes.len(), page.read_up_to, page.more),
        (0, 9, false)
    );
}

pub async fn acks_bite_what_is_settled_and_nothing_later(open: Open<'_>) {
    let subject = open(LIMITS);
    let token = token_of("demo");
    assert_eq!(subject.contact(&token, 1, START).await, live(0, 0));
    for _ in 0..4 {
        subject.send_live(push(token, START)).await;
    }
    assert_eq!(subject.ack(&token, 2, START).await, 2);
    assert_eq!(
        subject.ack(&token, 1, START).await,
        2,
        "marks never go back"
    );
    assert_eq!(subject.syns(&token, START).await, [3, 4]);
    assert_eq!(subject.contact(&token, 4, START).await, live(4, 3));
    assert_eq!(subject.ack(&token, Syn::MAX, START).await, 4);
    assert_eq!(subject.send_live(push(token, START)).await, 5);
    assert_eq!(
        subject.syns(&token, START).await,
        [5],
        "acknowledged before it was sent"
    );
    assert_eq!(subject.contact(&token, Syn::MAX, START).await, live(5, 5));
    assert_eq!(subject.counters.counts().acked, 5);
    subject.assert_conserved(5).await;
}

pub async fn now_or_never_gets_a_number_and_no_row(open: Open<'_>) {
    let subject = open(LIMITS);
    let token = token_of("demo");
    subject.send_live(keyed(token, START, 1)).await;
    let fleeting = NewPush {
        expires_at: START,
        ..keyed(token, START, 2)
    };
    let stored = Appended::Stored {
        syn: 2,
        prev_syn: 1,
        syn_stored: 2,
        deleted_up_to: None,
        audience: Audience::Here,
    };
    assert_eq!(subject.send(fleeting.clone()).await, stored);
    assert_eq!(subject.syns(&token, START).await, [1]);
    assert_eq!(subject.counters.counts().expired, 1);
    let replacing = NewPush {
        collapse_key: Some([1; 16]),
        ..fleeting
    };
    assert_eq!(subject.send_live(replacing).await, 3);
    assert!(
        subject.syns(&token, START).await.is_empty(),
        "it replaces all the same"
    );
    subject.assert_conserved(3).await;
}

pub async fn a_newer_push_replaces_one_of_its_collapse_key(open: Open<'_>) {
    let subject = open(LIMITS);
    let (token, other) = (token_of("demo"), token_of("demo"));
    subject.send_live(keyed(token, START, 1)).await;
    subject.send_live(push(token, START)).await;
    subject.send_live(keyed(other, START, 1)).await;
    subject.send_live(keyed(token, START, 1)).await;
    assert_eq!(subject.syns(&token, START).await, [2, 3]);
    assert_eq!(
        subject.syns(&other, START).await,
        [1],
        "keys belong to a token"
    );
    assert_eq!(subject.ack(&token, 3, START).await, 3);
    subject.send_live(keyed(token, START, 1)).await;
    assert_eq!(
        subject.counters.counts().collapsed,
        1,
        "acknowledged ones are gone already"
    );
    assert_eq!(subject.syns(&token, START).await, [4]);
    subject.assert_conserved(5).await;
}

pub async fn a_fifth_collapse_key_replaces_the_oldest(open: Open<'_>) {
    let subject = open(LIMITS);
    let token = token_of("demo");
    subject.send_live(push(token, START)).await;
    for key in 0..COLLAPSE_KEYS_MAX {
        let key = u8::try_from(key).expect("few keys");
        subject.send_live(keyed(token, START, key)).await;
    }
    subject.send_live(keyed(token, START, 0)).await;
    assert_eq!(subject.syns(&token, START).await, [1, 3, 4, 5, 6]);
    subject.send_live(keyed(token, START, 9)).await;
    assert_eq!(subject.syns(&token, START).await, [1, 4, 5, 6, 7]);
    assert_eq!(subject.counters.counts().collapsed, 2);
    subject.assert_conserved(7).await;
}

pub async fn the_cap_drops_the_oldest_and_says_so(open: Open<'_>) {
    let subject = open(StoreLimits {
        pending_per_token: 3,
        ..LIMITS
    });
    let token = token_of("demo");
    for _ in 0..3 {
        subject.send_live(push(token, START)).await;
    }
    for syn in 4..=5 {
        let stored = Appended::Stored {
            syn,
            prev_syn: syn - 1,
            syn_stored: syn,
            deleted_up_to: Some(syn - 3),
            audience: Audience::Here,
        };
        assert_eq!(subject.send(push(token, START)).await, stored);
    }
    assert_eq!(subject.syns(&token, START).await, [3, 4, 5]);
    let reported = Contact::Live {
        syn_stored: 5,
        acked: 1,
        deleted_up_to: Some(2),
    };
    assert_eq!(subject.contact(&token, 2, START).await, reported);
    assert_eq!(
        subject.contact(&token, 3, START).await,
        live(5, 2),
        "the reader is past them"
    );
    let stored = subject.send(push(token, START)).await;
    assert!(matches!(
        stored,
        Appended::Stored {
            deleted_up_to: Some(3),
            ..
        }
    ));
    assert_eq!(subject.ack(&token, 3, START).await, 3);
    assert_eq!(subject.contact(&token, 1, START).await, live(6, 3));
    assert_eq!(subject.counters.counts().dropped, 3);
    subject.assert_conserved(6).await;
}

/// Senders on several threads, a reader that only ever asks for what comes after the last it saw.
pub async fn readers_skip_nothing_while_senders_race(open: Open<'_>) {
    const SENDERS: u64 = 4;
    const PUSHES_EACH: u64 = 500;
    let subject = open(StoreLimits {
        pending_per_token: 10_000,
        ..LIMITS
    });
    let token = token_of("demo");
    let settled = Arc::new(AtomicU64::new(0));
    let count = settled.clone();
    let sink: SettledSink = Arc::new(move |group: Vec<Settled>| {
        for settled in &group {
            let is_stored = matches!(settled.outcome, Ok(Appended::Stored { .. }));
            assert!(is_stored, "{:?}", settled.outcome);
        }
        count.fetch_add(group.len() as u64, Ordering::Relaxed);
    });
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (store, sink) = (subject.store.clone(), sink.clone());
            std::thread::spawn(move || {
                for ticket in 0..PUSHES_EACH {
                    store.append(push(token, START), ticket, &sink);
                }
            })
        })
        .collect();
    let mut seen = Vec::new();
    let mut cursor = 0;
    while seen.len() as u64 != SENDERS * PUSHES_EACH {
        let page = subject.page(&token, cursor, 50, usize::MAX, START).await;
        assert!(page.read_up_to >= cursor && page.read_up_to <= page.syn_stored);
        assert!(page.pushes.iter().all(|push| push.syn > cursor));
        seen.extend(syns_of(&page.pushes));
        cursor = page.read_up_to;
        tokio::task::yield_now().await;
    }
    let expected: Vec<Syn> = (1..=SENDERS * PUSHES_EACH).collect();
    assert_eq!(seen, expected);
    for sender in senders {
        sender.join().expect("the sender ends well");
    }
    subject.store.flush().await.expect("the store flushes");
    assert_eq!(settled.load(Ordering::Relaxed), SENDERS * PUSHES_EACH);
    subject.assert_conserved(SENDERS * PUSHES_EACH).await;
}
