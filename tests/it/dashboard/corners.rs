//! What shows only when something is late, mangled or unknown. Answers are held back, or put in their place, where the page
//! asks for them: a real daemon is late too seldom.

use super::{ENTER, ESCAPE, LIVE, POLICY, ROWS, Site, TAB, legend};

/// Keeps the first answer from below a path until `release()`.
const HOLD: &str = "
    const ask = window.fetch;
    delete window.release;
    let held = false;
    window.fetch = async (url, options) => {
      if (held || !url.startsWith('PATH')) return ask(url, options);
      held = true;
      const answer = await ask(url, options);
      await new Promise((done) => { window.release = () => { done(); setTimeout(() => { window.released = true; }, 200); }; });
      return answer;
    };
    window.released = false;";

/// Answers what is asked below a path with what comes of the daemon's answer, `value`.
pub(super) const CHANGE: &str = "
    const ask = window.fetch;
    window.fetch = async (url, options) => {
      const answer = await ask(url, options);
      if (!url.startsWith('PATH')) return answer;
      const value = await answer.json();
      CHANGE
      return new Response(JSON.stringify(value));
    };";

#[tokio::test(flavor = "multi_thread")]
async fn older_goes_on_from_the_page_that_is_shown_after_more_than_a_page_came_at_once() {
    let Some(site) = Site::start(POLICY, "history").await else { return };
    let page = &site.browser;
    for _ in 0..3 {
        site.send(10, "a@good.test", "a@good.test").await;
    }
    site.open("").await;
    page.until(&format!("{LIVE} && {ROWS} === 3 && document.getElementById('older').hidden")).await;
    page.click("#latest-hold").await;
    site.traffic(6).await;
    page.until("document.getElementById('latest-state').textContent === 'paused, 40 or more newer'").await;
    page.click("#latest-hold").await;
    page.until(&format!("{ROWS} === 40 && document.getElementById('older').checkVisibility()")).await;
    page.click("#older").await;
    page.until(&format!("{ROWS} === 51 && document.getElementById('older').hidden")).await;
    site.assert_clean().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_names_nothing_stops_nothing_and_skipping_changes_no_view() {
    let Some(site) = Site::start(POLICY, "history").await else { return };
    let page = &site.browser;
    site.open("#decision/%").await;
    page.until(&format!("{LIVE} && document.querySelector('#decision .problem')")).await;
    page.press(ESCAPE).await;
    page.until("!document.getElementById('decision').open").await;

    let filtered = "#traffic?domain=nomx.test";
    for (address, shown) in [("#check", "check"), (filtered, "traffic")] {
        site.open(address).await;
        page.until(&format!("document.getElementById('{shown}').checkVisibility()")).await;
        page.script("document.querySelector('.skip').focus()").await;
        page.press(ENTER).await;
        page.until("document.activeElement.id === 'content'").await;
        assert_eq!(page.text("location.hash").await, address);
        page.script("addEventListener('hashchange', () => { window.went = location.hash; }, { once: true })")
            .await;
        page.script("location.hash = 'nothing'").await;
        page.until("window.went === '#nothing'").await;
        let visible = format!("document.getElementById('{shown}').checkVisibility()");
        assert_eq!(page.text(&visible).await, "true", "{shown} stays");
    }
    assert_eq!(page.text("document.querySelector('#filters [name=domain]').value").await, "nomx.test");
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_the_latest_question_stays_when_an_earlier_one_comes_late() {
    let Some(site) = Site::start(POLICY, "history").await else { return };
    let page = &site.browser;
    site.traffic(1).await;
    site.open("").await;
    page.until(&format!("{LIVE} && {ROWS} === 8")).await;

    page.script(&HOLD.replace("PATH", "/api/v1/decisions/")).await;
    page.script("document.querySelectorAll('.decisions tbody a')[0].click()").await;
    page.until("window.release").await;
    page.press(ESCAPE).await;
    page.until("!document.getElementById('decision').open").await;
    page.script("document.querySelectorAll('.decisions tbody a')[1].click()").await;
    page.until("document.querySelector('#decision .tree')").await;
    let body = "document.getElementById('decision-body').innerText";
    let second = page.text(body).await;
    page.script("release()").await;
    page.until("window.released").await;
    assert_eq!(page.text(body).await, second);
    page.press(ESCAPE).await;

    page.script(&HOLD.replace("PATH", "/api/v1/check?")).await;
    page.script("location.hash = 'check?client=127.0.0.10&mail_from=a@good.test'").await;
    page.until("window.release").await;
    page.script("location.hash = 'check?client=127.0.0.12&mail_from=a@nomx.test'").await;
    page.until("document.querySelector('#check-result .badge.reject')").await;
    page.script("release()").await;
    page.until("window.released").await;
    assert_eq!(page.text("document.querySelector('#check-result .badge').textContent").await, "reject");
    site.assert_clean().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plot_keeps_its_focus_and_a_late_sum_is_told_only_where_it_stands() {
    let Some(site) = Site::start(POLICY, "history").await else { return };
    let page = &site.browser;
    site.open("").await;
    page.until(LIVE).await;
    page.press_until(TAB, "document.activeElement.matches('#plot svg')").await;
    page.script("window.plotted = document.activeElement").await;
    site.traffic(1).await;
    page.until(&format!("{} === 3", legend("accept"))).await;
    assert_eq!(page.text("document.activeElement === window.plotted && plotted.isConnected").await, "true");

    page.script(
        "const ask = window.fetch;
         window.fetch = (url, options) => url.startsWith('/api/v1/top')
           ? Promise.reject(new DOMException('late', 'TimeoutError')) : ask(url, options);",
    )
    .await;
    page.until("document.querySelector('.since').textContent === 'unknown: no answer within 10 s'").await;
    site.traffic(1).await;
    page.until(&format!("{LIVE} && {ROWS} === 16")).await;
    assert_eq!(page.text("document.getElementById('gone').hidden").await, "true");
    site.assert_clean().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_explains_itself_is_taken_at_its_word_and_not_known_is_not_no() {
    let Some(site) = Site::start(POLICY, "history").await else { return };
    let page = &site.browser;
    site.send(12, "info@nomx.test", "a@good.test").await;
    site.open("").await;
    page.until(&format!("{LIVE} && {ROWS} === 1")).await;

    // Of two rules that fail the record says which one it was, whatever else would fit.
    let change = "value.notes = { helo: 'exempt <client>' };
      const one = value.findings.find((finding) => finding.result === 'fail');
      value.findings = [{ ...one, decides: false }, { ...one, subject: 'deciding.test', decides: true }, { ...one, decides: false }];";
    page.script(&CHANGE.replace("PATH", "/api/v1/decisions/").replace("CHANGE", change)).await;
    page.script("document.querySelector('.decisions tbody a').click()").await;
    page.until("document.querySelector('#decision .tree')").await;
    assert_eq!(
        page.text("document.querySelector('.tree > .quiet').textContent").await,
        "HELO exempt <client>"
    );
    let deciding = "[...document.querySelectorAll('.tree .decides')].map((one) => one.querySelector('code').textContent).join()";
    assert_eq!(page.text(deciding).await, "deciding.test");
    page.press(ESCAPE).await;

    let change = "value.addresses = [{ ...value.addresses[0], mx_hosts: [], ptr: 'temperror', names: [], spf: 'temperror', dmarc: 'temperror',
        policies: ['accept', 'defer', 'reject'].map((verdict) => ({ policy: verdict, verdict, identity: null, reason: null, rung: null })) }];";
    page.script(&CHANGE.replace("PATH", "/api/v1/audit?").replace("CHANGE", change)).await;
    site.open("#audit?domain=twolines.test&egress=127.0.1.1").await;
    page.until("document.querySelector('#audit-result tbody')").await;
    let marks = "[...document.querySelectorAll('#audit-result tbody .result')].map((one) => one.textContent).join('')";
    assert_eq!(page.text(marks).await, "✗???✓?✗");
    site.assert_clean().await;
    site.end().await;
}

/// A finding with everything that it can rest on; the selector is the sender's choice.
const RESULTS: &str = "
    const one = { ...value.findings.find((finding) => finding.result === 'fail'), evidence: [], entry: null, spf: null, dkim: [] };
    const dmarc = { result: 'fail', request: 'reject', testing: true, record_at: 'bank.test', organization: 'bank.test',
      indirect: 'list-id, envelope lists.test by spf' };
    value.findings = [
      { ...one, entry: 'policy.senders 1: .bank.test', spf: { result: 'softfail', identity: 'mail_from', domain: 'news.bank.test' },
        dkim: [{ result: 'pass', domain: 'lists.test', selector: '<b>k1</b>', aligned: false },
          { result: 'fail', domain: 'bank.test', selector: 'k2', aligned: true }], dmarc },
      { ...one, dmarc: { ...dmarc, result: null, request: 'none', organization: null, indirect: null } },
      { ...one, dmarc: { ...dmarc, result: 'none', request: null, record_at: null, organization: null, indirect: null } },
      { ...one, dmarc: { ...dmarc, result: 'permerror', request: null, indirect: null } },
      { ...one, dmarc: { ...dmarc, result: 'temperror', request: null, indirect: null } },
    ];";

#[tokio::test(flavor = "multi_thread")]
async fn a_finding_shows_its_entry_and_what_spf_dkim_and_dmarc_came_to() {
    let own = format!("{POLICY}\n[[policy.senders]]\ndomains = [\".nomx.test\"]\nexists = \"reject\"\n");
    let Some(site) = Site::start(&own, "history").await else { return };
    let page = &site.browser;
    site.send(12, "info@nomx.test", "a@good.test").await;
    site.open("").await;
    page.until(&format!("{LIVE} && {ROWS} === 1")).await;
    let notes = "[...document.querySelectorAll('.tree .note')].map((one) => one.textContent).join('\\n')";

    page.script("document.querySelector('.decisions tbody a').click()").await;
    page.until("document.querySelector('#decision .tree')").await;
    let shown = page.text(notes).await;
    assert!(shown.starts_with("rule of policy.senders 1: .nomx.test"), "{shown}");
    page.press(ESCAPE).await;

    page.script(&CHANGE.replace("PATH", "/api/v1/decisions/").replace("CHANGE", RESULTS)).await;
    page.script("document.querySelector('.decisions tbody a').click()").await;
    page.until("document.querySelectorAll('#decision .tree .note').length > 3").await;
    assert_eq!(
        page.text(notes).await.lines().collect::<Vec<_>>(),
        [
            "rule of policy.senders 1: .bank.test",
            "– SPF softfail (MAIL FROM news.bank.test)",
            "✓ DKIM pass (d=lists.test s=<b>k1</b>, not aligned)",
            "✗ DKIM fail (d=bank.test s=k2, aligned)",
            "✗ DMARC fail: _dmarc.bank.test asks for reject, which its test mode (t=y) weakens to quarantine; organisation bank.test",
            "came indirectly: list-id, envelope lists.test by spf",
            "– DMARC not evaluated: _dmarc.bank.test asks for nothing",
            "– DMARC none: no record",
            "✗ DMARC permerror: the record can't be read",
            "? DMARC temperror: the record can't be looked up now",
        ]
    );
    assert_eq!(page.overflow().await, 0);
    site.assert_clean().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_shows_what_dmarc_comes_to_over_each_address() {
    let Some(site) = Site::start(POLICY, "history").await else { return };
    let page = &site.browser;
    site.open("").await;
    page.until(LIVE).await;
    let change = "value.dmarc = { in_force: 'reject', text: '_dmarc.twolines.test asks receivers to reject mail that fails (p=reject).' };
      const one = value.addresses[0];
      value.addresses = ['pass', 'unless_signed', 'none', 'permerror', 'temperror'].map((dmarc) => ({ ...one, dmarc,
        unless_signed: dmarc === 'unless_signed' ? ['DMARC asks receivers to reject it'] : [] }));";
    page.script(&CHANGE.replace("PATH", "/api/v1/audit?").replace("CHANGE", change)).await;
    page.script("location.hash = 'audit?domain=twolines.test&egress=127.0.1.1'").await;
    page.until("document.querySelector('#audit-result tbody')").await;
    let cells = "[...document.querySelectorAll('#audit-result tbody tr')].map((row) => row.children[4].textContent).join()";
    assert_eq!(page.text(cells).await, "✓ pass,! reject unless signed,– no record,– permerror,? temperror");
    let sentence = page.text("document.querySelector('#audit-result').textContent").await;
    assert!(sentence.contains("DMARC: _dmarc.twolines.test asks receivers to reject mail"), "{sentence}");
    assert!(
        sentence.contains("! Over 127.0.1.1, unless it is signed: DMARC asks receivers to reject it."),
        "{sentence}"
    );
    site.assert_clean().await;
    site.end().await;
}
