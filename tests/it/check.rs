//! `rmxd check`, the real binary, asking a real `rmxd zone`: exit codes, the tree, the JSON, and messages from files.

use serde_json::Value;

use crate::support::zone::Zone;

/// Arguments, exit code, and what the tree must have.
#[test]
fn the_exit_code_and_the_tree_tell_the_verdict_and_what_decided() {
    let zone = Zone::start();
    let rows: [(&str, i32, &[&str]); 22] = [
        (
            "--client 127.0.0.10 --mail-from a@good.test",
            0,
            &["verdict: accept\n", "client:  127.0.0.10 = mail.good.test (forward-confirmed)\n"],
        ),
        (
            "--client 127.0.0.12 --mail-from a@nomx.test",
            1,
            &[
                "verdict: reject, because of mail_from: exists no_mx\n",
                "reply:   550 5.1.8 <a@nomx.test>: nomx.test has no MX record (id ID)\n",
                "help:    The domain exists",
                "exists of a@nomx.test: fail (no_mx) [reject]  <-- decides\n",
                "MX nomx.test: no MX record",
            ],
        ),
        (
            "--client 127.0.0.10 --mail-from a@broken.test",
            75,
            &["verdict: defer", "451 4.4.3", "temperror (SERVFAIL)", "MX broken.test: SERVFAIL"],
        ),
        (
            "--client 127.0.0.10 --from a@good.test --from b@nowhere.test",
            1,
            &[
                "because of from: exists no_such_domain",
                "exists of a@good.test: pass (mx)",
                "MX nowhere.test: NXDOMAIN",
            ],
        ),
        (
            "--client 127.0.0.10 --reply-to c@collect.test",
            75,
            &[
                "because of reply_to: exists greylisted",
                "exists of c@collect.test: fail (no_mx) [greylist]",
                "mail_from: not given, or the null sender\n",
                "from: not given\n",
            ],
        ),
        // as the daemon has it: at RCPT it has not seen a From: yet
        (
            "--client 127.0.0.10 --mail-from a@broken.test --from a@nowhere.test",
            75,
            &["because of mail_from: exists dns_error", "fail (no_such_domain) [reject]\n"],
        ),
        (
            "--client ::1 --mail-from a@v6-mx.test",
            0,
            &["client:  ::1 = mail.v6-mx.test", "AAAA mail.v6-mx.test: ::1"],
        ),
        (
            "--client ::ffff:127.0.0.10 --mail-from a@good.test --set policy.mail_from.matches=reject --set policy.matches_by=mx",
            0,
            &["matches of a@good.test: pass (mx) [reject]"],
        ),
        (
            "--client 127.0.0.11 --mail-from a@good.test --set policy.mail_from.matches=reject --set policy.matches_by=mx",
            1,
            &["matches of a@good.test: fail (not_an_exchanger) [reject]  <-- decides"],
        ),
        (
            "--client 127.0.0.11 --mail-from a@good.test --set policy.mail_from.matches=greylist --set policy.matches_by=mx",
            75,
            &[
                "verdict: defer, because of mail_from: matches greylisted\n",
                "reply:   450 4.7.1 <a@good.test>: good.test is greylisted, try again in 300 seconds (id ID)\n",
                "matches of a@good.test: fail (not_an_exchanger) [greylist]  <-- decides\n",
            ],
        ),
        (
            "--client 127.0.0.41 --mail-from a@bigmail.test --set policy.mail_from.matches=reject \
            --set policy.matches_by=mx,ptr,spf",
            0,
            &[
                "matches of a@bigmail.test: pass (spf) [reject]\n",
                "─ A in1.bigmail.test: 127.0.0.141 ",
                "─ PTR 41.0.0.127.in-addr.arpa: out41.bigmail-hosting.test ",
                "─ TXT bigmail.test: \"v=spf1 include:_spf.bigmail.test ~all\" and 1 other text ",
                "─ TXT _spf.bigmail.test: \"v=spf1 include:_out1.bigmail.test include:_out2.bigmail.test -all\"",
                "─ TXT _out2.bigmail.test: \"v=spf1 ip4:198.51.100.0/24 ip4:127.0.0.41 -all\"",
            ],
        ),
        (
            "--client 127.0.0.31 --mail-from a@out.test --set policy.mail_from.matches=reject \
            --set policy.matches_by=mx,ptr,spf",
            0,
            &["matches of a@out.test: pass (ptr) [reject]\n", "─ A send.out.test: 127.0.0.31 "],
        ),
        (
            "--client 127.0.0.43 --mail-from a@spf-broken.test --set policy.mail_from.matches=reject \
            --set policy.matches_by=mx,ptr,spf",
            75,
            &[
                "because of mail_from: matches dns_error\n",
                "matches of a@spf-broken.test: temperror (SERVFAIL) [defer]  <-- decides\n",
                "─ TXT broken.test: SERVFAIL ",
            ],
        ),
        (
            "--client 127.0.0.12 --mail-from a@nomx.test --set policy.mode=monitor",
            1,
            &[
                "verdict: reject (mode monitor: accepted all the same), because of mail_from: exists no_mx\n",
                "reply:   550 5.1.8",
            ],
        ),
        (
            "--client 127.0.0.29 --mail-from a@good.test",
            0,
            &["client:  127.0.0.29 (no PTR record)\n", "exists of 127.0.0.29: fail (no_ptr) [tag]"],
        ),
        ("--client 127.0.0.30", 0, &["client:  127.0.0.30 (PTR mail.bank.test, not forward-confirmed)\n"]),
        (
            "--client 127.0.0.10 --helo nowhere.test --set policy.helo.exists=reject",
            1,
            &["because of helo: exists no_such_domain", "550 5.7.1 nowhere.test does not exist"],
        ),
        ("--client 127.0.0.10 --helo nowhere.test", 0, &["helo: off, not looked up\n"]),
        ("--client 127.0.0.10 --mail-from <> --set exempt.clients=127.0.0.0/8", 0, &["ptr: exempt client\n"]),
        (
            "--client 127.0.0.29 --mail-from a@nowhere.test --set exempt.domains=.nowhere.test",
            0,
            &["exists of a@nowhere.test: none (exempt)", "ptr: not judged, MAIL FROM is exempt\n"],
        ),
        ("--client 127.0.0.37 --mail-from a@big-mx.test", 0, &["and 25 more (--json has them)"]),
        (
            "--client 127.0.0.10 --mail-from a@good.test --set reply.help_url=https://mail.example --from a@nomx.test",
            1,
            &["(id ID) see https://mail.example/ID\n"],
        ),
    ];
    for (arguments, code, parts) in rows {
        let run = zone.check(arguments);
        assert_eq!((run.code, run.err.as_str()), (Some(code), ""), "{arguments}: {}", run.out);
        for part in parts {
            assert!(run.out.contains(part), "{arguments}: no {part:?} in\n{}", run.out);
        }
    }
}

