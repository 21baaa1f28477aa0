//! A panic on purpose: the doors run in the process of the test, under a log that panics.

use std::time::Duration;

use rmxd::config::{Flags, load};
use rmxd::daemon::Daemon;

use super::{bad, each_came_once, good, is_well};
use crate::interop::beside_postfix::Site;
use crate::support::daemon::Home;
use crate::support::log::panic_at;

/// All on the thread of the test, as its log is.
async fn start(home: &Home) -> Daemon {
    let set = vec![("listen.admin".to_owned(), String::new())];
    let flags = Flags { set, drain: Duration::from_secs(10) };
    let environment = [("STATE_DIRECTORY".into(), home.path().into())];
    let settings = load(Some(&home.file()), environment, &flags).unwrap().settings;
    Daemon::start(settings, Vec::new()).await.unwrap()
}

#[tokio::test]
async fn a_panic_of_the_milter_is_a_temporary_failure_and_nothing_comes_of_the_message() {
    let Some(site) = Site::with_milter(|guide| guide) else { return };
    let home = site.home();
    let daemon = start(&home).await;
    let guard = panic_at("outcome=\"passed\"");
    let reply = good(&site, 1).await;
    assert!(reply.text.starts_with("451 4.7.1 "), "{}", reply.text);
    drop(guard);
    let guard = panic_at("mail_from=<a@nowhere.test>");
    let reply = bad(&site).await;
    assert!(reply.text.starts_with("451 4.7.1 "), "{}", reply.text);
    drop(guard);
    is_well(&site, 1).await;
    each_came_once(&site, 1).await;
    daemon.drain().await;
}

#[tokio::test]
async fn a_panic_of_the_policy_service_makes_mail_wait() {
    let Some(site) = Site::with_policy_service(|guide| guide) else { return };
    let home = site.home();
    let daemon = start(&home).await;
    let guard = panic_at("mail_from=<a@nowhere.test>");
    let reply = bad(&site).await;
    let expected =
        "450 4.3.0 <a@nowhere.test>: Sender address rejected: Service unavailable, try again later";
    assert_eq!(reply.text, expected);
    drop(guard);
    is_well(&site, 1).await;
    each_came_once(&site, 1).await;
    daemon.drain().await;
}
