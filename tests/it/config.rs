//! `rmxd config`: files that load, files that don't, and what is said about them.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::admin::certificate::Pair;
use crate::support::process::{self, Run};
use crate::support::readme;

/// Runs rmxd with these variables in the environment.
fn rmxd(arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = process::rmxd(arguments);
    Run::of(command.envs(variables.iter().copied()).current_dir(env!("CARGO_MANIFEST_DIR")))
}

/// `config check` of a file with this text; in what comes back, the file is called `FILE`.
fn check(text: &str) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rmxd.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let mut run = rmxd(&["config", "check", "--config", path], &[]);
    run.out = run.out.replace(path, "FILE");
    run.err = run.err.replace(path, "FILE");
    run
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

/// `config show --json` as (key, value, origin), in order.
fn show(arguments: &[&str], variables: &[(&str, &str)]) -> Vec<(String, String, String)> {
    let run = rmxd(&[&["config", "show", "--json"], arguments].concat(), variables);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
    let rows: Vec<serde_json::Value> = serde_json::from_str(&run.out).unwrap();
    rows.iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            (text("key"), row["value"].to_string(), text("origin"))
        })
        .collect()
}

fn row<'a>(rows: &'a [(String, String, String)], key: &str) -> (&'a str, &'a str) {
    let (_, value, origin) = rows.iter().find(|(known, ..)| known == key).unwrap();
    (value, origin)
}

#[test]
fn what_the_package_and_the_guide_begin_with_loads_and_refuses_nothing() {
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/debian/rmxd.toml");
    let guide = readme::block("toml");
    assert!(guide.contains("next_hop = \"smtp://127.0.0.1:10025\""), "{guide}");
    for text in [std::fs::read_to_string(package).unwrap(), guide] {
        let run = check(&text);
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{text}");
        assert!(text.contains("mode = \"monitor\""), "{text}");
    }
}

#[test]
fn the_shipped_files_load() {
    let mut seen = 0;
    for entry in std::fs::read_dir(shipped("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue; // for Prometheus and Grafana
        }
        let run = rmxd(&["config", "check", "--config", path.to_str().unwrap()], &[]);
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{}", path.display());
        assert_eq!(run.out, format!("{}: ok\n", path.display()));
        seen += 1;
    }
    assert_eq!(seen, 4);
}

#[test]
fn the_commented_default_is_the_built_in_default() {
    let values = |rows: Vec<(String, String, String)>| -> Vec<(String, String)> {
        rows.into_iter().map(|(key, value, _)| (key, value)).collect()
    };
    let file = show(&["--config", "config/rmxd.toml"], &[]);
    let empty = tempfile::NamedTempFile::new().unwrap();
    let built_in = show(&["--config", empty.path().to_str().unwrap()], &[]);
    assert!(built_in.iter().all(|(.., origin)| origin == "default"));
    let inherited = |key: &str| key.ends_with("_by");
    assert!(file.iter().all(|(key, _, origin)| origin == "config/rmxd.toml" || inherited(key)));
    assert_eq!(values(file), values(built_in));
}

#[test]
fn the_other_two_ways_to_run_it_are_what_they_say() {
    let monitor = show(&["--config", "config/monitor.toml"], &[]);
    assert_eq!(row(&monitor, "policy.mode"), ("\"monitor\"", "config/monitor.toml"));
    let strict = show(&["--config", "config/strict.toml"], &[]);
    for key in ["policy.ptr.exists", "policy.mail_from.exists", "policy.mail_from.matches"] {
        assert_eq!(row(&strict, key), ("\"reject\"", "config/strict.toml"), "{key}");
    }
    assert_eq!(row(&strict, "relay.next_hop").0, "\"smtp://127.0.0.1:10025\"");
}

#[test]
fn each_layer_goes_over_the_one_below_and_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("site.toml");
    let text = "hostname = 'mx.site.test'\n[policy]\nexists_by = ['mx', 'address']\n\
                [limits]\nerrors = 3\nrecipients = 30\nmessage = '1MiB'\n";
    std::fs::write(&path, text).unwrap();
    let file = path.to_str().unwrap();
    let variables = [
        ("RMXD_CONFIG", file),
        ("RMXD_LOG", "not ours"),
        ("RMXD__LIMITS__RECIPIENTS", "40"),
        ("RMXD__LIMITS__ERRORS", "4"),
        ("RMXD__LISTEN__SMTP", "127.0.0.1:25, [::1]:25"),
        ("RMXD__EXEMPT__RECIPIENTS", ""),
        ("RMXD__POLICY__MAIL_FROM__MATCHES", "reject"),
    ];
    let rows = show(&["--set", "limits.errors=5"], &variables);
    let expected = [
        ("hostname", "\"mx.site.test\"", file),
        ("limits.errors", "5", "--set"),
        ("limits.recipients", "40", "RMXD__LIMITS__RECIPIENTS"),
        ("limits.message", "\"1MiB\"", file),
        ("limits.connections", "10000", "default"),
        ("listen.smtp", "[\"127.0.0.1:25\",\"[::1]:25\"]", "RMXD__LISTEN__SMTP"),
        ("exempt.recipients", "[]", "RMXD__EXEMPT__RECIPIENTS"),
        ("policy.mail_from.matches", "\"reject\"", "RMXD__POLICY__MAIL_FROM__MATCHES"),
        ("policy.from.exists_by", "[\"mx\",\"address\"]", file),
        ("policy.ptr.exists_by", "[\"mx\",\"organization\"]", "default"),
    ];
    for (key, value, origin) in expected {
        assert_eq!(row(&rows, key), (value, origin), "{key}");
    }
}

