//! A value that is being worked on while the client goes on talking.

use std::pin::Pin;

use futures_util::FutureExt;
use tokio::task::JoinHandle;

/// A value that is there, or that a task is making; dropping it ends the task.
#[derive(Debug)]
pub(super) struct Pending<T> {
    value: Option<T>,
    task: Option<Task<T>>,
}

/// Ends with its owner: no other task wants the result.
#[derive(Debug)]
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T: Send + 'static> Pending<T> {
    /// A value that is there.
    pub(super) fn ready(value: T) -> Self {
        Self { value: Some(value), task: None }
    }

    /// Tries once at the spot (a warm cache answers at once) and goes on in a task where that wasn't enough.
    pub(super) fn start(work: impl Future<Output = T> + Send + 'static) -> Self {
        let mut work: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(work);
        match (&mut work).now_or_never() {
            Some(value) => Self::ready(value),
            None => Self { value: None, task: Some(Task(tokio::spawn(work))) },
        }
    }

    /// The value, once it is there; `lost` makes one where the task died. May be cancelled and called again.
    pub(super) async fn wait(&mut self, lost: impl FnOnce() -> T) -> &T {
        if let Some(task) = &mut self.task {
            match (&mut task.0).await {
                Ok(value) => self.value = Some(value),
                Err(error) => tracing::error!(%error, "a lookup died"),
            }
            self.task = None;
        }
        self.value.get_or_insert_with(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_value_at_hand_needs_no_task_and_a_slow_one_comes_later() {
        assert!(Pending::start(async { 1 }).task.is_none());
        let mut slow = Pending::start(async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            2
        });
        assert!(slow.task.is_some());
        assert!(tokio::time::timeout(Duration::from_millis(1), slow.wait(|| 0)).await.is_err());
        assert_eq!((*slow.wait(|| 0).await, *slow.wait(|| 0).await), (2, 2));
    }

    #[tokio::test]
    async fn a_task_that_died_is_a_value_too() {
        let mut dying = Pending::start(async {
            tokio::task::yield_now().await;
            panic!("as planned in a test")
        });
        assert_eq!(*dying.wait(|| 7).await, 7);
    }
}
