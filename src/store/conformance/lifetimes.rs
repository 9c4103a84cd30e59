//! When pushes, tokens and idempotency keys begin and end.

use super::*;

pub async fn expired_pushes_are_never_read(open: Open<'_>) {
    let subject = open(LIMITS);
    let token = token_of("demo");
    let short = NewPush {
        expires_at: START + 1_000,
        ..push(token, START)
    };
    subject.send_live(push(token, START)).await;
    subject.send_live(short).await;
    subject.send_live(push(token, START)).await;
    assert_eq!(subject.syns(&token, START + 999).await, [1, 2, 3]);
    assert_eq!(subject.syns(&token, START + 1_000).await, [1, 3]);
    let page = subject
        .page(&token, 0, 1, usize::MAX, START + HOUR - 1)
        .await;
    assert!(page.more, "one more lives");
    let page = subject.page(&token, 1, 1, usize::MAX, START + HOUR).await;
    assert_eq!(
        (page.pushes.len(), page.read_up_to, page.more),
        (0, 3, false)
    );
    subject.sweep(START + HOUR + 10_000).await;
    subject.assert_swept(3);
    assert_eq!(
        subject.contact(&token, 1, START + HOUR + 10_000).await,
        live(3, 0)
    );
    subject.assert_conserved(3).await;
    subject.assert_totals(1, 0);
}

pub async fn expired_pushes_make_way_before_live_ones(open: Open<'_>) {
    let subject = open(StoreLimits {
        pending_per_token: 2,
        ..LIMITS
    });
    let token = token_of("demo");
    subject.send_live(push(token, START)).await;
    let short = NewPush {
        expires_at: START + 10,
        ..keyed(token, START, 1)
    };
    subject.send_live(short).await;
    subject.send_live(keyed(token, START + 10, 1)).await;
    assert_eq!(subject.syns(&token, START + 10).await, [1, 3]);
    let counts = subject.counters.counts();
    assert_eq!(
        (counts.expired, counts.dropped, counts.collapsed),
        (1, 0, 0)
    );
    subject.assert_conserved(3).await;
}

pub async fn an_idempotency_key_answers_for_a_day(open: Open<'_>) {
    let subject = open(LIMITS);
    let (token, key) = (token_of("demo"), IdempotencyKey([5; 16]));
    assert_eq!(subject.claim(key, START).await, Claim::Fresh);
    let first = NewPush {
        idempotency: Some(key),
        ..push(token, START)
    };
    subject.send_live(first.clone()).await;
    let answered = Claim::Answered(first.message_id);
    subject.ack(&token, 1, START).await;
    subject.delete(&token, START).await;
    let almost = START + IDEMPOTENCY_MS - 1;
    subject.sweep(almost).await;
    assert_eq!(
        subject.claim(key, almost).await,
        answered,
        "it outlives the push"
    );
    assert_eq!(
        subject.claim(IdempotencyKey([6; 16]), almost).await,
        Claim::Fresh
    );
    assert_eq!(
        subject.claim(key, START + IDEMPOTENCY_MS).await,
        Claim::Fresh
    );

    let later = START + IDEMPOTENCY_MS + 10_000;
    let again = TokenAddress {
        minted_minutes: u32::try_from(later / 60_000).expect("fits"),
        ..token_of("demo")
    };
    let second = NewPush {
        idempotency: Some(key),
        ..push(again, later)
    };
    subject.send_live(second.clone()).await;
    subject.sweep(later).await;
    let answered = Claim::Answered(second.message_id);
    assert_eq!(
        subject.claim(key, later).await,
        answered,
        "the sweep took the old one only"
    );

    let refused = NewPush {
        idempotency: Some(IdempotencyKey([7; 16])),
        ..push(token, later)
    };
    assert_eq!(subject.send(refused).await, Appended::Unregistered);
    let unused = IdempotencyKey([7; 16]);
    assert_eq!(
        subject.claim(unused, later).await,
        Claim::Fresh,
        "a refusal leaves no trace"
    );
}

pub async fn a_record_is_made_at_first_contact_only(open: Open<'_>) {
    let subject = open(LIMITS);
    let in_time = START + FIRST_CONTACT_MS;
    let late = in_time + 1;
    let (heard, sent, silent) = (token_of("demo"), token_of("demo"), token_of("demo"));
    assert_eq!(subject.contact(&heard, 1, in_time).await, live(0, 0));
    assert_eq!(subject.send_live(push(sent, in_time)).await, 1);
    assert_eq!(
        subject.contact(&silent, 1, late).await,
        Contact::Unregistered
    );
    assert_eq!(
        subject.send(push(silent, late)).await,
        Appended::Unregistered
    );
    assert_eq!(subject.ack(&silent, 1, late).await, 0);
    assert!(subject.read(&silent, 0, late).await.is_empty());
    assert_eq!(subject.send_live(push(heard, late)).await, 1);
    assert_eq!(subject.contact(&sent, 1, late).await, live(1, 0));
    subject.assert_conserved(2).await;
    subject.assert_totals(2, 2);
}