#[test]
fn what_is_shown_can_be_loaded_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shown.toml");
    let arguments = ["--set", "hostname=mx.site.test", "--set", "reply.help_url=https://a.test/?q=\"#\\"];
    let shown = rmxd(&[&["config", "show"], &arguments[..]].concat(), &[]).out;
    assert!(shown.contains("\n[policy.mail_from]\nexists = \"reject\""), "{shown}");
    std::fs::write(&path, &shown).unwrap();
    let again = show(&["--config", path.to_str().unwrap()], &[]);
    for ((key, before, _), (_, after, _)) in show(&arguments, &[]).iter().zip(&again) {
        assert_eq!(before, after, "{key}");
    }
    let column = |line: &str| line.find("  # ");
    let columns: Vec<_> = shown.lines().filter(|line| line.contains(" = ")).map(column).collect();
    assert!(columns.iter().all(Option::is_some), "{shown}");
}

#[test]
fn secrets_are_not_shown() {
    let rows = show(&[], &[("RMXD__ADMIN__TOKEN", "s3cret")]);
    assert_eq!(row(&rows, "admin.token"), ("\"***\"", "RMXD__ADMIN__TOKEN"));
    for url in ["redis://:s3cret@host", "redis://u:s3cret@host:port", "http://:s3cret@host"] {
        let run = rmxd(&["config", "check"], &[("RMXD__CLUSTER__REDIS", url)]);
        assert_eq!(run.code, Some(78));
        assert!(run.err.contains("cluster.redis") && !run.err.contains("s3cret"), "{}", run.err);
    }
}

const ALLOWED_RUNGS: &str = "one or more of mx, network, ptr, spf";
const DKIM_IS_FOR_FROM: &str = "a DKIM signature vouches for From: only; set policy.from.matches_by";