#[test]
fn every_record_is_shown_once_with_its_freshness_and_time_to_live() {
    let run = Zone::start().check("--client 127.0.0.10 --mail-from a@good.test");
    let records: Vec<&str> =
        run.out.lines().filter(|line| line.contains("MX good.test: 10 mail.good.test")).collect();
    assert_eq!(records.len(), 3, "{}", run.out);
    let told =
        |line: &str| line.contains("TTL 60 s") && (line.contains("(fresh, ") || line.contains("(cached, "));
    assert!(told(records[0]) && records[1..].iter().all(|line| line.ends_with("(as above)")), "{}", run.out);
    let columns: Vec<_> = run
        .out
        .lines()
        .filter(|line| line.contains("mail.good.test") && line.contains("TTL"))
        .map(|line| line.split("  (").next().unwrap().chars().count())
        .collect();
    assert!(columns.len() >= 3 && columns.iter().all(|column| *column == columns[0]), "{}", run.out);
}

#[test]
fn what_is_wrong_with_the_call_or_the_configuration_has_its_own_exit_code() {
    let zone = Zone::start();
    let rows = [
        ("--mail-from a@good.test", 64, "--client"),
        ("--client nowhere", 64, "--client"),
        ("--client 127.0.0.10 --mail-from a@b@c", 64, "--mail-from"),
        ("--client 127.0.0.10 --from not-an-address", 64, "--from"),
        ("--client 127.0.0.10 --from a@good.test --message x.eml", 64, "--message"),
        ("--client 127.0.0.10 --message /nowhere/x.eml", 64, "/nowhere/x.eml"),
        ("--client 127.0.0.10 --set policy.mode=off", 78, "policy.mode"),
        ("--client 127.0.0.10 --config /nowhere/rmxd.toml", 78, "/nowhere/rmxd.toml"),
    ];
    for (arguments, code, part) in rows {
        let run = zone.check(arguments);
        assert_eq!((run.code, run.out.as_str()), (Some(code), ""), "{arguments}: {}", run.err);
        assert!(run.err.contains(part), "{arguments}: {}", run.err);
    }
}

