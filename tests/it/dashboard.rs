//! The dashboard in a real Chromium, before a real daemon with mail coming in. It looks at what a person sees and does what
//! a person does; and nothing that came with a message may become more than text.

mod axe;
pub(crate) mod browser;
mod changes;
mod corners;
mod views;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::json;
use tempfile::TempDir;

use crate::dashboard::browser::{Browser, DESK, ENTER, ESCAPE, LEFT, Look, PHONE, TAB};
use crate::support::client::Client;
use crate::support::daemon::{Daemon, Home, configuration};
use crate::support::process::free_address;
use crate::support::zone::Zone;

/// Names that try to be markup, where DNS is the one who says them: a PTR record, a mail exchanger.
const HOSTILE: &str = r"
77.0.0.127.in-addr.arpa. 60 IN PTR \060img\047src\061x\047onerror\061hit\040\041\062.evil.test.
evil.test. 60 IN MX 10 \060script\062hit\040\041\060\047script\062.evil.test.
";

/// A daemon, what it asks, and who looks at it.
struct Site {
    daemon: Daemon,
    smtp: SocketAddr,
    admin: SocketAddr,
    browser: Browser,
    _zone: Zone,
    _files: TempDir,
}

impl Site {
    /// With this folder of the history, empty for none. None where there is no browser.
    async fn start(more: &str, history: &str) -> Option<Self> {
        let browser = Browser::start(DESK).await?;
        let files = tempfile::tempdir().unwrap();
        let hostile = files.path().join("hostile.zone");
        std::fs::write(&hostile, HOSTILE).unwrap();
        let zone = Zone::serving(&["--file", hostile.to_str().unwrap()]);
        let (smtp, admin) = (free_address(), free_address());
        let text = configuration("gate.test", &[smtp], zone.address(), more);
        let text = text.replace("admin = \"\"", &format!("admin = \"{admin}\""));
        let text = text.replace("path = \"\"", &format!("path = \"{history}\""));
        let daemon = Daemon::start(&text, &[]).await;
        Some(Self { daemon, smtp, admin, browser, _zone: zone, _files: files })
    }

    async fn open(&self, view: &str) {
        self.browser.open(&format!("http://{}/{view}", self.admin)).await;
    }

    /// One message from `127.0.0.CLIENT`; the code of the reply that ended it.
    async fn send(&self, client: u8, sender: &str, author: &str) -> u16 {
        self.send_as("mail.good.test", client, sender, author).await
    }

    async fn send_as(&self, helo: &str, client: u8, sender: &str, author: &str) -> u16 {
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, client));
        let mut client = Client::greeted(from, self.smtp, helo).await;
        let message =
            format!("From: \"<script>hit()</script>\" <{author}>\r\nSubject: test\r\n\r\nHello\r\n");
        client.deliver(sender, "user@here.test", message.as_bytes()).await.code
    }

    /// Of each kind one, so often.
    async fn traffic(&self, rounds: usize) {
        for _ in 0..rounds {
            for (client, sender, author) in [
                (10, "a@good.test", "a@good.test"),
                (27, "list@bulk.test", "offers@bulk.test"),
                (11, "boss@nowhere.test", "boss@good.test"),
                (12, "info@nomx.test", "info@nomx.test"),
                (28, "service@bank.test", "service@bank-login.test"),
                (14, "office@null-mx.test", "office@null-mx.test"),
                (10, "news@good.test", "news@good.test"),
                (22, "a@broken.test", "a@broken.test"),
            ] {
                self.send(client, sender, author).await;
            }
        }
    }

    /// The page did nothing that it must not, and asked nobody else.
    async fn assert_clean(&self) {
        let trouble = self.browser.trouble().await;
        assert!(trouble.is_empty(), "{trouble:#?}");
        self.assert_asked_nobody_else().await;
    }

    async fn assert_asked_nobody_else(&self) {
        let own = format!("http://{}/", self.admin);
        let requests = self.browser.requests().await;
        assert!(requests.iter().any(|url| url.starts_with(&own)), "nothing was seen");
        let others: Vec<_> = requests.iter().filter(|url| !url.starts_with(&own) && !is_blank(url)).collect();
        assert!(others.is_empty(), "{others:?}");
    }

    async fn end(self) -> Home {
        self.browser.quit().await;
        self.daemon.terminate().await
    }
}

