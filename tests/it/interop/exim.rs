//! A real Exim behind rmxd, as stock Debian has it: the configuration is made by Debian's `update-exim4.conf` from its own
//! templates; what is not Debian's there, and rmxd's configuration, are the lines of systemd/README.md.
//!
//! Debian's packages can't be installed beside Postfix, so `tests/run` unpacks them below target/. Exim runs in a mount
//! namespace whose root is this machine with those packages on top: what is written there stays in memory. It delivers to
//! `you` at example.com and sends nothing anywhere.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use tempfile::TempDir;

use super::mail;
use crate::support::client::{Client, on_the_wire};
use crate::support::daemon::Daemon;
use crate::support::process::{self, SOON, free_address};
use crate::support::readme;
use crate::support::zone::Zone;

const EXCHANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What Debian asks at the installation, for a machine with mail of its own. The lines of the guide come after it.
const DEBCONF: &str = "dc_eximconfig_configtype='internet'
dc_other_hostnames='example.com'
dc_local_interfaces=''
dc_readhost=''
dc_relay_domains=''
dc_minimaldns='false'
dc_relay_nets=''
dc_smarthost=''
CFILEMODE='644'
dc_hide_mailname=''
dc_mailname_in_oh='true'
dc_localdelivery='maildir_home'
";

/// From the packages to a running Exim. Arguments: a folder that isn't there yet, the packages, and the file for the
/// guide's `hosts_proxy`; the lines for both files come on standard input.
const SCRIPT: &str = r#"
set -eu
mkdir "$1"
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root" "$1/packages"
cp -a "$2/usr" "$2/etc" "$1/packages"
mount -t overlay -o "lowerdir=$1/packages:/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
mount --rbind /proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
cat >"$1/root/lines"
exec chroot "$1/root" /bin/sh -c '
set -eu
number=64998
for name in Debian-exim you; do
    echo "$name:x:$number:$number::/srv/$name:/usr/sbin/nologin" >>/etc/passwd
    echo "$name:x:$number:" >>/etc/group
    install -d -o "$name" -g "$name" "/srv/$name"
    number=$((number + 1))
done
install -d -o Debian-exim -g Debian-exim /var/lib/exim4 /var/spool/exim4 /var/log/exim4 /run/exim4
rm -f /etc/resolv.conf /etc/mailname
echo "nameserver 127.0.0.1" >/etc/resolv.conf
echo mx.example.com >/etc/mailname
grep "^dc_" /lines >/etc/exim4/update-exim4.conf.conf
grep "^CFILEMODE" /lines >>/etc/exim4/update-exim4.conf.conf
grep "^hosts_proxy" /lines >"$0"
update-exim4.conf
exec exim4 -bdf
' "$3"
"#;

/// A running Exim. Dropping it ends it.
struct Exim {
    child: Child,
    folder: TempDir,
    /// For this machine's programs, port 25 in the guide; for rmxd, port 10025 there.
    addresses: [SocketAddr; 2],
}

impl Exim {
    /// Starts one, or says why it can't be had.
    async fn start() -> Option<Self> {
        Self::start_with("/etc/exim4/exim4.conf.localmacros", "dc_use_split_config='false'\n").await
    }

    async fn start_split() -> Option<Self> {
        Self::start_with("/etc/exim4/conf.d/main/00_rmxd", "dc_use_split_config='true'\n").await
    }

    async fn start_with(place: &str, scheme: &str) -> Option<Self> {
        let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("peers/exim");
        if !packages.join("etc/exim4/conf.d").is_dir() {
            process::missing("Exim is not unpacked below target/peers (tests/run does it)");
            return None;
        }
        if fs::metadata("/proc/self").unwrap().uid() != 0 {
            process::missing("Exim has to be started by root");
            return None;
        }
        assert!(readme::text("systemd/README.md").contains(place));
        let folder = tempfile::Builder::new().prefix("rmxd-exim-").tempdir().unwrap();
        let addresses = [free_address(), free_address()];
        let lines = folder.path().join("lines");
        fs::write(&lines, [DEBCONF, scheme, &lines_of_guide(addresses)].concat()).unwrap();
        let said = File::create(folder.path().join("said")).unwrap();
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"])
            .args([&folder.path().join("machine"), &packages, Path::new(place)])
            .stdin(File::open(lines).unwrap())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .unwrap();
        let exim = Self { child, folder, addresses };
        for address in addresses {
            drop(process::accepted(address).await);
        }
        Some(exim)
    }

    /// A path of Exim's machine.
    fn path(&self, path: &str) -> PathBuf {
        format!("/proc/{}/root{path}", self.child.id()).into()
    }

