//! `exempt.files`: what its lines mean, what is said of those that can't be read, and how it follows a reload.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use rmxd::config::{Flags, Problem, load};
use rmxd::exempt::Exemptions;
use rmxd::smtp::address::DomainName;

use crate::support::client::Client;
use crate::support::daemon::{Daemon, Home, any_port, configuration};
use crate::support::process::{self, SOON, free_address, measured_binary, rmxd};
use crate::support::zone::Zone;

/// The exemptions of a configuration with these lists beside it, called `0.list` and so on; in problems, the folder is
/// left out.
fn exemptions(lists: &[&[u8]]) -> Result<Exemptions, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    for (number, text) in lists.iter().enumerate() {
        let name = format!("{number}.list");
        std::fs::write(folder.path().join(&name), text).unwrap();
        names.push(name);
    }
    let file = folder.path().join("rmxd.toml");
    let text = format!(
        "hostname = 'a.test'\n[exempt]\nclients = ['192.0.2.1']\ndomains = ['inline.test']\nfiles = {names:?}\n"
    );
    std::fs::write(&file, text).unwrap();
    let plain = |problem: &Problem| problem.to_string().replace(&format!("{}/", folder.path().display()), "");
    let loaded = load(Some(&file), [], &Flags::default());
    loaded.map(|loaded| loaded.settings.gate.exempt).map_err(|problems| problems.iter().map(plain).collect())
}

fn client(exempt: &Exemptions, address: &str) -> bool {
    exempt.client(address.parse().unwrap())
}

fn domain(exempt: &Exemptions, name: &str) -> bool {
    exempt.domain(&DomainName::parse(name).unwrap())
}

#[test]
fn lists_in_files_and_those_of_the_configuration_are_one() {
    let first =
        "\u{feff}# partners\r\n\r\n  198.51.100.0/24  # line 1\r\n2001:db8::/32\r\n203.0.113.7#one host\r\n";
    let second =
        "partner.example\n.Wide.example # with sub-domains\n.b\u{fc}cher.test\n\t10.in-addr.arpa\n.last.test";
    let exempt = exemptions(&[first.as_bytes(), second.as_bytes(), b"", b"# M\xfcller\n\n#\n"]).unwrap();
    let clients = [
        ("192.0.2.1", true),
        ("192.0.2.2", false),
        ("198.51.100.0", true),
        ("198.51.100.255", true),
        ("198.51.101.0", false),
        ("203.0.113.7", true),
        ("203.0.113.8", false),
        ("2001:db8:ffff::1", true),
        ("2001:db9::1", false),
    ];
    for (address, expected) in clients {
        assert_eq!(client(&exempt, address), expected, "{address}");
    }
    let domains = [
        ("inline.test", true),
        ("a.inline.test", false),
        ("partner.example", true),
        ("a.partner.example", false),
        ("wide.example", true),
        ("a.b.wide.example", true),
        ("xn--bcher-kva.test", true),
        ("a.xn--bcher-kva.test", true),
        ("10.in-addr.arpa", true),
        ("a.last.test", true),
        ("example", false),
    ];
    for (name, expected) in domains {
        assert_eq!(domain(&exempt, name), expected, "{name}");
    }
}