/// What a new window of a browser shows.
fn is_blank(url: &str) -> bool {
    ["data:", "about:", "chrome:", "chrome-untrusted:"].iter().any(|scheme| url.starts_with(scheme))
}

const POLICY: &str = "[relay]\ndomains = [\"here.test\"]\n[dns.cache]\nmin_ttl = \"5s\"";

/// How many rows the list of decisions has.
const ROWS: &str = "document.querySelectorAll('.decisions tbody tr').length";
/// Whether the page is told by the daemon.
const LIVE: &str = "document.getElementById('link').textContent === 'live'";

fn legend(name: &str) -> String {
    format!(
        "Number([...document.querySelectorAll('#legend .key')].find((key) => key.textContent.startsWith('{name}'))\
         ?.querySelector('b').textContent.replace(/\\D/g, '') ?? 0)"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_flows_is_seen_filtered_and_explained() {
    let Some(site) = Site::start(POLICY, "history").await else { return };
    let page = &site.browser;
    site.open("").await;
    page.until(LIVE).await;
    page.until("document.getElementById('rows').textContent.includes('No decisions yet')").await;

    site.traffic(1).await;
    page.until(&format!("{ROWS} === 8")).await;
    page.until(&format!("{} === 3", legend("accept"))).await;
    let drawn = "[...document.querySelectorAll('#plot path.bar')].map((bar) => bar.getAttribute('d')).join()";
    let before = page.text(drawn).await;
    site.traffic(3).await;
    page.until(&format!("{} === 12 && {} === 8", legend("accept"), legend("no such domain"))).await;
    assert_ne!(page.text(drawn).await, before, "the plot moves");
    page.until("document.getElementById('top-domains').textContent.includes('nowhere.test')").await;
    for part in ["Verdicts", "Connections", "DNS cache", "DNS", "Relay", "History"] {
        page.until(&format!("document.querySelector('.tile[data-name=\"{part}\"] b').textContent !== ''"))
            .await;
    }
    page.until("document.querySelector('.tile[data-name=\"Relay\"]').className.includes('good')").await;

    page.fill("#filters [name=domain]", "nomx.test").await;
    page.press(TAB).await;
    page.until(&format!("{ROWS} === 4 && location.hash === '#traffic?domain=nomx.test'")).await;
    page.click(".decisions tbody tr td.sender").await;
    page.until("document.getElementById('decision').open && document.querySelector('.tree .decides')").await;
    let shown = page.text("document.getElementById('decision').innerText").await;
    for part in [
        "reject",
        "MAIL FROM: no MX",
        "550 5.1.8 <info@nomx.test>: nomx.test has no MX record (id ",
        "MX nomx.test",
        "decides",
        "127.0.0.12",
        "user@here.test",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    page.screenshot("decision-light").await;
    page.click("#decision-body a.button").await;
    page.until("document.querySelector('#check-result .tree .decides')").await;
    let shown = page.text("document.getElementById('check').innerText").await;
    assert!(shown.contains("nomx.test has no MX record (id ID)"), "{shown}");

    site.open("#audit").await;
    page.fill("#audit-form [name=domain]", "twolines.test").await;
    page.fill("#audit-form [name=egress]", "127.0.1.1, 127.0.1.2").await;
    page.click("#audit-form button.main").await;
    page.until("document.querySelector('#audit-result table')").await;
    let shown = page.text("document.getElementById('audit-result').innerText").await;
    for part in
        ["would be lost over at least one address", "twolines.test. 3600 IN MX 20 line2.twolines.test."]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    site.assert_clean().await;
    pictures(&site).await;
    site.assert_clean().await;
    site.end().await;
}

/// Each view in each look; on a phone nothing is wider than the screen.
async fn pictures(site: &Site) {
    let views = [
        ("traffic", "", "#latest-title"),
        (
            "check",
            "#check?client=127.0.0.28&mail_from=service@bank.test&from=service@bank-login.test",
            "#check-result .tree",
        ),
        ("audit", "#audit?domain=twolines.test&egress=127.0.1.1&egress=127.0.1.2", "#audit-result table"),
        ("would", "#would", "#would-rows .empty"),
    ];
    for (name, look) in [("light", DESK), ("dark", Look { dark: true, ..DESK }), ("narrow", PHONE)] {
        site.browser.look(look).await;
        for (view, hash, shown) in views {
            site.open("#traffic").await;
            site.open(hash).await;
            site.browser.until(&format!("document.querySelector('{shown}')")).await;
            site.browser.until(&format!("{LIVE} && {ROWS} > 0")).await;
            assert_eq!(site.browser.overflow().await, 0, "{view} {name}");
            site.browser.screenshot(&format!("{view}-{name}")).await;
        }
        site.open("#traffic").await;
        site.browser.until(&format!("{ROWS} > 0")).await;
        site.browser.script("document.querySelector('.decisions tbody a').click()").await;
        site.browser.until("document.querySelector('#decision .tree')").await;
        assert_eq!(site.browser.overflow().await, 0, "decision {name}");
        let wider = "document.getElementById('decision').scrollWidth - document.getElementById('decision').clientWidth";
        assert_eq!(site.browser.text(wider).await, "0", "decision {name}");
        site.browser.screenshot(&format!("decision-{name}")).await;
        site.browser.script("document.getElementById('decision').close()").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_from_the_network_is_text_and_never_markup() {
    const MARKUP: &str = "<img/src=x/onerror=hit()>";
    const SCRIPT: &str = "<script>hit()</script>";
    let more = format!("{POLICY}\n[policy.ptr]\nexists = \"tag\"\n[policy.helo]\nexists = \"tag\"");
    let Some(site) = Site::start(&more, "history").await else { return };
    let page = &site.browser;
    site.open("").await;
    page.until(LIVE).await;
    let senders = [
        ("mail.evil.test", "a@evil.test".to_owned(), "a@evil.test".to_owned()),
        (SCRIPT, format!("\"{MARKUP}\"@nomx.test"), "a@good.test".to_owned()),
        (MARKUP, "a@good.test".to_owned(), format!("\"{SCRIPT}\"@nomx.test")),
        ("mail.good.test", "a@good.test".to_owned(), "<img/src=x/onerror=hit()>@nomx.test".to_owned()),
        // Taken, so that all was looked at: the PTR record, too.
        ("mail.good.test", "a@good.test".to_owned(), "a@good.test".to_owned()),
    ];
    for (helo, sender, author) in &senders {
        site.send_as(helo, 77, sender, author).await;
    }
    page.until(&format!("{ROWS} === {}", senders.len())).await;
    let listed = page.text("document.getElementById('rows').innerText").await;
    for text in [MARKUP, SCRIPT] {
        assert!(listed.contains(text), "{text}: {listed}");
    }
    let mut told = String::new();
    for row in 0..senders.len() {
        page.script(&format!("document.querySelectorAll('.decisions tbody a')[{row}].click()")).await;
        page.until("document.querySelector('#decision .tree')").await;
        told += &page.text("document.getElementById('decision').innerText").await;
        page.press(ESCAPE).await;
        page.until("!document.getElementById('decision').open").await;
    }
    // HELO, MAIL FROM, the PTR record and the mail exchanger, each as it came.
    for text in [SCRIPT, MARKUP, "<img/src=x/onerror=hit()>.evil.test", "<script>hit()</script>.evil.test"] {
        assert!(told.contains(text), "{text}: {told}");
    }
    let hash = "#check?client=127.0.0.77&helo=%3Cscript%3Ehit()%3C/script%3E&mail_from=%22%3Cimg%20src=x%20onerror=hit()%3E%22@evil.test";
    site.open(hash).await;
    page.until(
        "document.querySelector('#check-result .tree') || !document.querySelector('#check .problem').hidden",
    )
    .await;
    site.open("#traffic?domain=%3Cscript%3Ehit()%3C/script%3E").await;
    page.until("document.getElementById('rows').textContent.includes('No decision fits') || !document.getElementById('latest-problem').hidden").await;
    site.open("#decision/%3Cscript%3Ehit()%3C%2Fscript%3E").await;
    page.until("document.querySelector('#decision .problem')").await;

    assert_eq!(page.text("typeof window.hit").await, "undefined");
    let made = "document.querySelectorAll('main img, dialog img, main script, dialog script, iframe').length";
    assert_eq!(page.text(made).await, "0", "elements that the page didn't make");
    // That a filter or an id is refused shows in the console as a request that failed, and must.
    let trouble = page.trouble().await;
    let refused = |text: &&String| !text.contains("the server responded with a status of 40");
    assert_eq!(trouble.iter().filter(refused).count(), 0, "{trouble:#?}");
    site.assert_asked_nobody_else().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_is_enough_from_the_token_to_the_evidence() {
    let more = format!("{POLICY}\n[admin]\ntoken = \"correct-horse\"");
    let Some(site) = Site::start(&more, "history").await else { return };
    let page = &site.browser;
    site.open("").await;
    page.until("document.activeElement.name === 'token'").await;
    page.screenshot("token-light").await;
    page.press("wrong").await;
    page.press(ENTER).await;
    page.until("document.getElementById('token-problem').textContent.includes('the token is wrong')").await;
    assert_eq!(page.text("document.querySelector('.decisions') === null").await, "true");
    page.press("correct-horse").await;
    page.press(ENTER).await;
    page.until(LIVE).await;
    assert_eq!(
        page.text("document.cookie + JSON.stringify(localStorage)").await,
        "{}",
        "kept for this tab only"
    );
    site.traffic(1).await;
    page.until(&format!("{ROWS} === 8 && {} === 3", legend("accept"))).await;

    page.press_until(TAB, "document.activeElement.matches('#plot svg')").await;
    page.press_until(LEFT, "document.activeElement.getAttribute('aria-valuetext').includes('accept')").await;
    page.press(ESCAPE).await;
    page.press_until(TAB, "document.activeElement.matches('#plot-table summary')").await;
    page.press(ENTER).await;
    let accepted = "[...document.querySelectorAll('#plot-table tbody td:nth-child(2)')]\
                    .reduce((sum, cell) => sum + Number(cell.textContent), 0)";
    page.until(&format!("{accepted} === 3")).await;
    page.press_until(TAB, "document.activeElement.name === 'reason'").await;
    page.press("null").await;
    page.press_until(TAB, "document.activeElement.matches('.decisions tbody a')").await;
    page.until(&format!("{ROWS} === 1")).await;
    page.press_until(TAB, "document.activeElement.matches('.decisions tbody a')").await;
    page.press(ENTER).await;
    page.until("document.querySelector('#decision .tree .decides')").await;
    assert_eq!(
        page.text("document.getElementById('decision').contains(document.activeElement)").await,
        "true"
    );
    page.press(ESCAPE).await;
    page.until("!document.getElementById('decision').open").await;
    assert_eq!(
        page.text("document.activeElement.matches('.decisions tbody a')").await,
        "true",
        "back where it was"
    );

    page.script("scrollTo(0, 0); document.querySelector('.brand').focus()").await;
    page.press_until(TAB, "document.activeElement.hash === '#check'").await;
    page.press(ENTER).await;
    page.press_until(TAB, "document.activeElement.name === 'client'").await;
    page.press("127.0.0.10").await;
    page.press(TAB).await;
    page.press(TAB).await;
    page.press("a@good.test").await;
    page.press(ENTER).await;
    page.until("document.querySelector('#check-result .badge.accept')").await;
    assert_eq!(page.text("document.activeElement.id").await, "check-result", "where the answer is");
    let trouble = page.trouble().await;
    let refused = |text: &&String| !text.contains("the server responded with a status of 401");
    assert_eq!(trouble.iter().filter(refused).count(), 0, "{trouble:#?}");
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn monitor_mode_tells_what_it_let_through_with_lines_to_copy() {
    let more = format!("{POLICY}\n[policy]\nmode = \"monitor\"");
    let Some(site) = Site::start(&more, "history").await else { return };
    let page = &site.browser;
    for (client, sender) in
        [(12, "a@nomx.test"), (12, "b@nomx.test"), (11, "a@nowhere.test"), (10, "a@good.test")]
    {
        assert_eq!(site.send(client, sender, "a@good.test").await, 250, "{sender}");
    }
    site.open("").await;
    page.until(&format!("{LIVE} && {ROWS} === 4")).await;
    page.until("document.getElementById('monitor').checkVisibility()").await;
    assert_eq!(page.text("document.querySelectorAll('.decisions .badge.soft-kind').length").await, "3");
    page.until(&format!("{} === 2", legend("no MX, not enforced"))).await;
    page.screenshot("monitor-light").await;
    page.click("#monitor a").await;
    page.until("document.querySelectorAll('.would tbody tr').length === 2").await;
    let first = page.text("document.querySelector('.would tbody tr').innerText").await;
    for part in
        ["nomx.test", "no MX", "127.0.0.12", "2", "clients = [\"127.0.0.12\"]", "whatever sender it names"]
    {
        assert!(first.contains(part), "{part}: {first}");
    }
    page.allow_clipboard(site.admin).await;
    page.click(".would tbody tr input").await;
    page.click("#would-block .copy").await;
    page.until("document.querySelector('#would-block .copy').textContent === 'Copied'").await;
    page.script("navigator.clipboard.readText().then((text) => { window.copied = text; })").await;
    page.until("window.copied !== undefined").await;
    assert_eq!(page.script("return window.copied").await, json!("[exempt]\nclients = [\"127.0.0.12\"]\n"));
    page.click("#would-all").await;
    let all = page.text("document.querySelector('#would-lines').textContent").await;
    assert_eq!(all, "[exempt]\nclients = [\"127.0.0.11\", \"127.0.0.12\"]\n");
    page.screenshot("would-monitor-light").await;
    page.look(PHONE).await;
    assert_eq!(page.overflow().await, 0);
    page.screenshot("would-monitor-narrow").await;
    // More than the API tells unasked.
    for number in 0..51 {
        site.send(11, &format!("a@nowhere-{number}.test"), "a@good.test").await;
    }
    page.until("document.getElementById('would-page')?.textContent === '1 to 50 of 53 senders'").await;
    page.click("#would-all").await;
    let all = page.text("document.querySelector('#would-lines').textContent").await;
    assert!(!all.contains("nowhere"), "what the sender wrote is not proposed: {all}");
    site.assert_clean().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_daemon_is_gone_says_so_and_finds_it_again() {
    let Some(site) = Site::start(POLICY, "history").await else { return };
    site.send(10, "a@good.test", "a@good.test").await;
    site.open("").await;
    site.browser.until(&format!("{LIVE} && {ROWS} === 1")).await;
    let Site { daemon, browser, admin, _zone: zone, _files: files, smtp } = site;
    let home = daemon.terminate().await;
    browser.until("document.getElementById('gone').checkVisibility()").await;
    assert!(
        browser.text("document.getElementById('gone').innerText").await.contains("No answer from rmxd since")
    );
    assert_eq!(browser.text(ROWS).await, "1", "what was known stays");
    browser.screenshot("gone-light").await;
    let daemon = Daemon::spawn(home.serve(), home).await;
    browser.click("#retry").await;
    browser.until(&format!("{LIVE} && document.getElementById('gone').hidden")).await;
    let site = Site { daemon, browser, admin, smtp, _zone: zone, _files: files };
    site.send(12, "a@nomx.test", "a@nomx.test").await;
    site.browser.until(&format!("{ROWS} === 2")).await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_history_the_page_says_what_is_missing_and_shows_the_rest() {
    let Some(site) = Site::start(POLICY, "").await else { return };
    site.open("").await;
    site.browser.until(LIVE).await;
    site.traffic(1).await;
    site.browser.until(&format!("{} === 3", legend("accept"))).await;
    for place in ["rows", "top-domains", "top-clients"] {
        site.browser
            .until(&format!("document.getElementById('{place}').textContent.includes('History is off')"))
            .await;
    }
    site.assert_clean().await;
    site.end().await;
}