    /// The messages that `you` has.
    fn messages(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("/srv/you/Maildir/new")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn delivered(&self) -> usize {
        self.messages().len()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("/var/log/exim4/mainlog")).unwrap_or_default()
    }

    /// Messages that wait for the next queue run since too many came in one connection.
    fn waiting(&self) -> usize {
        self.log().matches("no immediate delivery: more than 10 messages received in one connection").count()
    }
}

impl Drop for Exim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = fs::read_to_string(self.folder.path().join("said")).unwrap_or_default();
            eprintln!("--- Exim\n{said}{}", self.log());
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The lines of the guide for both files of Exim, with ports that are free here.
fn lines_of_guide(addresses: [SocketAddr; 2]) -> String {
    let guide = readme::block("update-exim4.conf.conf") + &readme::block("exim4.conf");
    let [own, behind] = addresses.map(|address| address.port());
    let replaced = guide
        .replace("127.0.0.1.25 ", &format!("127.0.0.1.{own} "))
        .replace("127.0.0.1.10025'", &format!("127.0.0.1.{behind}'"))
        .replace("{10025}", &format!("{{{behind}}}"));
    assert!(!replaced.contains("10025") && !replaced.contains(".25 "), "{replaced}");
    replaced
}

/// rmxd before Exim, as the guide has it. Its lines may be changed.
async fn rmxd(exim: &Exim, zone: &Zone, change: impl FnOnce(String) -> String) -> Daemon {
    let guide = change(readme::block("toml exim"));
    for part in ["192.0.2.25:25", "127.0.0.1:10025", "mode = \"monitor\""] {
        assert!(guide.contains(part), "{guide}");
    }
    let guide = guide
        .replace("192.0.2.25:25", &free_address().to_string())
        .replace("127.0.0.1:10025", &exim.addresses[1].to_string());
    let dns = zone.address();
    let more =
        format!("[dns]\nservers = [\"{dns}\"]\nprivate_addresses = \"accept\"\n[history]\npath = \"\"\n");
    Daemon::start(&format!("{guide}{more}"), &["--set", "listen.admin="]).await
}

/// The first line that is a reply to each of these.
async fn answers(client: &mut Client, lines: &[&str]) -> Vec<String> {
    let mut answers = Vec::new();
    for line in lines {
        answers.push(client.command(line).await.text);
    }
    answers
}

/// Plays the swaks lines of the guide. Below each stands its answer; `...` stands for anything.
async fn play_the_guide(rmxd: &Daemon) {
    let block = readme::block("exim");
    let lines: Vec<&str> = block.lines().collect();
    assert_eq!(lines.len(), 6, "{block}");
    for pair in lines.chunks(2) {
        let words: Vec<&str> = pair[0].split(' ').collect();
        let after = |word: &str| words[words.iter().position(|other| *other == word).unwrap() + 1];
        let mut client = Client::greeted(EXCHANGER, rmxd.address(), "mail.good.test").await;
        let mail = format!("MAIL FROM:<{}>", after("--from"));
        assert_eq!(client.command(&mail).await.code, 250);
        let mut reply = client.command(&format!("RCPT TO:<{}>", after("--to"))).await.text;
        if !words.contains(&"--quit-after") {
            assert_eq!(client.command("DATA").await.code, 354);
            client.send(&on_the_wire(&mail::message(1, 100))).await;
            reply = client.reply().await.text;
        }
        let expected = pair[1].strip_prefix("<-  ").or(pair[1].strip_prefix("<** ")).expect(pair[1]);
        let expected = expected.split("...").next().unwrap();
        assert!(reply.starts_with(expected), "{}: {reply}", pair[0]);
    }
}