/// One broken file a row, with the one line that is said about it.
#[test]
fn what_cannot_be_is_refused_with_place_key_and_what_is_allowed() {
    let rows: Vec<(&str, String)> = vec![
        // names and kinds
        ("[limits]\nsesion = '5m'", "2:1: limits.sesion: no such key; [limits] has connections, connections_per_client, command_line, header_block, message, recipients, errors, junk_commands, command_timeout, data_timeout, data_rate, message_time, session, banner_delay or bare_newline".into()),
        ("[policy.helo]\n  exist = 'off'", "2:3: policy.helo.exist: no such key; [policy.helo] has exists, matches, exists_by or matches_by".into()),
        ("[greylisting]\na = 1\nb = 2", "1:2: greylisting: no such key; at the top are hostname, listen, relay, policy, exempt, greylist, dns, limits, tls, trusted, milter, reply, admin, history, cluster or log".into()),
        ("log = 'info'", "1:1: log: is a table, with the keys format or level".into()),
        ("[hostname]\nx = 1", "1:2: hostname: must be a string".into()),
        ("[[dns]]\ntimeout = '5s'", "1:3: dns: is a table, with the keys servers, timeout, max_mx_hosts, private_addresses or cache".into()),
        ("[limits]\nerrors = 'ten'", "2:1: limits.errors: must be a whole number".into()),
        ("[limits]\nerrors = 1.5", "2:1: limits.errors: must be a whole number".into()),
        ("[policy]\nmode = true", "2:1: policy.mode: must be a string".into()),
        ("[listen]\nsmtp = '127.0.0.1:25'", "2:1: listen.smtp: must be a list of strings".into()),
        ("[listen]\nsmtp = ['127.0.0.1:25', 25]", "2:1: listen.smtp: must be a list of strings".into()),
        ("[limits]\nmessage = 1.5", "2:1: limits.message: must be a string such as \"30s\" or \"50MiB\"".into()),
        // single values
        ("hostname = 'my host'", "1:1: hostname: \"my host\" is not a host name such as \"mx.example.com\"".into()),
        ("hostname = \"a\\u001b[2J\"", "1:1: hostname: \"a\\u{1b}[2J\" is not a host name such as \"mx.example.com\"".into()),
        ("hostname = '192.0.2.1'", "1:1: hostname: \"192.0.2.1\" is not a host name such as \"mx.example.com\"".into()),
        ("[listen]\nsmtp = ['localhost:25']", "2:1: listen.smtp: \"localhost:25\" must be an address with a port, such as \"127.0.0.1:2525\" or \"[::1]:2525\"".into()),
        ("[listen]\nsmtp = ['[::1]:25', '[0::1]:25']", "2:1: listen.smtp: \"[0::1]:25\" is listed twice".into()),
        ("[relay]\nnext_hop = 'lmtp://a'", "2:1: relay.next_hop: \"lmtp://a\" is not allowed: \"maildir:PATH\" or \"smtp://HOST:PORT\"".into()),
        ("[relay]\ndomains = ['*.a.test']", "2:1: relay.domains: \"*.a.test\" is not a domain such as \"example.com\", or \".example.com\" with sub-domains".into()),
        ("[relay]\nidentity = 'proxy'", "2:1: relay.identity: \"proxy\" is not allowed: auto, xclient, xforward, proxy-v2 or none".into()),
        ("[relay]\nmax_connections = 0", "2:1: relay.max_connections: 0 is not allowed: 1 to 1000000".into()),
        ("[relay]\nconnect_timeout = '0s'", "2:1: relay.connect_timeout: \"0s\" is not allowed: must be more than zero".into()),
        ("[policy]\nmode = 'observe'", "2:1: policy.mode: \"observe\" is not allowed: enforce or monitor".into()),
        ("[policy]\nmalformed = 'defer'", "2:1: policy.malformed: \"defer\" is not allowed: reject or tag".into()),
        ("[policy]\nexists_by = []", "2:1: policy.exists_by: is empty, so that no sender could satisfy the rule: one or more of mx, address, organization".into()),
        ("[policy]\nexists_by = ['network']", "2:1: policy.exists_by: \"network\" is not allowed: one or more of mx, address, organization".into()),
        ("[policy]\nmatches_by = ['mx', 'mx']", "2:1: policy.matches_by: \"mx\" is listed twice".into()),
        ("[policy]\nmatch_prefix_v4 = 33", "2:1: policy.match_prefix_v4: 33 is not allowed: 0 to 32".into()),
        ("[policy]\nmatch_prefix_v6 = 129", "2:1: policy.match_prefix_v6: 129 is not allowed: 0 to 128".into()),
        ("[policy.helo]\nmatches = 'reject'", "2:1: policy.helo.matches: \"reject\" is not allowed: off or tag (RFC 5321 4.1.4 forbids refusing for it)".into()),
        ("[policy.helo]\nmatches = 'defer'", "2:1: policy.helo.matches: \"defer\" is not allowed: off or tag (RFC 5321 4.1.4 forbids refusing for it)".into()),
        ("[policy.from]\nexists = 'drop'", "2:1: policy.from.exists: \"drop\" is not allowed: off, tag, greylist, defer or reject".into()),
        ("[exempt]\nclients = ['192.0.2.0/33']", "2:1: exempt.clients: \"192.0.2.0/33\" is not a network such as \"192.0.2.0/24\" or \"2001:db8::/32\", nor an address".into()),
        ("[exempt]\nclients = ['192.0.2.1/24']", "2:1: exempt.clients: \"192.0.2.1/24\" has bits set behind its prefix: \"192.0.2.0/24\" is the network".into()),
        ("[exempt]\ndomains = ['a..test']", "2:1: exempt.domains: \"a..test\" is not a domain such as \"example.com\", or \".example.com\" with sub-domains".into()),
        ("[exempt]\nrecipients = ['a b']", "2:1: exempt.recipients: \"a b\" is neither a local part such as \"postmaster\" nor an address".into()),
        ("[exempt]\nrecipients = ['@a.test']", "2:1: exempt.recipients: \"@a.test\" is neither a local part such as \"postmaster\" nor an address".into()),
        ("[exempt]\nfiles = ['/no/such/list', '/no/such/list']", "2:1: exempt.files: \"/no/such/list\" is listed twice".into()),
        ("[exempt]\nfiles = ['/no/such/list']", "2:1: exempt.files: \"/no/such/list\" can't be read: No such file or directory (os error 2); allowed is a file with one network or domain per line".into()),
        ("[exempt]\nfiles = ['/dev/zero']", "2:1: exempt.files: \"/dev/zero\" can't be read: not a regular file; allowed is a file with one network or domain per line".into()),
        ("[dns]\nservers = ['dns.test']", "2:1: dns.servers: \"dns.test\" is not an address such as \"192.0.2.53\", \"127.0.0.1:5353\", \"[::1]:53\" or \"fe80::1%eth0\"".into()),
        ("[dns]\nservers = ['fe80::1']", "2:1: dns.servers: \"fe80::1\" is a link-local address without its interface, such as \"fe80::1%eth0\"".into()),
        ("[dns]\nservers = ['fe80::1%none-such']", "2:1: dns.servers: \"fe80::1%none-such\" names the network interface \"none-such\", and this machine has none of that name".into()),
        ("[dns]\nservers = ['::1%lo']", "2:1: dns.servers: \"::1%lo\" has an interface, and only a link-local address (fe80::/10) can".into()),
        ("[dns]\ntimeout = 5", "2:1: dns.timeout: \"5\" is not a duration: a number with ms, s, m, h or d such as \"30s\" or \"5m\"".into()),
        ("[dns]\ntimeout = '999y'", "2:1: dns.timeout: \"999y\" is not allowed: at most ten years".into()),
        ("[dns]\nmax_mx_hosts = 0", "2:1: dns.max_mx_hosts: 0 is not allowed: 1 to 1000".into()),
        ("[dns.cache]\nmemory = '64 mega'", "2:1: dns.cache.memory: \"64 mega\" is not a size: octets, or a number with KiB, MiB or GiB such as \"50MiB\"".into()),
        ("[dns.cache]\nmemory = 0", "2:1: dns.cache.memory: \"0\" is not allowed: 1 octet to 1.0 PiB".into()),
        ("[relay]\nmessages_per_connection = 0", "2:1: relay.messages_per_connection: 0 is not allowed: 1 to 1000000".into()),
        ("[limits]\nconnections = 0", "2:1: limits.connections: 0 is not allowed: 1 to 1000000".into()),
        ("[limits]\nconnections_per_client = -1", "2:1: limits.connections_per_client: -1 is not allowed: 1 to 1000000".into()),
        ("[limits]\ncommand_line = 80", "2:1: limits.command_line: 80 is not allowed: 512 to 65536".into()),
        ("[limits]\nheader_block = '1GiB'", "2:1: limits.header_block: \"1GiB\" is not allowed: 1 octet to 16.0 MiB".into()),
        ("[limits]\nrecipients = 0", "2:1: limits.recipients: 0 is not allowed: 1 to 1000000".into()),
        ("[limits]\ndata_rate = '0'", "2:1: limits.data_rate: \"0\" is not allowed: 1 octet to 1.0 PiB".into()),
        ("[limits]\nmessage_time = '0s'", "2:1: limits.message_time: \"0s\" is not allowed: must be more than zero".into()),
        ("[limits]\nsession = '0s'", "2:1: limits.session: \"0s\" is not allowed: must be more than zero".into()),
        ("[limits]\nbare_newline = 'normalise'", "2:1: limits.bare_newline: \"normalise\" is not allowed: reject or normalize".into()),
        ("[limits]\nbanner_delay = '5m'", "2:1: limits.banner_delay: \"5m\" is not allowed: at most 4 minutes, since clients wait only 5 minutes for the banner (RFC 5321 4.5.3.2.1)".into()),
        ("[limits]\nbanner_delay = 'off'", "2:1: limits.banner_delay: \"off\" is not a duration: a number with ms, s, m, h or d such as \"30s\" or \"5m\"".into()),
        ("[trusted]\nproxy = ['10.0.0.1/8']", "2:1: trusted.proxy: \"10.0.0.1/8\" has bits set behind its prefix: \"10.0.0.0/8\" is the network".into()),
        ("[trusted]\nxclient = ['gateway.test']", "2:1: trusted.xclient: \"gateway.test\" is not a network such as \"192.0.2.0/24\" or \"2001:db8::/32\", nor an address".into()),
        ("[reply]\nhelp_url = 'mail.example.com/help'", "2:1: reply.help_url: \"mail.example.com/help\" is not allowed: an http:// or https:// URL of at most 200 octets without white space".into()),
        ("[reply]\nhelp_url = \"https://a.test/\\r\\n250 ok\"", "2:1: reply.help_url: \"https://a.test/\\r\\n250 ok\" is not allowed: an http:// or https:// URL of at most 200 octets without white space".into()),
        ("[listen]\nsmtp = ['unix:/run/rmxd/smtp']", "2:1: listen.smtp: \"unix:/run/rmxd/smtp\" must be an address with a port: smtp needs the address of the client, which a unix socket doesn't have".into()),
        ("[listen]\npolicy = ['unix:policy']", "2:1: listen.policy: \"unix:policy\" must name a unix socket by its absolute path, such as \"unix:/run/rmxd/admin\"".into()),
        ("[listen]\nsmtp = ['127.0.0.1:1']\npolicy = ['127.0.0.1:1']", "3:1: listen.policy: \"127.0.0.1:1\" is in listen.smtp too".into()),
        ("[trusted]\npostfix = ['mail.test']", "2:1: trusted.postfix: \"mail.test\" is not a network such as \"192.0.2.0/24\" or \"2001:db8::/32\", nor an address".into()),
        ("[milter]\nresults = 'replace'", "2:1: milter.results: \"replace\" is not allowed: add, remove or keep".into()),
        ("[listen]\nadmin = 'localhost:8025'", "2:1: listen.admin: must be an address with a port, such as \"127.0.0.1:2525\" or \"[::1]:2525\", or a unix socket such as \"unix:/run/rmxd/admin\"".into()),
        ("[listen]\nadmin = 'unix:admin'", "2:1: listen.admin: must name a unix socket by its absolute path, such as \"unix:/run/rmxd/admin\"".into()),
        ("[listen]\nadmin = '[::]:8025'", "2:1: listen.admin: an address that is not loopback needs admin.token".into()),
        ("[admin]\ntoken = 'two words'", "2:1: admin.token: must be printable ASCII without white space".into()),
        ("[history]\nsize = '1KiB'", "2:1: history.size: \"1KiB\" is not allowed: at least 1MiB".into()),
        ("[history]\nkeep = 'forever'", "2:1: history.keep: \"forever\" is not a duration: a number with ms, s, m, h or d such as \"30s\" or \"5m\"".into()),
        ("[log]\nlevel = 'verbose'", "2:1: log.level: \"verbose\" is not allowed: error, warn, info, debug, trace, or by module such as \"info,rmxd::dns=debug\"".into()),
        // combinations
        ("[relay]\nnext_hop = 'smtp://127.0.0.1:10025'\nidentity = 'none'", "3:1: relay.identity: relay.identity \"none\" with an SMTP next hop needs relay.domains: the relay sees rmxd's own host as the client, so that rmxd without a list would be an open relay".into()),
        ("[relay]\nnext_hop = 'smtp://127.0.0.1:10025'\nidentity = 'xforward'", "3:1: relay.identity: relay.identity \"xforward\" with an SMTP next hop needs relay.domains: XFORWARD is for the relay's log only, and its restrictions still see rmxd's own host as the client, so that rmxd without a list would be an open relay".into()),
        ("[relay]\nnext_hop = 'smtp://127.0.0.1:10025'\nidentity = 'proxy-v2'", "3:1: relay.identity: relay.identity \"proxy-v2\" with an SMTP next hop needs relay.domains: rmxd can't know whether the relay trusts the PROXY header; if it doesn't, rmxd without a list would be an open relay".into()),
        ("[listen]\nsmtp = ['0.0.0.0:25']\n[relay]\nnext_hop = 'smtp://127.0.0.1:25'", "4:1: relay.next_hop: \"smtp://127.0.0.1:25\" leads back to rmxd itself: listen.smtp has 0.0.0.0:25. Mail would go in a circle; name the mail server behind rmxd, which has another port or address, such as \"smtp://127.0.0.1:10025\"".into()),
        ("[relay]\ntls = 'required'", "2:1: relay.tls: relay.tls \"required\" needs an SMTP next hop: a Maildir has no connection to encrypt".into()),
        ("[relay]\ntls = 'always'", "2:1: relay.tls: \"always\" is not allowed: none, opportunistic or required".into()),
        ("[tls]\ncertificate = '/c.pem'", "2:1: tls.certificate: tls.certificate and tls.key go together: both or neither".into()),
        ("[dns.cache]\nmin_ttl = '2d'\nmax_negative_ttl = '3d'", "2:1: dns.cache.min_ttl: dns.cache.min_ttl must not be more than dns.cache.max_ttl".into()),
        ("[dns.cache]\nmax_negative_ttl = '1s'", "2:1: dns.cache.max_negative_ttl: dns.cache.min_ttl must not be more than dns.cache.max_negative_ttl".into()),
        ("[greylist]\nexpire = '1m'", "2:1: greylist.expire: greylist.delay must be less than greylist.expire, otherwise no retry could ever pass".into()),
        ("[policy.ptr]\nmatches_by = ['ptr']", "2:1: policy.ptr.matches_by: \"ptr\" is not allowed: every PTR name would match itself; one or more of mx, network, spf".into()),
        ("[policy]\nmatches_by = ['mx', 'ptr']\n[policy.ptr]\nmatches = 'tag'", "4:1: policy.ptr.matches: policy.ptr.matches needs a policy.ptr.matches_by without \"ptr\": every PTR name would match itself".into()),
        ("[policy]\nmatches_by = ['spf', 'dkim']", format!("2:1: policy.matches_by: \"dkim\" is not allowed: {DKIM_IS_FOR_FROM}; {ALLOWED_RUNGS}")),
        // later work
        ("[listen]\nmilter = ['inet:8891@localhost']", "2:1: listen.milter: \"inet:8891@localhost\" must be an address with a port, such as \"127.0.0.1:2525\" or \"[::1]:2525\", or a unix socket such as \"unix:/run/rmxd/milter\"".into()),
        ("[dns]\ntimeout = '8334ms'\n[listen]\nmilter = ['127.0.0.1:8891']", "2:1: dns.timeout: dns.timeout must be less than 8.3s with listen.milter: Postfix waits 30s for a milter, and rmxd up to three times dns.timeout for DNS".into()),
("[policy.helo]\nmatches_by = ['dkim']", format!("2:1: policy.helo.matches_by: \"dkim\" is not allowed: {DKIM_IS_FOR_FROM}; {ALLOWED_RUNGS}")),
        ("[cluster]\nnode = 16", "2:1: cluster.node: 16 is not allowed: 0 to 15".into()),
        ("[cluster]\ntimeout = '3s'", "2:1: cluster.timeout: \"3s\" is not allowed: at most 2s, since clients wait meanwhile".into()),
        ("[cluster]\ntimeout = '0s'", "2:1: cluster.timeout: \"0s\" is not allowed: must be more than zero".into()),
        ("[cluster]\nprefix = '{a}'", "2:1: cluster.prefix: \"{a}\" is not allowed: 1 to 64 ASCII letters, digits, \"-\", \"_\" and \".\"".into()),
        ("[cluster]\nkey = 1", "2:1: cluster.key: no such key; [cluster] has redis, node, secret, password, ca, timeout, prefix or advertise".into()),
        ("[log]\nformat = 'syslog'", "2:1: log.format: \"syslog\" is not allowed: text, json or journald".into()),
    ];
    for (text, expected) in rows {
        let run = check(text);
        assert_eq!(run.err, format!("FILE:{expected}\n"), "{text}");
        assert_eq!((run.code, run.out.as_str()), (Some(78), ""), "{text}");
    }
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let run = check(
        "hostname = 'my host'\n[limits]\nerors = 3\nerrors = 0\nsession = 5\n[listen]\nadmin = '0.0.0.0:1'\n\
         [tls]\nkey = 'k'\n",
    );
    let places: Vec<String> =
        run.err.lines().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        places,
        [
            "FILE:1:1 hostname",
            "FILE:3:1 limits.erors",
            "FILE:4:1 limits.errors",
            "FILE:5:1 limits.session",
            "FILE:7:1 listen.admin",
            "FILE:9:1 tls.key",
        ]
    );
    assert!(run.err.contains("listen.admin: an address that is not loopback needs admin.token\n"));
    assert!(run.err.contains("tls.certificate and tls.key go together: both or neither\n"));
}

