//! Every view by axe-core, light and dark, on a desk and on a phone: no serious or critical fault. axe-core comes from npm, and
//! is installed below `target/` where it is missing.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{DESK, LIVE, Look, PHONE, POLICY, ROWS, Site};
use crate::support::process;

/// The version that the tests were written with; a later one may find more.
const PACKAGE: &str = "axe-core@4";
const LIMIT: Duration = Duration::from_secs(120);

/// What axe finds, one line each: impact, rule, and the first elements.
const RUN: &str = "
    return axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations
      .filter(({ impact }) => impact === 'serious' || impact === 'critical')
      .map(({ impact, id, nodes }) => `${impact} ${id}: ${nodes.slice(0, 3).map(({ html }) => html.slice(0, 200)).join(' ; ')}`));";

/// The script, or `None` where npm is missing.
async fn axe() -> Option<String> {
    let npm = process::program("npm")?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("axe");
    let script = folder.join("node_modules/axe-core/axe.min.js");
    if !script.is_file() {
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("package.json"), "{}").unwrap();
        let options = ["install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE];
        let run = process::run(Command::new(npm).args(options).current_dir(&folder), Vec::new(), LIMIT).await;
        if !run.status.success() {
            let why = String::from_utf8_lossy(&run.stderr).into_owned();
            process::missing(&format!("axe-core is not installed: {why}"));
            return None;
        }
    }
    Some(fs::read_to_string(script).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_view_has_a_serious_fault_for_users_of_a_keyboard_or_a_screen_reader() {
    let Some(axe) = axe().await else { return };
    let monitor = format!("{POLICY}\n[policy]\nmode = \"monitor\"\n");
    let Some(site) = Site::start(&monitor, "history").await else { return };
    let page = &site.browser;
    site.traffic(1).await;
    site.send_as("mail.bank.test", 99, "info@nomx.test", "a@good.test").await;
    let views = [
        (
            "#traffic",
            "document.querySelector('#plot-table').open = true",
            "document.querySelector('#plot-table table')",
        ),
        ("#traffic?domain=nomx.test", "", "document.getElementById('filters-set').textContent !== ''"),
        (
            "#would",
            "document.querySelector('#whatif').open = true; document.getElementById('would-all').click()",
            "document.getElementById('would-lines')",
        ),
        ("#permits", "", "document.getElementById('permits').checkVisibility()"),
        (
            "#check?client=127.0.0.28&mail_from=service@bank.test&from=service@bank-login.test",
            "",
            "document.querySelector('#check-result .tree')",
        ),
        ("#audit?domain=twolines.test&egress=127.0.1.1", "", "document.querySelector('#audit-result table')"),
        (
            "#traffic",
            "document.querySelector('.decisions tbody a').click()",
            "document.querySelector('#decision .tree')",
        ),
        (
            "#traffic",
            "document.querySelector('#find input').value = 'x'; document.querySelector('#find button').click()",
            "!document.getElementById('find-problem').hidden",
        ),
    ];
    let mut faults = Vec::new();
    let dark = |look| Look { dark: true, ..look };
    for (name, look) in
        [("light", DESK), ("dark", dark(DESK)), ("narrow", PHONE), ("narrow dark", dark(PHONE))]
    {
        page.look(look).await;
        for (hash, action, shown) in views {
            page.open("about:blank").await;
            site.open(hash).await;
            page.until(LIVE).await;
            let ready = match hash {
                "#would" => "document.getElementById('would-all')".to_owned(),
                "#traffic" => format!("{ROWS} > 0"),
                _ => "true".to_owned(),
            };
            page.until(&ready).await;
            page.script(action).await;
            page.until(shown).await;
            page.script(&format!("{axe}\nwindow.axe = axe;")).await;
            let found = page.script(RUN).await;
            let found = found.as_array().unwrap().iter();
            faults.extend(found.map(|fault| format!("{hash} {name}: {}", fault.as_str().unwrap())));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    // The check can fail.
    page.script("document.querySelector('#find input').closest('label').replaceWith(document.querySelector('#find input'))").await;
    page.script("document.querySelector('#find input').removeAttribute('placeholder')").await;
    let broken = page.script(RUN).await.to_string();
    assert!(broken.contains("critical label"), "{broken}");
    site.end().await;
}
