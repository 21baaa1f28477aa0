//! Permits and "What if" on the page: what is let in, what another policy would have done.

use super::{ENTER, ESCAPE, LIVE, POLICY, ROWS, Site};

const NOMX: (u8, &str) = (12, "info@nomx.test");

/// Waits until a message is answered so, as a permit takes a second at most.
async fn until_answered(site: &Site, code: u16) {
    for _ in 0..40 {
        if site.send(NOMX.0, NOMX.1, "info@nomx.test").await == code {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("never answered {code}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_sender_is_let_in_and_its_permit_is_listed_and_removed() {
    let more = format!("{POLICY}\n[admin]\ntoken = \"correct-horse\"");
    let Some(site) = Site::start(&more, "history").await else { return };
    let page = &site.browser;
    assert_eq!(site.send(NOMX.0, NOMX.1, "info@nomx.test").await, 550);
    site.open("#permits").await;
    page.until("document.activeElement.name === 'token'").await;
    page.press("correct-horse").await;
    page.press(ENTER).await;
    page.until(&format!(
        "{LIVE} && document.getElementById('permits-rows').textContent.includes('No permits.')"
    ))
    .await;
    page.screenshot("permits-empty-light").await;
    site.open("#traffic").await;
    page.until(&format!("{ROWS} === 1")).await;
    let id = page.text("document.querySelector('.decisions tbody a').hash.split('/')[1]").await;

    page.click(".decisions .act button").await;
    page.until("document.getElementById('permit').open").await;
    let asks = page.text("document.getElementById('permit').innerText").await;
    for part in [&format!("Let in mail like {id}"), "MAIL FROM no MX", "127.0.0.12", "nomx.test"] {
        assert!(asks.contains(part), "{part}: {asks}");
    }
    assert_eq!(page.text("document.getElementById('permit-token').hidden").await, "true", "it is known");
    page.screenshot("permit-light").await;
    page.click("#permit-time label:has([value='1h'])").await;
    page.fill("#permit-form [name=note]", "<b>the accountant</b>").await;
    page.press(ENTER).await;
    page.until("document.getElementById('done-text').textContent.startsWith('Mail like ')").await;
    let done = page.text("document.getElementById('done-text').textContent").await;
    assert!(done.ends_with(" (permit 1): client 127.0.0.0/24 and sender domain nomx.test."), "{done}");
    assert_eq!(page.text("document.getElementById('permit').open").await, "false");
    until_answered(&site, 250).await;
    // The list waits while the pointer is on it; a search doesn't.
    site.open("#traffic?verdict=accept").await;
    page.until("document.querySelector('.decisions .permit')?.textContent === 'let in by permit 1'").await;

    site.open("#permits").await;
    page.until("document.querySelectorAll('.permits tbody tr').length === 1").await;
    let row = page.text("document.querySelector('.permits tbody tr').innerText").await;
    for part in ["127.0.0.0/24", "nomx.test", "<b>the accountant</b>", "59 min", &id] {
        assert!(row.contains(part), "{part}: {row}");
    }
    page.screenshot("permits-light").await;
    page.click(".permits .decision a").await;
    page.until("document.querySelector('#decision .tree')").await;
    page.press(ESCAPE).await;
    page.click(".permits .act button").await;
    page.until("document.getElementById('permit').open").await;
    page.click("#permit-send").await;
    page.until("document.getElementById('done-text').textContent === 'Permit 1 is removed.'").await;
    page.until("document.getElementById('permits-rows').textContent.includes('No permits.')").await;
    until_answered(&site, 550).await;
    let kept = page.text("JSON.stringify(localStorage) + document.cookie").await;
    assert_eq!(kept, "{}");
    site.assert_asked_nobody_else().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_asks_about_the_domain_that_the_permit_will_be_for() {
    let more = format!("{POLICY}\n[policy.helo]\nexists = \"reject\"\n[policy.ptr]\nexists = \"reject\"");
    let Some(site) = Site::start(&more, "history").await else { return };
    let page = &site.browser;
    assert_eq!(site.send_as("nomx.test", 10, "a@good.test", "a@good.test").await, 550);
    site.open("#traffic").await;
    page.until(&format!("{ROWS} === 1")).await;
    page.click(".decisions .act button").await;
    page.until("document.getElementById('permit').open").await;
    let asks = page.text("document.getElementById('permit-text').innerText").await;
    assert!(asks.contains("has the sender domain good.test, whatever"), "{asks}");
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_needs_the_token_and_the_page_says_what_is_wrong() {
    let Some(site) = Site::start(POLICY, "history").await else { return };
    let page = &site.browser;
    assert_eq!(site.send(NOMX.0, NOMX.1, "info@nomx.test").await, 550);
    site.open("").await;
    page.until(&format!("{LIVE} && {ROWS} === 1")).await;
    page.click(".decisions .act button").await;
    page.until("document.getElementById('permit').open && !document.getElementById('permit-token').hidden")
        .await;
    page.fill("#permit-form [name=token]", "made-up").await;
    page.press(ENTER).await;
    page.until("document.getElementById('permit-problem').textContent.includes('admin.token')").await;
    assert_eq!(page.text("document.getElementById('permit').open").await, "true");
    page.press(ESCAPE).await;
    page.until("!document.getElementById('permit').open && document.activeElement.matches('.act button')")
        .await;
    let kept = page.text("JSON.stringify(sessionStorage) + JSON.stringify(localStorage)").await;
    assert_eq!(kept, "{}{}", "nothing outlives the page");
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_if_shows_what_would_have_been_refused_and_what_cant_be_known() {
    let more = format!("{POLICY}\n[policy.mail_from]\nmatches_by = [\"mx\"]");
    let Some(site) = Site::start(&more, "history").await else { return };
    let page = &site.browser;
    for _ in 0..3 {
        assert_eq!(site.send(77, "a@good.test", "a@good.test").await, 250);
    }
    assert_eq!(site.send(NOMX.0, NOMX.1, "info@nomx.test").await, 550);
    site.open("#would").await;
    page.until(&format!(
        "{LIVE} && document.getElementById('would-rows').textContent.includes('In enforce mode')"
    ))
    .await;
    page.click("#whatif summary").await;
    page.click("#whatif-form button.main").await;
    page.until("document.querySelector('#whatif-result .sentence')").await;
    let shown = page.text("document.getElementById('whatif-result').innerText").await;
    for part in [
        "Of 4 decisions",
        "3 would be others",
        "policy.mail_from.matches = \"reject\"",
        "Taken, and would not be 3",
        "good.test",
        "taken, would be refused",
        "not an exchanger",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    page.screenshot("whatif-light").await;
    // The envelope was refused, so nobody knows the header.
    page.script("const [rule, action] = document.querySelectorAll('#whatif-rules select'); rule.value = 'mail_from.exists';
        rule.dispatchEvent(new Event('change')); action.value = 'off';").await;
    page.click("#whatif-form button.main").await;
    page.until(
        "document.getElementById('whatif-result').innerText.includes('policy.mail_from.exists = \"off\"')",
    )
    .await;
    let shown = page.text("document.getElementById('whatif-result').innerText").await;
    for part in ["Can't be known 1", "nomx.test", "the header didn't come, as the envelope was refused"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    // HELO must not refuse.
    let offered = "const [rule] = document.querySelectorAll('#whatif-rules select'); rule.value = 'helo.matches';
        rule.dispatchEvent(new Event('change')); return [...document.querySelectorAll('#whatif-rules select')[1].options].map((one) => one.value).join();";
    assert_eq!(page.script(offered).await, "off,tag");
    site.assert_clean().await;
    site.end().await;
}