#[test]
fn a_file_that_is_no_toml_is_told_with_its_lines_and_nothing_else() {
    let run = check("[limits]\nerrors = \n[policy]\nmode = 'x\n");
    assert_eq!(run.code, Some(78));
    let places: Vec<&str> = run.err.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(places.len(), 2, "{}", run.err);
    assert!(places[0].starts_with("FILE:2:") && places[1].starts_with("FILE:4:"), "{}", run.err);
    assert!(run.err.lines().all(|line| line.contains(": not TOML: ")), "{}", run.err);
}

#[test]
fn a_certificate_that_cannot_be_used_stops_check_and_start() {
    let directory = tempfile::tempdir().unwrap();
    let text = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key, other) = (text("cert.pem"), text("key.pem"), text("other.pem"));
    let pair = rcgen::generate_simple_self_signed(["mx.site.test".to_owned()]).unwrap();
    std::fs::write(&certificate, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    std::fs::write(&other, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let rows = [
        (&key, None),
        (&other, Some(format!("tls.key: {other}: is not the key of the certificate in {certificate}"))),
        (
            &text("none.pem"),
            Some(format!(
                "tls.key: {}: can't be read: No such file or directory (os error 2)",
                text("none.pem")
            )),
        ),
    ];
    for (key, problem) in rows {
        let set = [format!("tls.certificate={certificate}"), format!("tls.key={key}")];
        let ports = ["listen.smtp=127.0.0.1:0", "listen.admin="];
        let set = [&set[0], &set[1], "hostname=mx.site.test", ports[0], ports[1]];
        let flags: Vec<&str> = set.into_iter().flat_map(|line| ["--set", line]).collect();
        let check = rmxd(&[&["config", "check"], &flags[..]].concat(), &[]);
        match problem {
            None => assert_eq!((check.code, check.out.as_str()), (Some(0), "built-in defaults: ok\n")),
            Some(problem) => {
                assert_eq!((check.code, check.err), (Some(78), format!("{problem}\n")));
                let serve = rmxd(&[&["serve"], &flags[..]].concat(), &[]);
                assert_eq!(serve.code, Some(78));
                assert!((serve.out + &serve.err).contains(&problem));
            }
        }
    }
}

/// The address of an interface, where the machine has a route.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().unwrap().ip())
}