async fn exim_knows_the_client_and_refuses_unknown_users(exim: &Exim) {
    let zone = Zone::start();
    let rmxd = rmxd(exim, &zone, |guide| guide).await;
    play_the_guide(&rmxd).await;
    let unknown =
        "[127.0.0.10] F=<you@example.com> rejected RCPT <no-such-user@example.com>: Unrouteable address";
    process::eventually("a message", SOON, || (exim.delivered() == 1).then_some(())).await;
    let log = exim.log();
    assert!(log.contains(unknown) && !log.contains(") [127.0.0.1]"), "{log}");
    let message = String::from_utf8_lossy(&fs::read(&exim.messages()[0]).unwrap()).into_owned();
    assert!(message.contains("Received: from [127.0.0.10] "), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exim_with_debians_configuration_in_one_file_works_as_the_guide_has_it() {
    let Some(exim) = Exim::start().await else { return };
    exim_knows_the_client_and_refuses_unknown_users(&exim).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exim_with_debians_split_configuration_works_as_the_guide_has_it() {
    let Some(exim) = Exim::start_split().await else { return };
    exim_knows_the_client_and_refuses_unknown_users(&exim).await;
}

/// 127.0.0.1 is in Debian's `relay_from_hosts`.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_relays_by_way_of_exims_trust_in_this_machine() {
    let Some(exim) = Exim::start().await else { return };
    let zone = Zone::start();
    let dialogue = ["EHLO bot.test", "MAIL FROM:<a@good.test>", "RCPT TO:<x@elsewhere.test>"];

    // The programs of this machine go on as before.
    let mut client = Client::connect(LOOPBACK, exim.addresses[0]).await;
    assert_eq!(client.reply().await.code, 220);
    let own = answers(&mut client, &dialogue).await;
    assert!(own[2].starts_with("250 "), "{own:?}");

    // Behind rmxd's port there is no command without the header, and a stranger's header is believed.
    let mut client = Client::connect(LOOPBACK, exim.addresses[1]).await;
    assert_eq!(client.reply().await.code, 220);
    let bare = answers(&mut client, &dialogue).await;
    assert!(bare.iter().all(|reply| reply.starts_with("503 ")), "{bare:?}");
    let mut client = Client::connect(LOOPBACK, exim.addresses[1]).await;
    client.send("PROXY TCP4 127.0.0.12 127.0.0.1 4000 25\r\n").await;
    assert_eq!(client.reply().await.code, 220);
    let stranger = answers(&mut client, &dialogue).await;
    assert!(stranger[2].starts_with("550 relay not permitted"), "{stranger:?}");

    // By rmxd, from anywhere.
    let daemon = rmxd(&exim, &zone, |guide| guide).await;
    for from in [EXCHANGER, LOOPBACK] {
        let mut client = Client::connect(from, daemon.address()).await;
        assert_eq!(client.reply().await.code, 220);
        let replies = answers(&mut client, &dialogue).await;
        assert!(replies[2].starts_with("550 5.7.1 <x@elsewhere.test>: relaying denied"), "{replies:?}");
    }

    // With another identity nothing gets through.
    let without = |guide: String| guide.replace("\"proxy-v2\"", "\"none\"");
    let daemon = rmxd(&exim, &zone, without).await;
    let mut client = Client::greeted(EXCHANGER, daemon.address(), "mail.good.test").await;
    assert_eq!(client.command("MAIL FROM:<a@good.test>").await.code, 250);
    let reply = client.command("RCPT TO:<you@example.com>").await;
    assert_eq!(reply.code, 451, "{}", reply.text);
}

/// Sends 25 messages in one session.
async fn send(exim: &Exim, change: impl FnOnce(String) -> String) {
    let zone = Zone::start();
    let rmxd = rmxd(exim, &zone, change).await;
    let mut client = Client::greeted(EXCHANGER, rmxd.address(), "mail.good.test").await;
    for number in 0..25 {
        let reply = client.deliver("a@good.test", "you@example.com", &mail::message(number, 100)).await;
        assert_eq!(reply.code, 250, "{}", reply.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_the_guide_has_it_exim_delivers_all_mail_at_once() {
    let Some(exim) = Exim::start().await else { return };
    send(&exim, |guide| guide).await;
    process::eventually("25 messages", SOON, || (exim.delivered() >= 25).then_some(())).await;
    assert_eq!((exim.delivered(), exim.waiting()), (25, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_hundred_messages_a_connection_exim_leaves_most_to_the_next_queue_run() {
    let Some(exim) = Exim::start().await else { return };
    let key = "messages_per_connection = 10 ";
    send(&exim, |guide| {
        assert!(guide.contains(key), "{guide}");
        guide.replace(key, "messages_per_connection = 100 ")
    })
    .await;
    let settled = || (exim.delivered() + exim.waiting() >= 25).then_some(());
    process::eventually("10 delivered, 15 that wait", SOON, settled).await;
    assert_eq!((exim.delivered(), exim.waiting()), (10, 15));
}

/// Exim refuses the 21st connection.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_clients_at_a_time_get_past_exims_limit_of_connections() {
    let Some(exim) = Exim::start().await else { return };
    let zone = Zone::start();
    let rmxd = rmxd(&exim, &zone, |guide| guide).await;
    let clients = (1..=60).map(|number| {
        let (from, to) = (Ipv4Addr::new(127, 0, 1, number), rmxd.address());
        tokio::spawn(async move {
            let mut client = Client::greeted(from.into(), to, "mail.good.test").await;
            client.deliver("a@good.test", "you@example.com", &mail::message(number.into(), 100)).await
        })
    });
    for client in clients.collect::<Vec<_>>() {
        let reply = client.await.unwrap();
        assert_eq!(reply.code, 250, "{}", reply.text);
    }
    assert!(!exim.log().contains("too many connections"), "{}", exim.log());
}