#[test]
fn a_line_that_can_not_be_read_is_told_with_its_place_and_what_is_allowed() {
    const NEITHER: &str = "is neither a network such as \"192.0.2.0/24\" nor a domain such as \"example.com\", or \
                           \".example.com\" with sub-domains";
    const NO_NETWORK: &str = "is not a network such as \"192.0.2.0/24\" or \"2001:db8::/32\", nor an address";
    let rows: [(&[u8], String); 12] = [
        (b"two words", format!("\"two words\" {NEITHER}")),
        (b"*.a.test", format!("\"*.a.test\" {NEITHER}")),
        (b"a.test.", format!("\"a.test.\" {NEITHER}")),
        (b"user@a.test", format!("\"user@a.test\" {NEITHER}")),
        (b".", format!("\".\" {NEITHER}")),
        (b"192.0.2.300", format!("\"192.0.2.300\" {NO_NETWORK}")),
        (b"192.0.2", format!("\"192.0.2\" {NO_NETWORK}")),
        (b"192.0.2.0/33", format!("\"192.0.2.0/33\" {NO_NETWORK}")),
        (b"2001:db8::/129", format!("\"2001:db8::/129\" {NO_NETWORK}")),
        (
            b"192.0.2.1/24",
            "\"192.0.2.1/24\" has bits set behind its prefix: \"192.0.2.0/24\" is the network".into(),
        ),
        (b"m\xfcller.test", "\"m\u{fffd}ller.test\" is not UTF-8".into()),
        (&[b'\x1b'; 500], format!("\"{}...\" {NEITHER}", "\\u{1b}".repeat(80))),
    ];
    for (line, expected) in rows {
        let text = [b"a.test\n\n  ", line, b" # why\nb.test\n"].concat();
        assert_eq!(
            exemptions(&[&text]).unwrap_err(),
            [format!("0.list:3:3: exempt.files: {expected}")],
            "{}",
            line.escape_ascii()
        );
    }
}

#[test]
fn of_many_bad_lines_ten_are_told_and_the_others_counted() {
    let rows = [
        (10, None),
        (11, Some("0.list:22:1: exempt.files: and this line")),
        (500, Some("0.list:22:1: exempt.files: and 490 more lines from here on")),
    ];
    for (count, expected) in rows {
        let problems =
            exemptions(&["good.test\nno such thing\n".repeat(count).as_bytes(), b"?"]).unwrap_err();
        let (last, first) = problems.split_last().unwrap();
        assert!(last.starts_with("1.list:1:1: exempt.files: \"?\" is neither"), "{last}");
        assert!(first[9].starts_with("0.list:20:1: exempt.files: \"no such thing\" is neither"), "{first:?}");
        assert_eq!(first.get(10).map(String::as_str), expected);
        assert!(first.len() < 12);
    }
}

#[test]
fn a_relative_path_begins_where_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let (etc, work) = (folder.path().join("etc"), folder.path().join("work"));
    for (place, line) in [(&etc, "etc.test"), (&work, "not a domain")] {
        std::fs::create_dir_all(place.join("lists")).unwrap();
        std::fs::write(place.join("lists/partners"), line).unwrap();
    }
    std::fs::write(etc.join("rmxd.toml"), "hostname = 'a.test'\nexempt.files = ['lists/partners']\n")
        .unwrap();
    let check = |arguments: &[&str]| {
        let run = rmxd(&["config", "check"]).args(arguments).current_dir(&work).output().unwrap();
        (run.status.code(), String::from_utf8(run.stderr).unwrap())
    };
    assert_eq!(check(&["--config", "../etc/rmxd.toml"]), (Some(0), String::new()));
    let (code, told) = check(&["--config", "../etc/rmxd.toml", "--set", "exempt.files=lists/partners"]);
    assert_eq!(code, Some(78));
    assert!(told.starts_with("lists/partners:1:1: exempt.files: \"not a domain\" is neither"), "{told}");
    std::fs::remove_file(etc.join("lists/partners")).unwrap();
    let (code, told) = check(&["--config", "../etc/rmxd.toml"]);
    assert_eq!(code, Some(78));
    assert!(
        told.starts_with("../etc/rmxd.toml:2:8: exempt.files: \"../etc/lists/partners\" can't be read: "),
        "{told}"
    );
}

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 29));

