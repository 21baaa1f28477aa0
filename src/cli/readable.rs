//! Whether the service's user could read the files of the configuration: root can, so a check by root would find
//! nothing wrong before the start.
//!
//! The kernel answers, asked with the user and the groups of the service (setpriv), so that ACLs count too.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The unit, and its user where the service manager can't be asked.
const SERVICE: &str = "rmxd";

/// A file that the service reads.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The key that names it.
    pub(super) key: &'static str,
    pub(super) path: PathBuf,
}

/// A note for each file that the service's user can't read. Nothing is known, and so nothing is noted, unless this
/// process is root's and the service has another user.
pub(super) fn notes(files: &[Wanted]) -> Vec<String> {
    if !rustix::process::geteuid().is_root() {
        return Vec::new();
    }
    let Some(user) = User::of_service().filter(|user| user.uid != 0) else { return Vec::new() };
    files.iter().filter_map(|file| user.note(file)).collect()
}

/// The user of the service with its groups, as numbers.
#[derive(Debug)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl User {
    fn of_service() -> Option<Self> {
        let (name, supplementary) = unit().unwrap_or_else(|| (SERVICE.to_owned(), String::new()));
        let users = fs::read_to_string("/etc/passwd").ok()?;
        let groups = fs::read_to_string("/etc/group").ok()?;
        Self::find(&name, &supplementary, &users, &groups)
    }

    /// `users` and `groups` are the texts of passwd(5) and group(5), `supplementary` what `SupplementaryGroups=` names.
    fn find(name: &str, supplementary: &str, users: &str, groups: &str) -> Option<Self> {
        let row = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let (uid, gid) = row.into_iter().find_map(|row| match row[..] {
            [found, _, uid, gid, ..] if found == name || uid == name => {
                Some((uid.parse().ok()?, gid.parse().ok()?))
            }
            _ => None,
        })?;
        let named: Vec<&str> = supplementary.split_whitespace().collect();
        let groups = groups.lines().filter_map(|line| match line.split(':').collect::<Vec<_>>()[..] {
            [group, _, number, members] => {
                let is_in = members.split(',').any(|member| member == name);
                (is_in || named.contains(&group) || named.contains(&number)).then(|| number.parse().ok())?
            }
            _ => None,
        });
        Some(Self { name: name.to_owned(), uid, gid, groups: groups.collect() })
    }

    fn note(&self, Wanted { key, path }: &Wanted) -> Option<String> {
        let path = fs::canonicalize(path).ok()?;
        if self.may("-r", &path)? {
            return None;
        }
        let folders: Vec<&Path> = path.ancestors().skip(1).collect();
        let closed = folders.into_iter().rev().find(|folder| self.may("-x", folder) == Some(false));
        let (what, at, right) = match closed {
            Some(folder) => ("can't enter its folder", folder, "g+x"),
            None => ("can't read it", path.as_path(), "g+r"),
        };
        let (user, shown) = (&self.name, path.display());
        Some(format!(
            "{key}: {shown}: the service's user {user} {what} ({}): chgrp {user} {} and chmod {right}, or give the \
             service its group (systemctl edit {SERVICE}: [Service] SupplementaryGroups=GROUP)",
            owner(at),
            at.display(),
        ))
    }

    /// `None` if that can't be found out.
    fn may(&self, test: &str, path: &Path) -> Option<bool> {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={}", self.uid)).arg(format!("--regid={}", self.gid));
        if self.groups.is_empty() {
            command.arg("--clear-groups");
        } else {
            let groups: Vec<String> = self.groups.iter().map(ToString::to_string).collect();
            command.arg(format!("--groups={}", groups.join(",")));
        }
        command.args(["--inh-caps=-all", "--bounding-set=-all", "test", test]).arg(path);
        let status = command.current_dir("/").stdin(Stdio::null()).stderr(Stdio::null()).status().ok()?;
        // 127: setpriv itself failed
        status.code().filter(|code| *code <= 1).map(|code| code == 0)
    }
}

/// `root:ssl-cert, mode 640`, with numbers where there are no names.
fn owner(path: &Path) -> String {
    let Ok(meta) = fs::metadata(path) else { return "unknown mode".to_owned() };
    let name = |file: &str, number: u32| {
        let (text, number) = (fs::read_to_string(file).unwrap_or_default(), number.to_string());
        let mut rows = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let row = rows.find(|row| row.get(2) == Some(&number.as_str()));
        row.and_then(|row| row.first().map(|name| (*name).to_owned())).unwrap_or(number)
    };
    let (user, group) = (name("/etc/passwd", meta.uid()), name("/etc/group", meta.gid()));
    format!("{user}:{group}, mode {:o}", meta.mode() & 0o7777)
}

/// `User=` and `SupplementaryGroups=` of the unit with its drop-ins; `None` where there is no such unit.
fn unit() -> Option<(String, String)> {
    let arguments = ["show", "--property=User,SupplementaryGroups,LoadState", SERVICE];
    let output = Command::new("systemctl").args(arguments).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    if !output.status.success() || value("LoadState") != Some("loaded") {
        return None;
    }
    let user = value("User").filter(|user| !user.is_empty()).unwrap_or("root");
    Some((user.to_owned(), value("SupplementaryGroups").unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_those_of_the_user_and_of_the_unit() {
        let users = "root:x:0:0:root:/root:/bin/bash\nrmxd:x:990:989::/var/lib/rmxd:/usr/sbin/nologin\n";
        let groups = "root:x:0:\nssl-cert:x:110:postgres\nmail:x:8:postfix,rmxd\nrmxd:x:989:\nx:x:7:xrmxd\n";
        let found = |name, supplementary| {
            User::find(name, supplementary, users, groups).map(|user| (user.uid, user.gid, user.groups))
        };
        assert_eq!(found("rmxd", ""), Some((990, 989, vec![8])));
        assert_eq!(found("rmxd", "ssl-cert 7"), Some((990, 989, vec![110, 8, 7])));
        assert_eq!(found("nobody", ""), None);
    }
}