#[test]
fn a_next_hop_that_is_our_own_listener_is_refused_by_check_and_start() {
    let port = process::free_port();
    let localhost = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
    let mut rows = vec![
        (format!("127.0.0.1:{port}"), format!("127.0.0.1:{port}"), "smtp", "auto"),
        (format!("0.0.0.0:{port}"), format!("127.0.0.1:{port}"), "smtp", "xclient"),
        (format!("0.0.0.0:{port}"), format!("127.0.0.7:{port}"), "smtp", "proxy-v2"),
        (format!("[::]:{port}"), format!("127.0.0.1:{port}"), "smtp", "none"),
        (format!("[::]:{port}"), format!("[::1]:{port}"), "smtp", "xforward"),
        (format!("0.0.0.0:{port}"), format!("localhost:{port}"), "smtp", "xclient"),
        (localhost.join(","), format!("localhost:{port}"), "smtp", "xclient"),
        (format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}"), "smtp", "auto"),
        ("127.0.0.1:0".to_owned(), format!("127.0.0.1:{port}"), "admin", "auto"),
        ("127.0.0.1:0".to_owned(), format!("127.0.0.1:{port}"), "milter", "auto"),
        ("127.0.0.1:0".to_owned(), format!("127.0.0.1:{port}"), "policy", "auto"),
    ];
    rows.extend(
        own_address().map(|own| {
            (format!("0.0.0.0:{port}"), SocketAddr::new(own, port).to_string(), "smtp", "xclient")
        }),
    );
    for (smtp, next_hop, listener, identity) in rows {
        let mut set = vec![
            format!("listen.smtp={smtp}"),
            format!("listen.admin={}", if listener == "admin" { &next_hop } else { "" }),
            format!("relay.next_hop=smtp://{next_hop}"),
            format!("relay.identity={identity}"),
            "relay.domains=here.test".to_owned(),
            "hostname=mx.site.test".to_owned(),
            "history.path=".to_owned(),
            "dns.servers=127.0.0.1:9".to_owned(),
        ];
        if ["milter", "policy"].contains(&listener) {
            set.push(format!("listen.{listener}={next_hop}"));
        }
        let flags: Vec<&str> = set.iter().flat_map(|line| ["--set", line]).collect();
        let expected = format!(
            "relay.next_hop: \"smtp://{next_hop}\" leads back to rmxd itself: listen.{listener} has "
        );
        for command in [&["config", "check"][..], &["serve"]] {
            let run = rmxd(&[command, &flags[..]].concat(), &[]);
            let said = run.out + &run.err;
            assert_eq!(run.code, Some(78), "{command:?} {smtp} {next_hop}: {said}");
            assert!(said.contains(&expected) && said.lines().count() == 1, "{said}");
        }
    }
}

