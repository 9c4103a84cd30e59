//! What the judge holds a page against that a poll is answered with.

use herald::clock::Millis;
use herald::push::Syn;
use herald::store::Page;

use crate::judge::{Judge, Seen};
use crate::reader::Reader;

/// A page that somebody has asked for.
pub struct Asked {
    token: usize,
    after: Syn,
    /// The watermark, as he knows it.
    syn_stored: Syn,
    at: Millis,
    /// What was there, and is to be on the page if it is still there then.
    due: Vec<Syn>,
}

impl Judge {
    /// A device begins to poll.
    pub fn polls(&mut self, reader: &Reader, token: usize, min_syn: Syn) {
        self.totals.polls += 1;
        self.note(&format!(
            "token {token}: {} polls from {min_syn}",
            reader.id
        ));
    }

    /// It asks for a page after a number.
    pub fn asks_for_page(&self, token: usize, after: Syn, syn_stored: Syn) -> Asked {
        Asked {
            token,
            after,
            syn_stored,
            at: self.clock.now(),
            due: self.due(token, after),
        }
    }

    /// What a reader must be shown that has come to a number: none of it is expired, replaced,
    /// dropped or acknowledged.
    fn due(&self, token: usize, after: Syn) -> Vec<Syn> {
        let (ledger, now) = (self.store.ledger(), self.clock.now());
        let Some(log) = ledger.log(self.tokens[token]) else {
            return Vec::new();
        };
        let due = log.rows.range(after + 1..).filter(|(syn, row)| {
            let is_expired = now >= row.expires_at;
            !is_expired && !log.is_done_with(**syn)
        });
        due.map(|(syn, _)| *syn).collect()
    }

    /// The page is there.
    pub fn pages(&mut self, reader: &mut Reader, asked: &Asked, page: &Page) {
        let token = asked.token;
        assert!(
            page.syn_stored >= asked.syn_stored,
            "promise 5: the watermark of token {token} was {} before it is {}",
            asked.syn_stored,
            page.syn_stored
        );
        if let Some(up_to) = page.deleted_up_to {
            self.is_told(reader, token, up_to);
        }
        for push in &page.pushes {
            let syn = push.syn;
            assert!(
                (asked.after + 1..=page.syn_stored).contains(&syn),
                "promise 5: {syn} of token {token} is above the watermark, or not asked for"
            );
            self.sees(
                reader,
                &Seen {
                    token,
                    syn,
                    text: std::str::from_utf8(&push.message).expect("a text"),
                    name: &push.message_id.to_string(),
                    handed_over: asked.at,
                },
            );
        }
        let still_due = self.due(token, asked.after);
        let is_there = |syn: &Syn| page.pushes.iter().any(|push| push.syn == *syn);
        let mut due = asked.due.iter().filter(|syn| still_due.contains(syn));
        let passed_over = due.find(|syn| **syn <= page.read_up_to && !is_there(syn));
        assert_eq!(
            passed_over, None,
            "promise 4: a page of token {token} has passed over a push"
        );
    }
}
