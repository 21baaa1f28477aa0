//! `rmxd audit`, the real binary, asking a real `rmxd zone`: what it says of senders good and bad, and that the very records
//! that it prints mend what it complains of, up to a message through the daemon.

mod dmarc;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use crate::support::client::Client;
use crate::support::daemon::{Daemon, any_port, configuration};
use crate::support::process::Run;
use crate::support::zone::Zone;

const SAMPLE: &str = include_str!("../../src/zone/sample.zone");
const REPAIR: &str = include_str!("../../src/zone/sample-repair.zone");
const TWO_LINES: &str = "twolines.test --egress 127.0.1.1 --egress 127.0.1.2";
const BACKUP: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 2));

/// Zones as broken as can be, and all of them can be mended by adding and removing records.
const BROKEN: &str = r#"$TTL 60
test. IN SOA ns.test. hostmaster.test. 1 1h 10m 1d 60
127.in-addr.arpa. IN SOA ns.test. hostmaster.test. 1 1h 10m 1d 60
ip6.arpa. IN SOA ns.test. hostmaster.test. 1 1h 10m 1d 60

fresh.test. IN MX 10 mail.fresh.test.
fresh.test. IN TXT "v=spf1 ip4:127.1.0.1 -all"
mail.fresh.test. IN A 127.1.0.1
mx2.fresh.test. IN TXT "a name that has no address is free"
mx3.fresh.test. IN CNAME gone.fresh.test.
1.0.1.127.in-addr.arpa. IN PTR mail.fresh.test.

claimed.test. IN MX 10 mail.claimed.test.
claimed.test. IN TXT "v=spf1 mx -all"
mail.claimed.test. IN A 127.1.1.1
1.1.1.127.in-addr.arpa. IN PTR mail.claimed.test.
2.1.1.127.in-addr.arpa. IN PTR line2.claimed.test.

null.test. IN MX 0 .
ip.test. IN MX 10 127.1.2.1.
ip.test. IN TXT "proof=1"
alone.test. IN A 127.1.3.1
1.3.1.127.in-addr.arpa. IN PTR alone.test.
nothing.test. IN TXT "v=spf1 a ?all"

half.test. IN MX 10 mail.half.test.
mail.half.test. IN A 127.1.7.1
1.7.1.127.in-addr.arpa. IN PTR mail.half.test.
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa. IN PTR mail.half.test.

lies.test. IN MX 10 mail.lies.test.
mail.lies.test. IN A 127.1.4.1
mail.lies.test. IN AAAA ::1
1.4.1.127.in-addr.arpa. IN PTR mail.fresh.test.

denies.test. IN MX 10 mail.denies.test.
denies.test. IN TXT "v=spf1 mx -ip4:127.1.5.0/24 include:gone.test ?all"
mail.denies.test. IN A 127.1.5.1
1.5.1.127.in-addr.arpa. IN PTR unrouted.example.
unrouted.example. IN A 127.1.5.1

permerror.test. IN MX 10 alias.permerror.test.
permerror.test. IN TXT "v=spf1 include:gone.test -all"
alias.permerror.test. IN CNAME mail.permerror.test.
mail.permerror.test. IN A 127.1.6.1
"#;

/// What stands behind the table: records and comments.
fn records(text: &str) -> String {
    let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("; ===")).collect();
    lines.join("\n") + "\n"
}

/// The zone after its administrators did what the audit says: each line to remove must be there.
fn mended(zone: &str, audit: &str) -> String {
    let mut lines: Vec<&str> = zone.lines().collect();
    for line in records(audit).lines() {
        if let Some(gone) = line.strip_prefix("; remove: ") {
            let at = lines.iter().position(|there| *there == gone);
            lines.remove(at.unwrap_or_else(|| panic!("no line {gone}")));
        }
    }
    lines.join("\n") + "\n" + &records(audit)
}

/// `rmxd zone` with this zone file only.
fn serving(zone: &str) -> Zone {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("zone");
    std::fs::write(&file, zone).unwrap();
    Zone::serving(&["--no-sample", "--file", file.to_str().unwrap()])
}

fn audit(zone: &Zone, arguments: &str) -> Run {
    zone.run("audit", arguments)
}