#[test]
fn a_next_hop_beside_our_own_listener_is_allowed() {
    let rows = [
        ("127.0.0.1:25", "127.0.0.2:25"),
        ("192.0.2.25:25", "127.0.0.1:25"),
        ("0.0.0.0:25", "192.0.2.1:25"),
        ("0.0.0.0:25", "[::1]:25"),
        ("[::]:25", "127.0.0.1:10025"),
        ("[::1]:25", "no-such-host.invalid:25"),
    ];
    for (smtp, next_hop) in rows {
        let text = format!("[listen]\nsmtp = ['{smtp}']\n[relay]\nnext_hop = 'smtp://{next_hop}'\n");
        let run = check(&text);
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{smtp} {next_hop}");
    }
    // Nothing is sent to the next hop where no mail comes by SMTP.
    let text = "[listen]\nsmtp = []\npolicy = ['127.0.0.1:25']\n[relay]\nnext_hop = 'smtp://127.0.0.1:25'\n";
    assert_eq!(check(text).code, Some(0));
}

#[test]
fn environment_and_flags_are_named_where_they_are_wrong() {
    let variables = [
        ("RMXD__LOG__LEVL", "info", "log.levl: no such key; [log] has format or level"),
        ("RMXD__LIMITS__ERRORS", "many", "limits.errors: must be a whole number"),
        ("RMXD__LOG", "info", "log: is a table, with the keys format or level"),
        ("RMXD__RELAY__TLS", "never", "relay.tls: \"never\" is not allowed: none, opportunistic or required"),
    ];
    for (name, value, expected) in variables {
        let run = rmxd(&["config", "check"], &[(name, value)]);
        assert_eq!((run.code, run.err), (Some(78), format!("environment {name}: {expected}\n")));
    }
    let arguments = [
        ("--set", "log.levl=info", "flag --set: log.levl: no such key; [log] has format or level\n"),
        ("--set", "policy.mode=x", "flag --set: policy.mode: \"x\" is not allowed: enforce or monitor\n"),
        ("--config", "no/such.toml", "no/such.toml: can't be read: No such file or directory (os error 2)\n"),
    ];
    for (flag, value, expected) in arguments {
        let run = rmxd(&["config", "check", flag, value], &[]);
        assert_eq!((run.code, run.err.as_str()), (Some(78), expected));
    }
}

