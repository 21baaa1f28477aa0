//! What an operator does with the page, view by view: finds a decision by its id or by a search, reads what became of it, looks
//! back 14 days, and copies lines for the configuration.

use super::{DESK, Daemon, ENTER, ESCAPE, LIVE, PHONE, POLICY, ROWS, Site, TAB, corners::CHANGE, legend};

/// The id of the first row.
const FIRST_ID: &str = "document.querySelector('.decisions tbody a').hash.split('/')[1]";

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_found_however_it_was_noted_and_a_wrong_one_is_explained() {
    let Some(site) = Site::start(POLICY, "history").await else { return };
    let page = &site.browser;
    site.send(12, "info@nomx.test", "a@good.test").await;
    site.open("#check").await;
    page.until(LIVE).await;
    site.open("#traffic").await;
    page.until(&format!("{ROWS} === 1")).await;
    let id = page.text(FIRST_ID).await;

    let other = if id == "4KXN7Q2M" { "4KXN7Q2N" } else { "4KXN7Q2M" };
    for (noted, wrong) in [
        ("4KXN-7Q", "is not an id: an id has 8 letters and digits, such as 4KXN7Q2M; this has 6."),
        ("4KXU7Q2M", "no id has the letter U; it may be a V."),
        ("4KXN*Q2M", "“*” is in no id."),
        (" ", "Enter the id of a decision"),
        (other, &format!("no decision \"{other}\" is kept: ")),
    ] {
        page.fill("#find input", noted).await;
        page.press(ENTER).await;
        page.until(&format!("document.getElementById('find-text').textContent.includes('{wrong}')")).await;
        page.until("document.activeElement === document.querySelector('#find input')").await;
        assert_eq!(page.text("document.getElementById('decision').open").await, "false", "{noted}");
    }
    let (head, tail) = id.split_at(4);
    let misread = format!(" {} - {} ", head.to_lowercase(), tail.replace('0', "o").replace('1', "l"));
    page.fill("#find input", &misread).await;
    page.press(ENTER).await;
    page.until("document.getElementById('decision').open && document.querySelector('#decision .tree')").await;
    assert_eq!(
        page.text("document.getElementById('decision-title').textContent").await,
        format!("Decision {id}")
    );
    assert_eq!(page.text("document.getElementById('find-problem').hidden").await, "true");
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_of_the_search_finds_its_decisions_and_is_in_the_address() {
    let Some(site) = Site::start(POLICY, "history").await else { return };
    let page = &site.browser;
    site.traffic(1).await;
    site.open("").await;
    page.until(&format!("{LIVE} && {ROWS} === 8")).await;
    let id = page.text(FIRST_ID).await;
    for (field, value, found) in [
        ("sender", "OFFERS@bulk.test", 1),
        ("sender", "boss@nowhere.test", 1),
        ("sender", "nobody@good.test", 0),
        ("rcpt", "USER@here.test", 8),
        ("rcpt", "other@here.test", 0),
        ("client", "127.0.0.12", 1),
        ("domain", "nomx.test", 1),
        ("id", &id, 1),
        ("queue", "4jcGdd1D05z1VcKC", 0),
        ("verdict", "defer", 1),
        ("outcome", "delivered", 3),
        ("outcome", "refused", 5),
        ("reason", "null_mx", 1),
        ("tag", "mail_loop", 0),
        ("identity", "from", 4),
        ("since", "2h", 8),
        ("until", "2h", 0),
    ] {
        site.open(&format!("#traffic?{field}={value}")).await;
        page.until(&format!("{LIVE} && document.getElementById('filters-set').textContent === '1 set'"))
            .await;
        let shown = match found {
            0 => "document.getElementById('rows').textContent.includes('No decision fits')".to_owned(),
            _ => format!("{ROWS} === {found}"),
        };
        page.until(&format!(
            "{shown} && document.getElementById('latest-title').textContent === 'Decisions found'"
        ))
        .await;
    }
    // How many there are depends on what was looked up when the verdict was given.
    site.open("#traffic?tag=not_an_exchanger").await;
    let found = "document.getElementById('rows').innerText";
    page.until(&format!("{found}.includes('service@bank.test') && !{found}.includes('a@good.test')")).await;
    site.open("#traffic").await;
    page.until(&format!("{ROWS} === 8")).await;
    page.fill("#filters [name=sender]", "info@nomx.test").await;
    page.press(ENTER).await;
    page.until(&format!("{ROWS} === 1 && location.hash === '#traffic?sender=info%40nomx.test'")).await;
    page.click("#filters [type=reset]").await;
    page.until(&format!("{ROWS} === 8 && location.hash === '#traffic'")).await;
    page.fill("#filters [name=sender]", "no address").await;
    page.press(ENTER).await;
    page.until(
        "document.getElementById('latest-problem').textContent.includes('neither an address such as')",
    )
    .await;
    site.assert_asked_nobody_else().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_phone_the_search_comes_first_folded_and_the_keyboard_follows_what_is_seen() {
    let Some(site) = Site::start(POLICY, "history").await else { return };
    let page = &site.browser;
    site.traffic(1).await;
    page.look(PHONE).await;
    site.open("").await;
    page.until(&format!("{LIVE} && {ROWS} === 8")).await;
    let above = |id: &str| {
        format!(
            "document.getElementById('filters-fold').getBoundingClientRect().bottom <= \
             document.getElementById('{id}').getBoundingClientRect().top"
        )
    };
    for below in ["tiles", "plot", "top-domains", "rows"] {
        page.until(&above(below)).await;
    }
    assert_eq!(page.text("document.querySelector('#filters [name=rcpt]').checkVisibility()").await, "false");
    page.press_until(TAB, "document.activeElement.matches('#filters-fold summary')").await;
    page.press(ENTER).await;
    page.press(TAB).await;
    page.until("document.activeElement.name === 'sender' && document.activeElement.checkVisibility()").await;
    assert_eq!(page.overflow().await, 0);
    page.screenshot("search-narrow").await;
    page.look(DESK).await;
    page.until("document.getElementById('latest').contains(document.getElementById('filters-fold'))").await;
    page.until("document.querySelector('#filters [name=rcpt]').checkVisibility()").await;
    site.assert_clean().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helo_name_is_a_claim_and_a_confirmed_ptr_name_is_a_name() {
    let Some(site) = Site::start(POLICY, "history").await else { return };
    let page = &site.browser;
    // 127.0.0.99 has no PTR record; whoever is there says that it is the bank.
    site.send_as("mail.bank.test", 99, "info@nomx.test", "a@good.test").await;
    site.send_as("mail.bank.test", 10, "a@good.test", "a@good.test").await;
    site.open("").await;
    page.until(&format!("{LIVE} && {ROWS} === 2")).await;
    let cells =
        "[...document.querySelectorAll('.decisions .client')].map((cell) => cell.innerText).join('|')";
    let shown = page.text(cells).await;
    assert_eq!(shown, "127.0.0.10\nmail.good.test|127.0.0.99\nHELO claims “mail.bank.test”");
    let claimed = "[...document.querySelectorAll('#rows *')].filter((one) => one.children.length === 0 && \
                   one.textContent.includes('mail.bank.test')).every((one) => one.closest('.claim'))";
    assert_eq!(page.text(claimed).await, "true");
    page.script("document.querySelectorAll('.decisions tbody a')[1].click()").await;
    page.until("document.querySelector('#decision .tree')").await;
    let fact = "[...document.querySelectorAll('#decision .facts div')].find((one) => one.textContent.includes('mail.bank.test')).innerText";
    assert_eq!(page.text(fact).await.replace('\n', " "), "HELO claims mail.bank.test");
    site.assert_clean().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_shows_what_was_tagged_and_what_became_of_it() {
    let Some(site) = Site::start(POLICY, "history").await else { return };
    let page = &site.browser;
    site.send(77, "a@good.test", "a@good.test").await;
    site.open("").await;
    page.until(&format!("{LIVE} && {ROWS} === 1")).await;
    let row = "document.querySelector('.decisions tbody tr').innerText";
    let shown = page.text(row).await;
    assert!(shown.contains("tagged PTR: PTR not confirmed"), "{shown}");
    assert!(shown.contains("user@here.test\ndelivered"), "{shown}");

    let change = "for (const one of value.decisions) Object.assign(one, { id: '00000001', outcome: 'relay_refused', relay_reply: '550 5.1.1 <b>unknown</b> user', verdict: 'accept' });";
    let change = CHANGE.replace("PATH", "/api/v1/decisions?").replace("CHANGE", change);
    page.script(&change).await;
    page.script("location.hash = 'traffic?verdict=accept'").await;
    page.until(&format!("{row}.includes('refused by the relay: 550 5.1.1 <b>unknown</b> user')")).await;
    site.assert_clean().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_local_with_their_zone_and_have_utc_and_the_date_of_another_day() {
    let Some(site) = Site::start(POLICY, "history").await else { return };
    let page = &site.browser;
    page.zone("Asia/Kolkata").await;
    site.send(12, "info@nomx.test", "a@good.test").await;
    site.open("").await;
    page.until(&format!("{LIVE} && {ROWS} === 1")).await;
    assert_eq!(page.text("document.querySelector('.decisions th').textContent").await, "Time (GMT+5:30)");
    assert!(page.text("document.getElementById('foot').textContent").await.contains("(GMT+5:30)"));
    let time = "document.querySelector('.decisions time')";
    page.until(&format!("{time}.dateTime.endsWith('Z') && {time}.title === {time}.dateTime.replace('T', ' ').replace(/\\.\\d+Z/, ' UTC')")).await;
    page.until(&format!("{time}.textContent === new Date({time}.dateTime).toTimeString().slice(0, 8)")).await;

    let change = "for (const one of value.decisions) Object.assign(one, { id: '00000001', at: '2025-02-03T22:15:10.123Z' });";
    page.script(&CHANGE.replace("PATH", "/api/v1/decisions?").replace("CHANGE", change)).await;
    page.script("location.hash = 'traffic?verdict=reject'").await;
    page.until(&format!("{time}.innerText.replace(/\\s+/g, ' ') === 'Feb 4, 2025 03:45:10'")).await;
    assert_eq!(page.text(&format!("{time}.title")).await, "2025-02-03 22:15:10 UTC");
    // A time of the search is local in its field, and UTC for the daemon.
    site.open("#traffic?since=2025-02-03T22:15:00Z").await;
    page.until("document.querySelector('#filters [name=since]').value === '2025-02-04T03:45'").await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_nothing_of_the_last_14_days() {
    let Some(site) = Site::start(POLICY, "history").await else { return };
    site.traffic(1).await;
    site.open("").await;
    let Site { daemon, browser, admin, _zone: zone, _files: files, smtp } = site;
    let home = daemon.terminate().await;
    let daemon = Daemon::spawn(home.serve(), home).await;
    let site = Site { daemon, browser, admin, smtp, _zone: zone, _files: files };
    let page = &site.browser;
    site.open("#check").await;
    site.open("#traffic").await;
    page.until(LIVE).await;
    page.until(&format!("{} === 3", legend("accept"))).await;
    site.traffic(1).await;
    page.until(&format!("{} === 6 && {} === 4", legend("accept"), legend("no such domain"))).await;
    for (minutes, bar) in [("360", "5 min"), ("1440", "5 min"), ("10080", "30 min"), ("20160", "1 h")] {
        page.click(&format!("#plot-span label:has([value='{minutes}'])")).await;
        page.until(&format!("document.getElementById('plot-time').textContent === '{bar} per bar'")).await;
        page.until(&format!("{} === 6 && {} === 4", legend("accept"), legend("no such domain"))).await;
        let tops = "document.getElementById('top-domains').innerText";
        page.until(&format!(
            "{tops}.includes('nowhere.test') && !document.querySelector('.since').textContent.includes('min')"
        ))
        .await;
    }
    assert_eq!(page.text("document.querySelector('.since').textContent").await, "last 14 d");
    page.click("#plot-table summary").await;
    page.until("document.querySelector('#plot-table th').textContent === 'From, 1 h each'").await;
    site.assert_asked_nobody_else().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chosen_lines_are_one_valid_table_and_many_senders_have_pages() {
    let monitor = format!("{POLICY}\n[policy]\nmode = \"monitor\"\n[policy.mail_from]\nmatches = \"reject\"");
    let Some(site) = Site::start(&monitor, "history").await else { return };
    let page = &site.browser;
    site.traffic(1).await;
    site.open("#would").await;
    page.until("document.querySelectorAll('.would tbody tr').length > 3").await;
    assert_eq!(page.text("document.getElementById('would-lines') === null").await, "true", "none chosen");
    page.click("#would-all").await;
    page.until("document.getElementById('would-lines')").await;
    let block = page.text("document.getElementById('would-lines').textContent").await;
    let parsed: toml::Table = toml::from_str(&block).unwrap_or_else(|error| panic!("{error}: {block}"));
    let exempt = parsed["exempt"].as_table().unwrap();
    assert_eq!(parsed.len(), 1, "{block}");
    let clients: Vec<&str> =
        exempt["clients"].as_array().unwrap().iter().map(|entry| entry.as_str().unwrap()).collect();
    for client in ["127.0.0.11", "127.0.0.12", "127.0.0.14", "127.0.0.28"] {
        assert!(clients.contains(&client), "{block}");
    }
    page.screenshot("would-chosen-light").await;

    let change = "const one = value.senders.find((row) => row.exempt);
      value.senders = Array.from({ length: 120 }, (_, at) => ({ ...one, domain: `d${at}.test`, exempt: `domains = [\"d${at}.test\"]` }));";
    page.script(&CHANGE.replace("PATH", "/api/v1/would?").replace("CHANGE", change)).await;
    page.until("document.getElementById('would-page')?.textContent === '1 to 50 of 120 senders'").await;
    page.click("#would-pick-1").await;
    page.click("#would-after").await;
    page.until("document.getElementById('would-page').textContent === '51 to 100 of 120 senders'").await;
    page.click("#would-pick-0").await;
    page.click("#would-after").await;
    page.until("document.querySelectorAll('.would tbody tr').length === 20 && document.getElementById('would-after').disabled").await;
    let block = page.text("document.getElementById('would-lines').textContent").await;
    assert_eq!(block, "[exempt]\ndomains = [\"d1.test\", \"d50.test\"]\n");
    site.assert_clean().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dialogs_keep_the_focus_and_give_it_back() {
    let Some(site) = Site::start(POLICY, "history").await else { return };
    let page = &site.browser;
    site.send(12, "info@nomx.test", "a@good.test").await;
    site.open("").await;
    page.until(&format!("{LIVE} && {ROWS} === 1")).await;
    let focus = "document.activeElement";
    page.press_until(TAB, &format!("{focus}.matches('.decisions tbody a')")).await;
    let outline = format!("getComputedStyle({focus}).outlineStyle");
    assert_eq!(page.text(&outline).await, "solid", "the focus is seen");
    page.press(ENTER).await;
    page.until("document.querySelector('#decision .tree')").await;
    for _ in 0..8 {
        page.press(TAB).await;
        let inside =
            format!("{focus} === document.body || document.getElementById('decision').contains({focus})");
        assert_eq!(page.text(&inside).await, "true");
    }
    page.press_until(TAB, &format!("{focus}.textContent === 'Let in …'")).await;
    page.press(ENTER).await;
    page.until("document.getElementById('permit').open").await;
    page.press(ESCAPE).await;
    page.until(&format!("!document.getElementById('permit').open && {focus}.textContent === 'Let in …'"))
        .await;
    assert_eq!(page.text("document.getElementById('decision').open").await, "true", "one at a time");
    page.press(ESCAPE).await;
    page.until(&format!(
        "!document.getElementById('decision').open && {focus}.matches('.decisions tbody a')"
    ))
    .await;
    site.assert_clean().await;
    site.end().await;
}
