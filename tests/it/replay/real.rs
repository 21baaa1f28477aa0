//! Logs as a real rsyslog and a real journald write them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::Value;

use super::{LOG, PATIENCE, Site, in_form};
use crate::support::process::{self, Run, SOON, eventually};

const JOURNALD: &str = "/lib/systemd/systemd-journald";

/// A program that receives datagrams of syslog. Dropping it ends it.
struct Receiver {
    child: Child,
    socket: PathBuf,
}

impl Receiver {
    async fn start(mut command: Command, socket: PathBuf) -> Self {
        let mut child = command.spawn().unwrap();
        let there = || {
            assert!(child.try_wait().unwrap().is_none(), "it has ended");
            UnixDatagram::unbound().unwrap().connect(&socket).is_ok().then_some(())
        };
        eventually("the socket", SOON, there).await;
        Self { child, socket }
    }

    /// Sends the lines of [`LOG`] as `syslog()` of the C library does (RFC 3164, without the host).
    fn send(&self) {
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(&self.socket).unwrap();
        let lines =
            in_form(|(_, program, pid, text)| format!("<22>Nov 23 12:00:00 {program}[{pid}]: {text}\n"));
        for line in lines.lines() {
            sender.send(line.as_bytes()).unwrap();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        process::signal(self.child.id(), "TERM");
        drop(self.child.wait());
    }
}

/// What doesn't depend on the form.
fn facts(run: &Run) -> (Option<i32>, Value) {
    let mut json = run.json();
    for name in ["seconds", "dns_questions"] {
        json[name] = Value::Null;
    }
    for name in ["first", "last", "lines", "unreadable", "unreadable_samples", "foreign"] {
        json["counts"][name] = Value::Null;
    }
    (run.code, json)
}

async fn expected(site: &Site) -> (Option<i32>, Value) {
    let log = site.file("mail.log", LOG.as_bytes());
    let expected = facts(&site.run("--json", &[&log]).await);
    assert_eq!((expected.0, &expected.1["counts"]["postfix"]), (Some(0), &20.into()));
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn every_output_of_a_real_journal_has_the_same_report() {
    if !Path::new(JOURNALD).is_file() {
        return process::missing("systemd-journald is not installed");
    }
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return process::missing("journald has to be started by root");
    }
    let site = Site::sample().await;
    let folder = site.folder.path();
    for part in ["run/systemd/journal", "run/log"] {
        fs::create_dir_all(folder.join(part)).unwrap();
    }
    fs::write(folder.join("machine-id"), "5e1f3b0d9c274f6ab8d20c4e7a91d350\n").unwrap();
    let script =
        format!("mount --bind run /run && mount --bind machine-id /etc/machine-id && exec {JOURNALD}");
    let mut command = process::command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).current_dir(folder);
    let journald = Receiver::start(command, folder.join("run/systemd/journal/dev-log")).await;
    journald.send();
    let output = |form: &str| {
        let mut command = process::command("journalctl");
        command.arg("-D").arg(folder.join("run/log/journal")).args(["-q", "--no-pager", "-o", form]);
        command.arg("SYSLOG_FACILITY=2");
        command.output().unwrap().stdout
    };
    let all = || (output("cat").iter().filter(|octet| **octet == b'\n').count() >= 20).then_some(());
    eventually("all lines in the journal", SOON, all).await;
    let expected = expected(&site).await;
    let forms = [
        "short",
        "short-precise",
        "short-iso",
        "short-iso-precise",
        "short-full",
        "short-unix",
        "short-monotonic",
        "json",
        "json-seq",
        "json-sse",
        "export",
    ];
    for form in forms {
        let log = site.file("journal.log", &output(form));
        let run = site.run("--json", &[&log]).await;
        let start: Vec<u8> = output(form).into_iter().take(600).collect();
        assert_eq!(facts(&run), expected, "{form}: {}", String::from_utf8_lossy(&start));
        assert_eq!(run.json()["counts"]["unreadable"], 0, "{form}");
    }
    let cat = site.file("cat.log", &output("cat"));
    let json = site.run("--json", &[&cat]).await.json();
    assert_eq!(json["senders"], expected.1["senders"], "{json:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_template_of_a_real_rsyslog_has_the_same_report() {
    let Some(program) = process::program("rsyslogd") else { return };
    let site = Site::sample().await;
    let folder = site.folder.path();
    let templates = ["RSYSLOG_TraditionalFileFormat", "RSYSLOG_FileFormat", "RSYSLOG_SyslogProtocol23Format"];
    let socket = folder.join("log");
    let mut text = format!(
        "module(load=\"imuxsock\" SysSock.Use=\"off\")\ninput(type=\"imuxsock\" Socket=\"{}\" RateLimit.Interval=\"0\")\n",
        socket.display()
    );
    for template in templates {
        let file = folder.join(template);
        text += &format!("action(type=\"omfile\" file=\"{}\" template=\"{template}\")\n", file.display());
    }
    let configuration = site.file("rsyslog.conf", text.as_bytes());
    let mut command = process::command(program);
    command.args(["-n", "-i", "NONE", "-f"]).arg(&configuration).current_dir(folder);
    let rsyslog = Receiver::start(command, socket).await;
    rsyslog.send();
    let expected = expected(&site).await;
    for template in templates {
        let file = folder.join(template);
        let written = || {
            let text = fs::read(&file).unwrap_or_default();
            text.windows(7).filter(|part| part == b"postfix").count().ge(&20).then_some(())
        };
        eventually("all lines in the file", PATIENCE, written).await;
        let run = site.run("--json", &[&file]).await;
        let start: String = fs::read_to_string(&file).unwrap().chars().take(300).collect();
        assert_eq!(facts(&run), expected, "{template}: {start}");
        assert_eq!(run.json()["counts"]["unreadable"], 0, "{template}");
    }
}