#[test]
fn the_command_line_has_its_own_exit_codes() {
    let rows: [(&[&str], i32); 6] = [
        (&["--help"], 0),
        (&["--version"], 0),
        (&["config", "check", "--help"], 0),
        (&[], 64),
        (&["config", "chek"], 64),
        (&["config", "check", "--set", "no-equals-sign"], 64),
    ];
    for (arguments, code) in rows {
        let run = rmxd(arguments, &[]);
        assert_eq!(run.code, Some(code), "{arguments:?} {}", run.err);
        assert_eq!(run.out.is_empty(), code != 0, "{arguments:?}");
    }
}

#[test]
fn a_link_local_server_is_shown_with_its_interface() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[dns]\nservers = ['fe80::1%lo', '[fe80::2%lo]:5353']\n").unwrap();
    let path = file.path().to_str().unwrap();
    let shown = show(&["--config", path], &[]);
    assert_eq!(row(&shown, "dns.servers"), ("[\"fe80::1%lo\",\"[fe80::2%lo]:5353\"]", path));
    let set = show(&["--set", "dns.servers=fe80::1%lo"], &[]);
    assert_eq!(row(&set, "dns.servers").0, "[\"fe80::1%lo\"]");
}

#[test]
fn a_certificate_that_needs_care_is_noted() {
    let check = |pair: &Pair| {
        let run = check(&format!("hostname = \"mx.site.test\"\n{}", pair.lines()));
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
        run.out.replace(&pair.path("cert.pem"), "CERT")
    };
    assert_eq!(check(&Pair::new("mx.site.test", 80)), "FILE: ok\n");
    let out = check(&Pair::new("mail.site.test", 9));
    let [_, expires, name] = out.lines().collect::<Vec<_>>()[..] else { panic!("{out}") };
    assert!(expires.starts_with("note: tls.certificate CERT expires in 9 days (20"), "{out}");
    let expected = "note: tls.certificate CERT isn't for hostname mx.site.test but for mail.site.test: ";
    assert!(name.starts_with(expected), "{out}");
}

/// Needs root, as the command does for this.
#[test]
fn root_learns_which_files_the_services_user_could_not_read() {
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !is_root || process::program("setpriv").is_none() {
        return process::missing("only root can ask for another user");
    }
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mode = |path: &str, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    std::fs::create_dir(place("etc")).unwrap();
    std::fs::write(
        place("systemctl"),
        "#!/bin/sh\nprintf 'LoadState=loaded\\nUser=nobody\\nSupplementaryGroups=\\n'\n",
    )
    .unwrap();
    mode(&place("systemctl"), 0o755);
    let pair = Pair::new("mx.site.test", 80);
    for name in ["cert.pem", "key.pem"] {
        std::fs::copy(pair.path(name), place(&format!("etc/{name}"))).unwrap();
    }
    let file = place("etc/rmxd.toml");
    let (certificate, key) = (place("etc/cert.pem"), place("etc/key.pem"));
    let text = format!(
        "hostname = \"mx.site.test\"\n[tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n\
         [exempt]\nfiles = [\"partners\"]\n"
    );
    std::fs::write(&file, text).unwrap();
    std::fs::write(place("etc/partners"), "partner.test\n").unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let notes = || {
        let run = rmxd(&["config", "check", "--config", &file], &[("PATH", &path)]);
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
        let notes = run.out.lines().skip(1).map(|line| line.replace(&place(""), "/"));
        notes.collect::<Vec<String>>()
    };
    let closed = |owner: &str, at: &str, what: &str, right: &str| {
        format!(
            "the service's user nobody {what} ({owner}): chgrp nobody {at} and chmod {right}, or give the service its \
             group (systemctl edit rmxd: [Service] SupplementaryGroups=GROUP)"
        )
    };
    mode(folder.path().to_str().unwrap(), 0o755);
    mode(&place("etc"), 0o755);
    for name in ["cert.pem", "partners", "rmxd.toml"] {
        mode(&place(&format!("etc/{name}")), 0o644);
    }
    mode(&key, 0o600);
    let of_key = closed("root:root, mode 600", "/etc/key.pem", "can't read it", "g+r");
    assert_eq!(notes(), [format!("note: tls.key: /etc/key.pem: {of_key}")]);
    mode(&key, 0o644);
    assert_eq!(notes(), Vec::<String>::new());
    mode(&place("etc"), 0o700);
    let notes = notes();
    let of_folder = closed("root:root, mode 700", "/etc", "can't enter its folder", "g+x");
    let keys = [
        ("exempt.files", "partners"),
        ("tls.certificate", "cert.pem"),
        ("tls.key", "key.pem"),
        ("the configuration", "rmxd.toml"),
    ];
    assert_eq!(notes, keys.map(|(key, name)| format!("note: {key}: /etc/{name}: {of_folder}")));
}

