//! A panic in one connection or request ends that one only. The release profile unwinds for this.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// Runs a future to its end; a panic is an error with its message. What the future shares with others is either
/// immutable, atomic, or behind a lock whose poison is ignored, so that others see nothing half done.
///
/// Not an `async fn`, which would hold the future twice: as its argument and as what it awaits.
pub(crate) fn catch_panic<T>(future: impl Future<Output = T>) -> impl Future<Output = Result<T, String>> {
    AssertUnwindSafe(future).catch_unwind().map(|result| result.map_err(|panic| message(panic.as_ref())))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("not a text").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_panic_is_found() {
        let found = |panic: Box<dyn Any + Send>| message(panic.as_ref());
        assert_eq!(found(Box::new("plain")), "plain");
        assert_eq!(found(Box::new("made".to_owned())), "made");
        assert_eq!(found(Box::new(7)), "not a text");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_a_result_stays() {
        assert_eq!(catch_panic(async { 7 }).await, Ok(7));
        assert_eq!(catch_panic(async { panic!("broken {}", 7) }).await, Err::<(), _>("broken 7".to_owned()));
    }
}
