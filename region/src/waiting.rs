//! Waiting for something to be so: asked again and again, never longer than said.

use std::time::Duration;

use anyhow::anyhow;
use tokio::time::{Instant, sleep, timeout};

/// Between two questions.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// One question may take this long: a server that was paused never answers.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// Asks until the answer is no error.
///
/// # Errors
/// After `limit`, with the last answer.
pub(crate) async fn until<T>(
    what: &str,
    limit: Duration,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let answer = within(ATTEMPT_MAX, attempt()).await;
        match answer {
            Ok(answer) => return Ok(answer),
            Err(reason) if Instant::now() >= deadline => {
                return Err(reason.context(format!("{what}: not within {limit:?}")));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// An answer that comes in time.
///
/// # Errors
/// Its own, or that it did not come.
pub(crate) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    timeout(limit, answer)
        .await
        .unwrap_or_else(|_| Err(anyhow!("no answer within {limit:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::ensure;

    #[tokio::test]
    async fn asks_until_it_is_so_and_says_why_it_never_was() {
        let mut count = 0;
        let answer = until("three", Duration::from_secs(10), async || {
            count += 1;
            ensure!(count == 3, "only {count}");
            Ok(count)
        });
        assert_eq!(answer.await.expect("three"), 3);
        let never = until("never", Duration::ZERO, async || -> anyhow::Result<()> {
            Err(anyhow!("not so"))
        });
        let error = format!("{:#}", never.await.expect_err("an error"));
        assert_eq!(error, "never: not within 0ns: not so");
    }
}