pub async fn a_deleted_token_stays_dead(open: Open<'_>) {
    let subject = open(LIMITS);
    let (token, unseen, old) = (token_of("demo"), token_of("demo"), token_of("demo"));
    subject.send_live(push(token, START)).await;
    subject.send_live(push(token, START)).await;
    subject.contact(&old, 1, START).await;
    subject.delete(&token, START).await;
    subject.delete(&unseen, START).await;
    let after_window = START + FIRST_CONTACT_MS + 1;
    subject.delete(&old, after_window).await;
    for now in [
        START,
        START + FIRST_CONTACT_MS,
        after_window,
        after_window + HOUR,
    ] {
        subject.sweep(now).await;
        for token in [token, unseen, old] {
            if token == old && now < after_window {
                continue;
            }
            assert_eq!(subject.contact(&token, 1, now).await, Contact::Unregistered);
            assert_eq!(subject.send(push(token, now)).await, Appended::Unregistered);
            assert!(subject.read(&token, 0, now).await.is_empty());
            assert_eq!(subject.ack(&token, 5, now).await, 0);
        }
    }
    subject.delete(&token, after_window + HOUR).await;
    assert_eq!(subject.counters.counts().deleted, 2);
    subject.assert_conserved(2).await;
    subject.assert_totals(0, 0);
}

pub async fn a_token_lives_while_it_is_heard_of(open: Open<'_>) {
    let subject = open(StoreLimits {
        token_ttl_ms: 10 * HOUR,
        ..LIMITS
    });
    let token = token_of("demo");
    let mut now = START;
    for _ in 0..8 {
        assert_eq!(subject.contact(&token, 1, now).await, live(0, 0));
        now += 10 * HOUR - 1;
        subject.sweep(now).await;
    }
    assert_eq!(subject.contact(&token, 1, now).await, live(0, 0));
    subject.assert_conserved(0).await;
    subject.assert_totals(1, 0);
}

pub async fn a_silent_token_ends_with_its_pushes(open: Open<'_>) {
    let subject = open(StoreLimits {
        token_ttl_ms: 10 * HOUR,
        ..LIMITS
    });
    let (token, unswept) = (token_of("demo"), token_of("demo"));
    subject.contact(&unswept, 1, START).await;
    subject.send_live(push(token, START)).await;
    let long = NewPush {
        expires_at: START + 100 * HOUR,
        ..push(token, START)
    };
    subject.send_live(long).await;
    let past_its_end = START + 10 * HOUR + 2 * HOUR;
    assert_eq!(
        subject.contact(&unswept, 1, past_its_end).await,
        Contact::Unregistered
    );
    assert_eq!(
        subject.send(push(unswept, past_its_end)).await,
        Appended::Unregistered
    );
    subject.sweep(past_its_end).await;
    assert_eq!(
        subject.contact(&token, 1, past_its_end).await,
        Contact::Unregistered
    );
    assert!(subject.read(&token, 0, past_its_end).await.is_empty());
    if subject.books == Books::Exact {
        let counts = subject.counters.counts();
        assert_eq!(
            (counts.expired, counts.deleted),
            (1, 1),
            "each by what came first"
        );
    }
    subject.assert_conserved(2).await;
    subject.assert_totals(0, 0);
}

pub async fn a_sweep_over_many_tokens_misses_none(open: Open<'_>) {
    const TOKENS: u64 = 1_500;
    let subject = open(LIMITS);
    let mut reports = Reports::new();
    for index in 0..TOKENS {
        let push = NewPush {
            expires_at: START + 1_000 + index,
            ..push(token_of("demo"), START)
        };
        subject.store.append(push, index, &reports.sink);
    }
    for _ in 0..TOKENS {
        reports.next().await.outcome.expect("stored");
    }
    subject.sweep(START + 500).await;
    assert_eq!(subject.counters.counts().expired, 0);
    subject.sweep(START + HOUR).await;
    subject.sweep(START + HOUR).await;
    subject.assert_swept(TOKENS);
    subject.assert_conserved(TOKENS).await;
    subject.assert_totals(TOKENS, 0);
}
