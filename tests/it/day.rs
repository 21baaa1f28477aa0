//! A day of an operator: five questions, each answered from the shell by one command, and on the dashboard with three clicks at
//! most. Postfix is behind rmxd. Typing into a field and Enter are no clicks; all others are counted.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::dashboard::browser::{Browser, DESK, ENTER};
use crate::interop::postfix::Postfix;
use crate::support::client::{Client, Reply};
use crate::support::daemon::{Daemon, Home, configuration};
use crate::support::process::{Run, free_address, rmxd};
use crate::support::zone::Zone;

const TOKEN: &str = "the-token-of-this-day";
const MOST_CLICKS: usize = 3;

/// A sender: the last octet of its client's address, and its mailbox.
type Sender = (u8, &'static str);
/// Its domain has no MX, so it is refused.
const PARTNER: Sender = (12, "info@nomx.test");
/// Its client is the exchanger of its domain.
const CUSTOMER: Sender = (10, "a@good.test");
/// It is taken, as the rule `matches` only tags.
const ELSEWHERE: Sender = (77, "b@good.test");

struct Day {
    daemon: Daemon,
    smtp: SocketAddr,
    admin: SocketAddr,
    postfix: Postfix,
    _zone: Zone,
}

impl Day {
    /// `None` without Postfix.
    async fn start() -> Option<Self> {
        let postfix = Postfix::start()?;
        let (zone, smtp, admin) = (Zone::start(), free_address(), free_address());
        let more = format!(
            "[relay]\nnext_hop = \"smtp://{}\"\nidentity = \"xclient\"\n[policy.mail_from]\nmatches = \"tag\"\n\
             matches_by = [\"mx\"]\n[admin]\ntoken = \"{TOKEN}\"\n",
            postfix.address()
        );
        let text = configuration("gate.relay.test", &[smtp], zone.address(), &more);
        let text = text.replace("admin = \"\"", &format!("admin = \"{admin}\""));
        let home = Home::with(&text.replace("path = \"\"", "path = \"decisions\""));
        let strict = fs::read_to_string(home.file()).unwrap();
        let strict = strict.replace("matches = \"tag\"", "matches = \"reject\"");
        fs::write(home.path().join("strict.toml"), strict).unwrap();
        let daemon = Daemon::spawn(home.serve(), home).await;
        Some(Self { daemon, smtp, admin, postfix, _zone: zone })
    }

    async fn send(&self, (client, sender): Sender, recipient: &str) -> Reply {
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, client));
        let mut client = Client::greeted(from, self.smtp, "mail.good.test").await;
        let message = format!("From: {sender}\r\nSubject: order\r\n\r\nHello\r\n");
        client.deliver(sender, recipient, message.as_bytes()).await
    }

    async fn until_answered(&self, sender: Sender, code: u16) {
        for _ in 0..40 {
            if self.send(sender, "user@relay.test").await.code == code {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never answered {code}");
    }

    /// One command, with all of this in its output. It is repeated for a second or so: the history is written once a second.
    async fn shell(&self, command: &str, code: i32, expected: &[&str]) {
        let home = self.daemon.home();
        let arguments: Vec<&str> = command.split(' ').collect();
        let mut last = None;
        for _ in 0..40 {
            let mut command = rmxd(&arguments);
            let run = Run::of(command.env("RMXD_CONFIG", home.file()).current_dir(home.path()));
            if run.code == Some(code) && expected.iter().all(|text| run.out.contains(text)) {
                return;
            }
            last = Some(run);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("rmxd {command}: no {expected:?} in {last:?}");
    }
}

/// A page on which clicks are counted.
struct Page<'d> {
    browser: Browser,
    day: &'d Day,
    clicks: usize,
}

impl<'d> Page<'d> {
    /// Opens the dashboard with its token. `None` without a browser.
    async fn open(day: &'d Day) -> Option<Self> {
        let browser = Browser::start(DESK).await?;
        let page = Self { browser, day, clicks: 0 };
        page.anew().await;
        page.browser.until("document.activeElement.name === 'token'").await;
        page.browser.press(TOKEN).await;
        page.browser.press(ENTER).await;
        page.browser.until("document.getElementById('link').textContent === 'live'").await;
        Some(page)
    }

    async fn anew(&self) {
        self.browser.open(&format!("http://{}/", self.day.admin)).await;
    }

    /// The next question begins with the page as it opens.
    async fn question(&mut self) {
        self.anew().await;
        self.browser.until("document.getElementById('link').textContent === 'live'").await;
        self.browser.until("document.querySelector('.decisions tbody tr')").await;
        self.clicks = 0;
    }

    async fn click(&mut self, selector: &str) {
        self.clicks += 1;
        assert!(self.clicks <= MOST_CLICKS, "{selector} is click {}", self.clicks);
        self.browser.until(&format!("document.querySelector({selector:?})")).await;
        self.browser.click(selector).await;
    }

    /// A click into a field, text, Enter.
    async fn fill(&mut self, selector: &str, text: &str) {
        self.click(selector).await;
        self.browser.press(text).await;
        self.browser.press(ENTER).await;
    }

    /// Two clicks: on a list, and on a value in it. The list of a headless browser can't be clicked, so a script chooses.
    async fn choose(&mut self, selector: &str, value: &str) {
        self.clicks += 2;
        assert!(self.clicks <= MOST_CLICKS, "{selector} is click {}", self.clicks);
        let script = format!(
            "const list = document.querySelector({selector:?}); list.value = {value:?};
             list.dispatchEvent(new Event('change', {{ bubbles: true }})); return list.value"
        );
        assert_eq!(self.browser.script(&script).await, value);
    }

    async fn shows(&self, selector: &str, expected: &[&str]) {
        for text in expected {
            let has = format!("document.querySelector({selector:?})?.innerText.includes({text:?})");
            self.browser.until(&has).await;
        }
    }
}

/// The id of a refusal.
fn id(reply: &Reply) -> String {
    let (_, rest) = reply.text.split_once("(id ").unwrap_or_else(|| panic!("no id in {}", reply.text));
    rest.split(')').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_questions_have_their_answers() {
    let Some(mut day) = Day::start().await else { return };
    let taken = day.send(CUSTOMER, "user@relay.test").await;
    assert_eq!(taken.code, 250, "{}", taken.text);
    let partner = id(&day.send(PARTNER, "user@relay.test").await);
    let unknown = day.send(CUSTOMER, "nobody@relay.test").await;
    assert!(unknown.text.starts_with("550 5.1.1"), "{}", unknown.text);
    day.postfix.stop();
    let down = day.send(CUSTOMER, "other@relay.test").await;
    assert!(down.is_transient(), "{}", down.text);
    day.postfix.start_again();
    day.until_answered(ELSEWHERE, 250).await;

    // Why was this mail refused?
    day.shell(
        &format!("explain {partner}"),
        0,
        &["no_mx", "<info@nomx.test>", "Publish an MX record", "127.0.0.12"],
    )
    .await;
    // What became of that one, to a recipient that Postfix doesn't know?
    day.shell("history --rcpt nobody@relay.test", 0, &["relay_refused", "550 5.1.1", "User unknown"]).await;
    // Is it healthy, and what happened while the relay was down?
    day.shell("status", 0, &["relay"]).await;
    day.shell("history --outcome relay_failed", 0, &["other@relay.test", "accept"]).await;
    // What would a stricter policy cost?
    day.shell(
        "history --would --config strict.toml",
        0,
        &["What strict.toml would have done", "good.test", "not_an_exchanger"],
    )
    .await;
    // Let this sender in tonight.
    day.shell(&format!("allow {partner} --for 12h --note tonight"), 0, &["nomx.test", "127.0.0.0/24"]).await;
    day.until_answered(PARTNER, 250).await;
    day.shell("allow --list", 0, &["nomx.test", "tonight"]).await;
    day.shell("allow --remove 1", 0, &["1"]).await;
    day.until_answered(PARTNER, 550).await;

    the_same_on_the_dashboard(&day, &partner).await;
}

async fn the_same_on_the_dashboard(day: &Day, partner: &str) {
    let Some(mut page) = Page::open(day).await else { return };
    page.question().await;
    page.fill("#find input", partner).await;
    page.shows("#decision", &["no MX", "info@nomx.test", "Publish an MX record"]).await;

    page.question().await;
    page.fill("#filters [name=rcpt]", "nobody@relay.test").await;
    page.shows(".decisions tbody tr", &["550 5.1.1", "User unknown"]).await;

    page.question().await;
    page.shows("[data-name=Relay]", &["reachable"]).await;
    page.choose("#filters [name=outcome]", "relay_failed").await;
    page.shows(".decisions tbody tr", &["other@relay.test"]).await;

    page.question().await;
    page.click("nav a[href='#would']").await;
    page.click("#whatif summary").await;
    page.click("#whatif-form button.main").await;
    page.shows(
        "#whatif-result",
        &["policy.mail_from.matches = \"reject\"", "good.test", "taken, would be refused"],
    )
    .await;

    page.question().await;
    page.fill("#filters [name=id]", partner).await;
    page.click(".decisions .act button").await;
    page.click("#permit-send").await;
    page.shows("#done-text", &["Mail like"]).await;
    day.until_answered(PARTNER, 250).await;
    page.browser.quit().await;
}