/// What MAIL FROM of a domain that doesn't exist is answered.
async fn verdict(address: std::net::SocketAddr, sender: &str) -> u16 {
    let mut client = Client::greeted(CLIENT, address, "mail.good.test").await;
    client.command(&format!("MAIL FROM:<a@{sender}>")).await;
    client.command("RCPT TO:<user@here.test>").await.code
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_are_read_again_at_a_reload_and_a_broken_one_changes_nothing() {
    let (zone, address) = (Zone::start(), free_address());
    let home = Home::new();
    let list = home.path().join("partners");
    std::fs::write(&list, "nowhere1.test\n").unwrap();
    home.configure(&configuration("gate.test", &[address], zone.address(), "[exempt]\nfiles = ['partners']"));
    let mut daemon = Daemon::spawn(home.serve(), home).await;
    assert_eq!(
        (verdict(address, "nowhere1.test").await, verdict(address, "nowhere2.test").await),
        (250, 550)
    );

    std::fs::write(&list, "nowhere2.test\nno domain\n").unwrap();
    let log = daemon.reload().await;
    let told =
        format!("ERROR rmxd::cli::serve: {}:2:1: exempt.files: \"no domain\" is neither", list.display());
    assert!(log.contains(&told), "{log}");
    assert!(log.contains("not reloaded"), "{log}");
    assert_eq!(
        (verdict(address, "nowhere1.test").await, verdict(address, "nowhere2.test").await),
        (250, 550)
    );

    std::fs::remove_file(&list).unwrap();
    let log = daemon.reload().await;
    assert!(log.contains("can't be read: No such file") && log.contains("not reloaded"), "{log}");
    assert_eq!(verdict(address, "nowhere1.test").await, 250);

    std::fs::write(&list, "nowhere2.test\n").unwrap();
    let log = daemon.reload().await;
    assert!(log.contains("serve: reloaded "), "{log}");
    assert_eq!(
        (verdict(address, "nowhere1.test").await, verdict(address, "nowhere2.test").await),
        (550, 250)
    );
    std::fs::write(&list, "127.0.0.16/28\n").unwrap();
    daemon.reload().await;
    assert_eq!(verdict(address, "nowhere1.test").await, 250);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_can_not_be_read_stops_the_start() {
    let text = configuration("gate.test", &[any_port()], free_address(), "[exempt]\nfiles = ['partners']");
    let home = Home::with(&text);
    let mut daemon = Daemon::launch(home.serve(), home);
    assert_eq!(daemon.ended(SOON).await.code(), Some(78));
    assert!(daemon.log().contains("exempt.files: "), "{}", daemon.log());
}

/// Networks and domains that share nothing, so that none of them is spared.
fn write_lists(folder: &Path, count: u32) {
    let (mut networks, mut domains) = (String::new(), String::new());
    for number in 0..count {
        let address = Ipv4Addr::from_bits(0x1000_0000 + number * 32);
        writeln!(networks, "{address}/28").unwrap();
        writeln!(domains, "{}mail{number}.partner-domain.example", if number % 2 == 0 { "." } else { "" })
            .unwrap();
    }
    std::fs::write(folder.join("networks"), networks).unwrap();
    std::fs::write(folder.join("domains"), domains).unwrap();
}

/// With the release build in `RMXD_BIN`, as `tests/run` sets it, a million of each; else as many as a debug build reads in a
/// fraction of that time. Time of the processor, since other tests run beside this one.
#[tokio::test]
async fn a_million_networks_and_a_million_domains_are_loaded_in_two_seconds() {
    let binary = measured_binary();
    let folder = tempfile::tempdir().unwrap();
    write_lists(folder.path(), if binary == Path::new(process::binary()) { 20_000 } else { 1_000_000 });
    let config = folder.path().join("rmxd.toml");
    std::fs::write(&config, "hostname = 'a.test'\nexempt.files = ['networks', 'domains']\n").unwrap();
    let mut child =
        process::command(binary).args(["config", "check", "--config"]).arg(&config).spawn().unwrap();
    let took = process::eventually("its end", SOON, || {
        // stays until the child is waited for
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<_> = fields.split(' ').collect();
        // utime and stime (proc(5)), in hundredths of a second on every Linux
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        (fields[0] == "Z").then_some(Duration::from_millis(ticks * 10))
    })
    .await;
    eprintln!("loaded in {took:?}");
    assert!(child.wait().unwrap().success());
    assert!(took < Duration::from_secs(2), "{took:?}");
}