/// The reply to a message over the backup line, at a gate that wants the client to be an MX host.
async fn over_the_backup_line(zone: &Zone) -> (u16, usize) {
    let more = "[relay]\ndomains = [\"here.test\"]\n[policy.mail_from]\nmatches = \"reject\"\nmatches_by = [\"mx\"]\n";
    let daemon = Daemon::start(&configuration("gate.test", &[any_port()], zone.address(), more), &[]).await;
    let mut client = Client::greeted(BACKUP, daemon.address(), "line2.twolines.test").await;
    let message = b"From: ann@twolines.test\r\n\r\nHello\r\n";
    let reply = client.deliver("ann@twolines.test", "user@here.test", message).await;
    drop(client);
    (reply.code, daemon.terminate().await.messages().len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_audit_of_the_two_line_company_prints_lets_its_backup_line_through() {
    let before = Zone::start();
    let found = audit(&before, TWO_LINES);
    assert_eq!((found.code, found.err.as_str()), (Some(1), ""), "{}", found.out);
    for part in [
        "✗ Mail over 127.0.1.2 would be lost: no MX host has this address",
        "127.0.1.2 is not an address of any MX host. Its name is line2.twolines.test already. Make that an MX host.",
        "\ntwolines.test. 3600 IN MX 20 line2.twolines.test.\n",
        "\ntwolines.test. 3600 IN TXT \"v=spf1 mx ~all\"\n",
        "\n_dmarc.twolines.test. 3600 IN TXT \"v=DMARC1; p=none\"\n",
    ] {
        assert!(found.out.contains(part), "no {part:?} in\n{}", found.out);
    }
    assert!(!found.out.contains("127.0.1.1 would be lost"), "{}", found.out);
    let added: Vec<_> = found.out.lines().filter(|line| line.contains(" 3600 IN ")).collect();
    assert_eq!(added.len(), 3, "no more than it takes: {added:?}");
    assert_eq!(over_the_backup_line(&before).await, (550, 0));

    let after = serving(&mended(SAMPLE, &found.out));
    let clean = audit(&after, TWO_LINES);
    assert_eq!((clean.code, clean.err.as_str()), (Some(0), ""), "{}", clean.out);
    assert!(clean.out.contains("✓ accepted over both addresses.\n"), "{}", clean.out);
    assert!(!clean.out.contains("===") && !clean.out.contains('✗'), "{}", clean.out);
    assert_eq!(over_the_backup_line(&after).await, (250, 1));

    // The demo mends the company by the same MX record.
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let repair: Vec<_> = REPAIR.lines().map(words).collect();
    assert!(repair.contains(&words("twolines.test. 5 MX 20 line2.twolines.test.")), "{REPAIR}");
}

#[test]
fn what_is_printed_mends_every_kind_of_fault_at_once() {
    let rows = [
        ("fresh.test --egress 127.1.0.1 --egress 127.1.0.2 --egress 2001:db8::1", 1),
        ("claimed.test --egress 127.1.1.1 --egress 127.1.1.2", 1),
        ("null.test --egress 127.1.2.2", 1),
        ("ip.test --egress 127.1.2.1", 1),
        ("alone.test --egress 127.1.3.1 --egress 127.1.3.2", 1),
        ("nothing.test --egress 127.1.3.3", 1),
        ("half.test --egress 127.1.7.1 --egress ::1", 1),
        ("lies.test --egress 127.1.4.1 --egress 127.1.4.2", 1),
        ("denies.test --egress 127.1.5.1 --egress 127.1.5.2", 1),
        ("permerror.test --egress 127.1.6.1", 1),
    ];
    let before = serving(BROKEN);
    let mut zone = BROKEN.to_owned();
    for (arguments, code) in rows {
        let found = audit(&before, arguments);
        assert_eq!((found.code, found.err.as_str()), (Some(code), ""), "{arguments}:\n{}", found.out);
        zone = mended(&zone, &found.out);
    }
    let after = serving(&zone);
    for (arguments, _) in rows {
        let clean = audit(&after, arguments);
        assert_eq!((clean.code, clean.err.as_str()), (Some(0), ""), "{arguments}:\n{}\n{zone}", clean.out);
        assert!(!clean.out.contains("==="), "{arguments}: more to do\n{}", clean.out);
        let json: Value = serde_json::from_str(&audit(&after, &format!("{arguments} --json")).out).unwrap();
        for address in json["addresses"].as_array().unwrap() {
            assert_eq!(address["spf"], "pass", "{arguments}: {address:#}");
            assert_eq!(address["ptr"], "confirmed", "{arguments}: {address:#}");
        }
    }
}

/// Arguments, exit code, and what must be there.
#[test]
fn each_fault_of_the_sample_zones_is_named_with_the_records_that_mend_it() {
    let zone = Zone::start();
    let rows: [(&str, i32, &[&str]); 22] = [
        (
            "good.test --egress 127.0.0.10",
            0,
            &["✓ 10 mail.good.test", "✓ mail.good.test", "✓ pass", "✓ accept (mx)"],
        ),
        (
            "good.test. --egress ::ffff:127.0.0.10 --egress 127.0.0.10",
            0,
            &["✓ accepted over this address.\n"],
        ),
        ("v6-mx.test --egress ::1", 0, &["✓ 10 mail.v6-mx.test", "TXT \"v=spf1 mx ~all\""]),
        ("many-mx.test --egress 127.0.0.20", 0, &["! The MX host gone.many-mx.test has no address: "]),
        (
            "cname-mx.test --egress 127.0.0.19",
            0,
            &[
                "; The MX host mail.cname-mx.test is an alias (CNAME) of host.cname-mx.test, which RFC 2181 10.3 forbids.\n",
                "; remove: cname-mx.test. IN MX 10 mail.cname-mx.test.\n",
                "\ncname-mx.test. 3600 IN MX 10 host.cname-mx.test.\n",
            ],
        ),
        ("nowhere.test --egress 127.0.0.11", 1, &["! nowhere.test doesn't exist in DNS: "]),
        (
            "alias.test --egress 127.0.0.38",
            0,
            &["! alias.test is an alias (CNAME) of real.alias.test: beside a CNAME "],
        ),
        (
            "null-mx.test --egress 127.0.0.14",
            1,
            &[
                "the default policy refuses: mail_from null_mx",
                "; null-mx.test has a null MX (RFC 7505): it takes no mail",
                "\n; remove: null-mx.test. IN MX 0 .\n",
            ],
        ),
        (
            "nomx.test --egress 127.0.0.12",
            1,
            &["! nomx.test has no MX record: replies to its mail can't be delivered.\n"],
        ),
        (
            "a-only.test --egress 127.0.0.13",
            1,
            &[
                "a-only.test. 3600 IN MX 10 a-only.test.\n",
                "a-only.test has no MX record. Mail for it goes to its own",
            ],
        ),
        (
            "ip-mx.test --egress 127.0.0.18",
            1,
            &[
                "must name a host (RFC 5321 5.1), and 127.0.0.18 is none",
                "\n; remove: ip-mx.test. IN MX 10 127.0.0.18.\n",
                "\nip-mx.test. 3600 IN MX 10 mx2.ip-mx.test.\n",
                "It is the only one, so all your incoming mail arrives there: forward its port 25 to your mail server.",
            ],
        ),
        (
            "private-mx.test --egress 127.0.0.15",
            1,
            &[
                "private-mx.test. 3600 IN MX 20 mx2.private-mx.test.\n",
                "mx2.private-mx.test. 3600 IN A 127.0.0.15\n",
            ],
        ),
        (
            "no-ptr.test --egress 127.0.0.29",
            1,
            &[
                "✗ none ",
                "the strict policy refuses: ptr no_ptr",
                "=== To ask the provider of the address for ===\n",
                "\n29.0.0.127.in-addr.arpa. 3600 IN PTR mail.no-ptr.test.\n",
            ],
        ),
        (
            "lying-ptr.test --egress 127.0.0.30",
            1,
            &[
                "✗ mail.bank.test, not confirmed",
                "\n; remove: 30.0.0.127.in-addr.arpa. IN PTR mail.bank.test.\n",
                "\n30.0.0.127.in-addr.arpa. 3600 IN PTR mail.lying-ptr.test.\n",
            ],
        ),
        (
            "bigmail.test --egress 127.0.0.41 --egress 127.0.0.42",
            1,
            &[
                "- softfail",
                "\n; remove: bigmail.test. IN TXT \"v=spf1 include:_spf.bigmail.test ~all\"\n",
                "\nbigmail.test. 3600 IN TXT \"v=spf1 include:_spf.bigmail.test ip4:127.0.0.42 ~all\"\n",
                "\nmx2.bigmail.test. 3600 IN A 127.0.0.41\nbigmail.test. 3600 IN MX 20 mx2.bigmail.test.\n",
                "\nmx3.bigmail.test. 3600 IN A 127.0.0.42\nbigmail.test. 3600 IN MX 30 mx3.bigmail.test.\n",
            ],
        ),
        (
            "spf-broken.test --egress 127.0.0.43",
            1,
            &["? temperror", "? The result for 127.0.0.43 is unknown: SPF can't be looked up now.\n"],
        ),
        (
            "big-mx.test --egress 127.0.0.37",
            0,
            &[
                "! big-mx.test has 30 MX records with those proposed here, and rmxd looks up only the first 20. Remove some.\n",
            ],
        ),
        (
            "big-mx.test --egress 127.0.0.200",
            1,
            &["mx-127-0-0-200.big-mx.test. 3600 IN A 127.0.0.200\n", "TXT \"v=spf1 ip4:127.0.0.200 ~all\"\n"],
        ),
        (
            "broken.test --egress 127.0.0.22",
            75,
            &["? The result for 127.0.0.22 is unknown: ", "! The MX records of broken.test can't be"],
        ),
        (
            "silent.test --egress 127.0.0.23",
            75,
            &["? timeout", "! The MX records of silent.test can't be looked up now"],
        ),
        (
            "mx-broken.test --egress 127.0.0.26",
            75,
            &["? SERVFAIL", "! The MX host mail.mx-broken.test can't be looked up now"],
        ),
        (
            "good.test --egress 127.0.0.10 --helo nowhere.test",
            1,
            &["the strict policy refuses: helo no_such_domain", "! The HELO name nowhere.test is refused"],
        ),
    ];
    for (arguments, code, parts) in rows {
        let run = audit(&zone, arguments);
        assert_eq!((run.code, run.err.as_str()), (Some(code), ""), "{arguments}:\n{}", run.out);
        let unwrapped = run.out.replace("\n; ", " ").replace("\n  ", " ");
        for part in parts {
            assert!(
                run.out.contains(part) || unwrapped.contains(part),
                "{arguments}: no {part:?} in\n{}",
                run.out
            );
        }
    }
}

#[test]
fn a_question_that_makes_no_sense_is_wrong_usage() {
    let zone = Zone::start();
    let rows = [
        ("good.test", 64, "--egress"),
        ("--egress 127.0.0.10", 64, "DOMAIN"),
        ("good --egress 127.0.0.10", 64, "must be a domain name such as example.com"),
        ("127.0.0.10 --egress 127.0.0.10", 64, "must be a domain name such as example.com"),
        ("good.test --egress mail.good.test", 64, "--egress"),
        ("good.test --egress 127.0.0.10 --sender ann@bank.test", 64, "must be an address at good.test"),
        ("good.test --egress 127.0.0.10 --sender ann", 64, "--sender"),
        (
            "good.test --egress 192.168.1.2 --set dns.private_addresses=reject",
            64,
            "--egress 192.168.1.2: not an address of the public Internet; give the one that receivers see",
        ),
        ("good.test --egress 127.0.0.10 --set limits.errors=none", 78, "limits.errors"),
    ];
    for (arguments, code, part) in rows {
        let run = audit(&zone, arguments);
        assert_eq!((run.code, run.out.as_str()), (Some(code), ""), "{arguments}: {}", run.err);
        assert!(run.err.contains(part), "{arguments}: {}", run.err);
    }
}

#[test]
fn the_policy_of_a_named_configuration_has_a_column_and_no_say() {
    let zone = Zone::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rmxd.toml");
    let own = "[policy]\nmatches_by = [\"mx\", \"ptr\"]\n[policy.mail_from]\nmatches = \"reject\"\n[policy.from]\nmatches = \"reject\"\n";
    std::fs::write(&file, own).unwrap();
    let with = |arguments: &str| format!("{arguments} --config {}", file.display());
    let run = audit(&zone, &with(TWO_LINES));
    let line = |address: &str| {
        let line = run.out.lines().find(|line| line.starts_with(address)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    let header = run.out.lines().find(|line| line.starts_with("ADDRESS")).unwrap();
    assert!(header.ends_with("YOURS"), "{}", run.out);
    assert_eq!(
        line("127.0.1.1 "),
        "127.0.1.1 ✓ 10 mail.twolines.test ✓ line1.twolines.test - none - no record ✓ accept (mx) ✓ accept (mx) ✓ accept (mx)"
    );
    // 127.0.1.0/24 is the network of the MX host too, which is enough by default and not for config/strict.toml.
    assert_eq!(
        line("127.0.1.2 "),
        "127.0.1.2 ✗ none ✓ line2.twolines.test - none - no record ✓ accept (network) \
         ✗ reject: mail_from not_an_exchanger ✓ accept (ptr)"
    );
    // A policy that nobody else has.
    std::fs::write(&file, "[policy.reply_to]\nmatches = \"reject\"\n[policy.helo]\nexists = \"reject\"\n")
        .unwrap();
    let run =
        audit(&zone, &with("good.test --egress 127.0.0.10 --set policy.mode=monitor --helo gone.good.test"));
    assert!(run.out.contains("✗ reject: helo no_such_domain (mode monitor)"), "{}", run.out);
}

#[test]
fn every_rung_is_told_of_where_that_is_asked_for() {
    let zone = Zone::start();
    let run = audit(&zone, "bigmail.test --egress 127.0.0.41 --egress 127.0.0.42 --all-policies");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    let lines: BTreeSet<String> = run.out.lines().map(words).collect();
    for row in [
        "RULE RUNG 127.0.0.41 127.0.0.42",
        "exists mx holds holds",
        "exists address no no",
        "exists organization holds holds",
        "matches mx no no",
        "matches network holds holds",
        "matches ptr no no",
        "matches spf holds no",
        "matches dkim depends on the signature depends on the signature",
    ] {
        assert!(lines.contains(row), "no {row:?} in\n{}", run.out);
    }
    let run = audit(&zone, "broken.test --egress 127.0.0.22 --all-policies");
    assert!(run.out.lines().map(words).any(|line| line == "matches spf unknown"), "{}", run.out);
}

#[test]
fn the_json_has_the_facts_of_the_table_and_the_records() {
    let zone = Zone::start();
    let run = audit(&zone, &format!("{TWO_LINES} --json --all-policies --sender ann@twolines.test"));
    assert_eq!((run.code, run.err.as_str()), (Some(1), ""));
    let json: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((&json["domain"], &json["exit"]), (&"twolines.test".into(), &1.into()));
    assert_eq!(json["sender"], "ann@twolines.test");
    let [first, second] = json["addresses"].as_array().unwrap().as_slice() else { panic!("{json:#}") };
    assert_eq!(first["mx_hosts"][0]["host"], "mail.twolines.test");
    assert_eq!(first["mx_hosts"][0]["preference"], 10);
    assert_eq!((&first["lost"], &first["unknown"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    assert_eq!((&second["ptr"], &second["names"][0]), (&"confirmed".into(), &"line2.twolines.test".into()));
    assert_eq!((&second["spf"], &second["helo"]), (&"none".into(), &"line2.twolines.test".into()));
    assert!(second["mx_hosts"].as_array().unwrap().is_empty());
    assert_eq!(second["lost"].as_array().unwrap().len(), 2, "{second:#}");
    assert_eq!(second["rungs"].as_array().unwrap().len(), 7);
    let policies: Vec<String> = second["policies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|judged| format!("{} {} {}", judged["policy"], judged["verdict"], judged["rung"]))
        .collect();
    assert_eq!(policies, ["\"default\" \"accept\" \"network\"", "\"strict\" \"reject\" null"]);
    assert_eq!(json["steps"][0]["zone"], "own");
    assert_eq!(json["steps"][0]["add"][0], "twolines.test. 3600 IN MX 20 line2.twolines.test.");
    assert!(json["steps"][0]["remove"].as_array().unwrap().is_empty());
}
