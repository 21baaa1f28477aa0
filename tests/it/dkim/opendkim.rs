//! Signatures made by opendkim, as Debian has it: keys by opendkim-genkey, messages signed in its test mode.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{HEADER, POLICY, REFUSED, Site, without_id};
use crate::support::process;

/// A key of good.test in a folder of its own.
pub(crate) struct OpenDkim {
    folder: TempDir,
    program: std::path::PathBuf,
}

impl OpenDkim {
    /// `None` where it isn't installed.
    pub(crate) fn new(bits: u16) -> Option<Self> {
        let (program, genkey) = (process::program("opendkim")?, process::program("opendkim-genkey")?);
        let folder = tempfile::Builder::new().prefix("rmxd-opendkim-").tempdir().unwrap();
        let made = Command::new(genkey)
            .args(["-b", &bits.to_string(), "-s", "real", "-d", "good.test", "-D"])
            .arg(folder.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Some(Self { folder, program })
    }

    /// The key in zone-file form: strings of at most 255 octets, in parentheses.
    pub(crate) fn records(&self) -> String {
        let record = fs::read_to_string(self.folder.path().join("real.txt")).unwrap();
        format!("$ORIGIN good.test.\n{record}\n")
    }

    /// The message with its signature on top. `more` is configuration.
    pub(crate) fn sign(&self, message: &str, canonicalization: &str, more: &str) -> String {
        let at = |name: &str| self.folder.path().join(name);
        let configuration = format!(
            "Mode s\nDomain good.test\nSelector real\nKeyFile {}\nCanonicalization {canonicalization}\n\
             RequireSafeKeys no\nInternalHosts 0.0.0.0/0\nSyslog no\n{more}\n",
            at("real.private").display()
        );
        fs::write(at("conf"), configuration).unwrap();
        fs::write(at("message"), message).unwrap();
        let run = Command::new(&self.program)
            .args([Path::new("-x"), &at("conf"), Path::new("-t"), &at("message"), Path::new("-vvv")])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&run.stdout).into_owned();
        let begin = "hname='DKIM-Signature' hvalue='";
        let value = told.split_once(begin).and_then(|(_, rest)| rest.split_once("'\n"));
        let (value, _) = value.unwrap_or_else(|| panic!("no signature: {run:?}"));
        format!("DKIM-Signature: {}\r\n{message}", value.replace("\r\n", "\n").replace('\n', "\r\n"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_signed_by_opendkim_pass_and_tampered_ones_do_not() {
    let Some(signer) = OpenDkim::new(2048) else { return };
    let site = Site::with_zone(POLICY, &signer.records()).await;
    let header = format!("{HEADER}X-Folded: a\r\n\t b  c \r\nSubject-Like: \t x\r\n");
    let bodies = ["Hello\r\n", "", "\r\n \r\n\r\n", " a \t b\t\r\n.dot\r\n..\r\n\r\n\r\nend \r\n\r\n"];
    let mut passed = 0;
    for form in ["simple/simple", "relaxed/relaxed", "relaxed/simple", "simple/relaxed"] {
        for body in bodies {
            let signed = signer.sign(&format!("{header}\r\n{body}"), form, "OversignHeaders From");
            assert!(signed.contains("a=rsa-sha256"), "{signed}");
            let reply = site.send(&signed).await;
            assert_eq!(reply.code, 250, "{form} {body:?}: {}\n{signed}", reply.text);
            assert_eq!(site.send_chunks(&signed, 99).await.code, 250, "{form} {body:?} in chunks");
            passed += 2;
            for (from, to) in [("one  two", "one  TWO"), ("\r\n\r\n", "\r\n\r\nmore\r\n")] {
                let reply = site.send(&signed.replacen(from, to, 1)).await;
                assert_eq!(without_id(&reply), REFUSED, "{form} {body:?}: {to:?}");
            }
        }
    }
    assert_eq!(site.delivered().await, passed);
}