#[test]
fn the_json_has_the_facts_of_the_tree() {
    let zone = Zone::start();
    let arguments = "--client 127.0.0.12 --mail-from a@nomx.test --from a@good.test --json";
    let run = zone.check(arguments);
    assert_eq!((run.code, run.err.as_str()), (Some(1), ""));
    let json: Value = serde_json::from_str(&run.out).unwrap();
    let facts = [
        ("verdict", "reject"),
        ("mode", "enforce"),
        ("identity", "mail_from"),
        ("rule", "exists"),
        ("reason", "no_mx"),
        ("client", "127.0.0.12"),
        ("reply", "550 5.1.8 <a@nomx.test>: nomx.test has no MX record (id ID)"),
    ];
    for (name, value) in facts {
        assert_eq!(json[name], value, "{name}");
    }
    assert_eq!(json["ptr"][0], "host12.dsl.provider.test");
    let findings = json["findings"].as_array().unwrap();
    let told: Vec<String> = findings
        .iter()
        .map(|finding| {
            let text = |name: &str| finding[name].as_str().unwrap_or("-");
            format!(
                "{} {} {} {} {} {}",
                text("identity"),
                text("rule"),
                text("domain"),
                text("result"),
                text("rung"),
                text("reason")
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "ptr exists host12.dsl.provider.test pass organization -",
            "mail_from exists nomx.test fail - no_mx",
            "mail_from matches nomx.test fail - not_an_exchanger",
            "from exists good.test pass mx -",
            "from matches good.test pass network -",
            "reply_to exists  none - -",
        ]
    );
    let record = &findings[1]["evidence"][0];
    assert_eq!(
        (record["question"].as_str(), record["freshness"].as_str()),
        (Some("MX nomx.test"), Some("fresh"))
    );
    assert!(
        record["ttl_left"].as_f64().unwrap() > 50.0
            && record["age"].is_number()
            && record["took"].is_number()
    );

    // each question of the JSON stands in the tree
    let tree = zone.check(&arguments.replace(" --json", "")).out;
    for finding in findings {
        for record in finding["evidence"].as_array().unwrap() {
            let question = record["question"].as_str().unwrap();
            assert!(tree.contains(&format!("─ {question}: ")), "no {question} in\n{tree}");
        }
    }
}

#[test]
fn a_message_is_read_with_any_line_ends_and_with_the_line_of_an_mbox() {
    let zone = Zone::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.eml");
    let rows = [
        (
            "From: A <a@good.test>\nReply-To: b@good.test\n\nFrom: a@nowhere.test\n",
            0,
            "exists of b@good.test: pass",
        ),
        ("From: A\r\n <a@nowhere.test>\r\n\r\nbody\r\n", 1, "because of from: exists no_such_domain"),
        (
            "From a@good.test Mon Jan  1 00:00:00 2024\nFrom: a@nomx.test\n\n",
            1,
            "because of from: exists no_mx",
        ),
        (">From a@good.test Mon\nFrom: a@good.test\n\n", 0, "exists of a@good.test: pass"),
        (
            "From: a@good .test\n\n",
            1,
            "550 5.6.0 the From: field has white space or a comment inside a domain",
        ),
        (
            "From: a@good.test\nReply-To: b@good.test\nReply-To: c@nomx.test\n\n",
            75,
            "because of reply_to: exists greylisted",
        ),
        ("From: a@good.test", 0, "exists of a@good.test: pass"),
        ("Subject: no author\n\n", 1, "550 5.6.0 there is no From: field"),
        ("", 1, "550 5.6.0 there is no From: field"),
        ("From: a@good.test\nFrom: b@good.test\n\n", 1, "550 5.6.0 the From: field stands more than once"),
        ("From: a@good.test\n\nFrom a@good.test Mon Jan  1\n", 0, "verdict: accept"),
    ];
    for (content, code, part) in rows {
        std::fs::write(&file, content).unwrap();
        let run =
            zone.check(&format!("--client 127.0.0.10 --mail-from a@good.test --message {}", file.display()));
        assert_eq!((run.code, run.err.as_str()), (Some(code), ""), "{content:?}: {}", run.out);
        assert!(run.out.contains(part), "{content:?}: {}", run.out);
    }
}
