//! Topics as senders manage them, in both of FCM's forms: one subscription a call
//! (`registrations`), and the older Instance ID calls, which take many tokens at once.

pub mod instance_id;
pub mod registrations;

use std::num::NonZeroU32;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::clock::Millis;
use crate::http::Public;
use crate::metrics::Shed;
use crate::projects::Project;
use crate::topic::TopicName;

/// What SDKs write before a topic's name, or take off themselves.
const TOPIC_PREFIX: &str = "/topics/";

/// The topic that is meant, with or without the prefix.
fn topic_name(text: &str) -> Option<TopicName> {
    TopicName::parse(text.strip_prefix(TOPIC_PREFIX).unwrap_or(text))
}

/// Takes so many changes from the project's bucket.
///
/// # Errors
/// How long until there are as many again.
fn take_changes(project: &Project, changes: usize, public: &Public) -> Result<(), Duration> {
    let changes = u32::try_from(changes).ok().and_then(NonZeroU32::new);
    let changes = changes.unwrap_or(NonZeroU32::MIN);
    let cost = changes.saturating_mul(public.node.nodes());
    let bucket = &public.quotas.project_topic_changes;
    bucket
        .take_many(&project.hash(), cost)
        .inspect_err(|_| public.node.metrics().sheds.count(Shed::TopicQuota))
}

/// RFC 3339 in UTC, with milliseconds.
const TIMESTAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// A moment as text. One that no calendar has, which no clock gives, is the empty text.
fn moment_text(moment: Millis, format: &[BorrowedFormatItem<'_>]) -> String {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(moment) * 1_000_000);
    let text = moment.ok().and_then(|moment| moment.format(format).ok());
    text.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_fcm_writes_them() {
        let moment = 1_732_200_000_007;
        assert_eq!(moment_text(moment, TIMESTAMP), "2024-11-21T14:40:00.007Z");
        assert_eq!(moment_text(moment, DATE), "2024-11-21");
    }

    #[test]
    fn a_topic_may_be_named_with_its_prefix() {
        assert_eq!(topic_name("/topics/news"), topic_name("news"));
        assert_eq!(topic_name("/topics//topics/news"), None);
    }
}
