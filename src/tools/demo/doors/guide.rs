//! What follows from the tour: the lines for one's own Postfix, which are those of the guide (`systemd/README.md`), and
//! commands to try the running demo by hand.

use std::path::Path;

use crate::console::colour::Colour;
use crate::policy::door::DoorName;
use crate::tools::demo::by_hand::{program, quoted};
use crate::tools::demo::doors::judged::Judged;
use crate::tools::demo::doors::played::Played;
use crate::tools::demo::doors::scene::Policy;
use crate::tools::demo::doors::stage::Stage;

const MILTER: [&str; 2] = [
    r#"hostname = "mx.example.com"

[listen]
smtp = []
milter = ["unix:/var/spool/postfix/rmxd/milter"]

[policy]
mode = "monitor"
"#,
    "smtpd_milters = { unix:rmxd/milter, connect_timeout=5s, default_action=tempfail }\n",
];

const POLICY: [&str; 2] = [
    r#"hostname = "mx.example.com"

[listen]
smtp = []
policy = ["unix:/var/spool/postfix/rmxd/policy"]

[policy]
mode = "monitor"
"#,
    "smtpd_sender_restrictions =
  permit_mynetworks
  permit_sasl_authenticated
  check_policy_service { unix:rmxd/policy, timeout=30s, default_action=DUNNO }
",
];

/// The configuration of rmxd and of Postfix.
pub(super) fn text(door: DoorName, colour: Colour) -> String {
    let ([rmxd, postfix], section) = match door {
        DoorName::Policy => (POLICY, "As a policy service"),
        DoorName::Milter | DoorName::Smtp => (MILTER, "As a milter"),
    };
    format!(
        "\n{}\n\n  /etc/rmxd/rmxd.toml:\n{}\n  /etc/postfix/main.cf:\n{}\n  In monitor mode nothing is refused. \
         systemd/README.md, \"{section}\", has all steps, and the way back.\n",
        colour.bold("The same with your own Postfix:"),
        indented(rmxd),
        indented(postfix),
    )
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}").trim_end().to_owned() + "\n").collect()
}

/// How the running demo can be tried.
pub(super) fn by_hand(stage: &Stage, all: &[Played]) -> String {
    let (rmxd, folder) = (program(), quoted(&stage.folder));
    let door = stage.door.name();
    let socket = stage.socket(Policy::Enforce).to_string();
    let path = quoted(Path::new(socket.trim_start_matches("unix:")));
    let id =
        all.iter().flat_map(|played| &played.judged).find_map(Judged::id).unwrap_or_else(|| "ID".to_owned());
    let port = stage.port().map(|port| port.to_string()).unwrap_or_default();
    let line = match stage.door {
        DoorName::Policy => format!(
            "smtpd_sender_restrictions = check_policy_service {{ inet:{port}, timeout=30s, default_action=DUNNO }}"
        ),
        DoorName::Milter | DoorName::Smtp => {
            format!("smtpd_milters = {{ inet:{port}, connect_timeout=5s, default_action=accept }}")
        }
    };
    format!(
        "
{title}

  the sockets of the gate, and of one in monitor mode (the log is {folder}/log):
    {socket}
    {monitor}
  many messages over this protocol, with each verdict checked:
    {rmxd} load --door {door} unix:{path} --sessions 1000
  a Postfix on this machine that is only for tests, as the demo knows no real senders: a line in its main.cf, then
  `postfix reload`. Its chroot doesn't have the folder of the demo, so the gate listens at a port of loopback as well:
    {line}
  why a message was refused, by the id in its reply, with the DNS records of that time:
    {rmxd} explain {id} --config {folder}/enforce.toml
  the dashboard in a browser, with all decisions and their reasons:
    {dashboard}
",
        title = Colour::of_stdout().bold("The demo keeps running until Ctrl-C. Try it by hand in another terminal:"),
        monitor = stage.socket(Policy::Monitor),
        dashboard = stage.dashboard().unwrap_or_default(),
    )
}