#[test]
fn a_policy_service_alone_is_noted_with_what_has_no_effect() {
    let header = "note: only listen.policy listens, which sees no header: no effect of";
    let results = "note: only listen.policy listens, which changes no message: no Authentication-Results, and forged \
                   ones stay\n";
    let by_default = "policy.from.exists = \"reject\", policy.from.matches = \"dmarc\", \
                      policy.reply_to.exists = \"greylist\"";
    let off = "[policy.from]\nexists = 'off'\nmatches = 'off'\n[policy.reply_to]\nexists = 'off'";
    let rows = [
        (
            "smtp = []\npolicy = ['unix:/run/rmxd/policy']\n".to_owned(),
            format!("{header} {by_default}\n{results}"),
        ),
        (format!("smtp = []\npolicy = ['unix:/run/rmxd/policy']\n{off}"), results.to_owned()),
        ("policy = ['unix:/run/rmxd/policy']\n".to_owned(), String::new()),
        ("smtp = []\n".to_owned(), String::new()),
    ];
    for (listen, notes) in rows {
        let run = check(&format!("[listen]\n{listen}"));
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{listen}");
        let (first, rest) = run.out.split_once('\n').unwrap();
        assert!(first.ends_with(": ok"), "{first}");
        assert_eq!(rest, notes, "{listen}");
    }
}

/// `config check` of a `[cluster]` with files beside it, and what it says below `2:1: cluster.`.
fn check_cluster(lines: &str) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, octets: &[u8]| std::fs::write(directory.path().join(name), octets).unwrap();
    file("secret", &[b's'; 33]);
    file("short", b"0123456789012345678901234567890\n\n");
    file("password", b"p4ss\n");
    file("empty", b"\n");
    file("ca", b"no certificate");
    let path = directory.path().join("rmxd.toml");
    std::fs::write(&path, format!("[cluster]\n{lines}\n")).unwrap();
    let mut run = rmxd(&["config", "check", "--config", path.to_str().unwrap()], &[]);
    let folder = directory.path().to_str().unwrap();
    run.out = run.out.replace(folder, "HERE");
    run.err = run.err.replace(folder, "HERE");
    run
}

#[test]
fn a_fleet_needs_all_that_it_needs() {
    const GOOD: &str = "redis = 'redis://h'\nnode = 1\nsecret = 'secret'";
    for lines in [
        GOOD,
        "redis = 'redis+sentinel://a,b/main'\nnode = 15\nsecret = 'secret'\npassword = 'password'\ntimeout = '2s'",
        "node = 3\nsecret = 'no such file'",
        "redis = 'redis://h'\nnode = 1\nsecret = 'secret'\nadvertise = 'http://10.0.0.3:8025'\n[admin]\ntoken = 't'",
    ] {
        let run = check_cluster(lines);
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{lines}");
    }
    let with = |more: &str| format!("{GOOD}\n{more}");
    let rows = [
        (
            "redis = 'redis://h'\nsecret = 'secret'".to_owned(),
            "2:1: cluster.redis: cluster.node 0 is not allowed with cluster.redis: 1 to 15, another one on each node",
        ),
        (
            "redis = 'redis://h'\nnode = 1".to_owned(),
            "2:1: cluster.redis: cluster.redis needs cluster.secret: a file with at least 32 octets, the same on all \
             nodes (openssl rand -hex 32)",
        ),
        (
            "redis = 'redis://h'\nnode = 1\nsecret = 'short'".to_owned(),
            "4:1: cluster.secret: \"short\" has 31 octets: at least 32 are needed (openssl rand -hex 32)",
        ),
        (
            "redis = 'redis://h'\nnode = 1\nsecret = 'none'".to_owned(),
            "4:1: cluster.secret: \"HERE/none\" can't be read: No such file or directory (os error 2)",
        ),
        (
            with("password = 'empty'"),
            "5:1: cluster.password: \"empty\" is not allowed: a file with the password in UTF-8, in one line",
        ),
        (
            "redis = 'redis://:p4ss@h'\nnode = 1\nsecret = 'secret'\npassword = 'password'".to_owned(),
            "5:1: cluster.password: the password is in cluster.redis too: only one of them is allowed",
        ),
        (
            with("ca = 'ca'"),
            "5:1: cluster.ca: cluster.ca needs a cluster.redis that begins with \"rediss\": without it nothing is encrypted",
        ),
        (
            "redis = 'rediss://h'\nnode = 1\nsecret = 'secret'\nca = 'ca'".to_owned(),
            "5:1: cluster.ca: \"ca\" has no certificate in PEM (\"-----BEGIN CERTIFICATE-----\")",
        ),
        (
            with("advertise = 'http://10.0.0.3:8025'"),
            "5:1: cluster.advertise: cluster.advertise needs admin.token, the same on all nodes: they ask each other \
             with it",
        ),
        (
            with("advertise = 'https://mx1.test'\n[admin]\ntoken = 't'"),
            "5:1: cluster.advertise: \"https://mx1.test\" is not allowed: an address with a port, such as \
             \"http://10.0.0.3:8025\" or \"http://[2001:db8::3]:8025\"",
        ),
        (
            "advertise = 'http://10.0.0.3:8025'\n[admin]\ntoken = 't'".to_owned(),
            "2:1: cluster.advertise: cluster.advertise needs cluster.redis, where the other nodes find it",
        ),
        (
            "redis = 'redis+cluster://a/1'\nnode = 1\nsecret = 'secret'".to_owned(),
            "2:1: cluster.redis: has a database, and a Redis Cluster has none to choose from",
        ),
    ];
    for (lines, expected) in rows {
        let run = check_cluster(&lines);
        let first = run.err.lines().next().unwrap_or_default();
        assert_eq!((run.code, first), (Some(78), format!("HERE/rmxd.toml:{expected}").as_str()), "{lines}");
    }
}
