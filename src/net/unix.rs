//! Unix sockets of our own: mode 0660 and the group of the folder, whatever the umask; a stale socket is replaced,
//! anything else at the path is an error (contract 7.4).

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// The owner and the group may connect.
const MODE: u32 = 0o660;

/// The file of a unix socket. Dropping it removes the file, unless another socket has replaced it. To be dropped before the
/// socket, which keeps the inode from being used anew.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

/// Binds and listens at a path; `backlog` connections may wait to be accepted.
///
/// # Errors
/// The path is in use or can't be made, or it can't have the group of its folder.
pub(super) fn bind(path: &Path, backlog: i32) -> io::Result<(SocketFile, UnixListener)> {
    let socket = match bind_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path)?;
            bind_new(path)?
        }
        bound => bound?,
    };
    let metadata = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) };
    take_group_of_folder(path, metadata.gid())?;
    // The umask took bits away.
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    // Only now, so that nothing connects under another group.
    socket.listen(backlog)?;
    Ok((file, UnixListener::from(OwnedFd::from(socket))))
}

fn bind_new(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Linux makes the file with the mode of the socket, so that it is never open to more. Other systems refuse this.
    let socket = File::from(OwnedFd::from(socket));
    socket.set_permissions(Permissions::from_mode(MODE)).ok();
    let socket = Socket::from(OwnedFd::from(socket));
    socket.bind(&SockAddr::unix(path)?)?;
    Ok(socket)
}

/// Removes a socket on which no process listens.
fn remove_stale(path: &Path) -> io::Result<()> {
    let other = |what| Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return other(
            "there is a file at this path, and it isn't a socket: remove it, or choose another path",
        );
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(()) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on this socket")),
        // Its queue is full.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on this socket"))
        }
        Err(error) => Err(error),
    }
}

fn take_group_of_folder(path: &Path, own: u32) -> io::Result<()> {
    let group = fs::metadata(path.parent().unwrap_or(path))?.gid();
    if group == own {
        return Ok(());
    }
    chown(path, None, Some(group)).map_err(|error| {
        let what =
            format!("the socket can't have the group {group} of its folder (rmxd must be a member): {error}");
        io::Error::new(error.kind(), what)
    })
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(same)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the file of a closed socket can't be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn a_socket_has_its_mode_and_the_group_of_its_folder_and_goes_with_the_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin");
        // Root may give any group; others only their own, which the folder has.
        let group = if chown(folder.path(), None, Some(4242)).is_ok() {
            4242
        } else {
            fs::metadata(&folder).unwrap().gid()
        };
        let bound = bind(&path, 8).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.permissions().mode() & 0o7777, metadata.gid()), (0o660, group));
        UnixStream::connect(&path).unwrap();
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin");
        drop(UnixListener::bind(&path).unwrap());
        let (file, _first) = bind(&path, 8).unwrap();
        let error = bind(&path, 8).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (io::ErrorKind::AddrInUse, "another process listens on this socket")
        );
        UnixStream::connect(&path).unwrap();
        // The end of the first must not take the file of another away.
        fs::remove_file(&path).unwrap();
        let _second = bind(&path, 8).unwrap();
        drop(file);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_queue_that_is_full_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        assert_eq!(bind(&path, 8).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
    }

    #[test]
    fn anything_else_at_the_path_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "kept").unwrap();
        fs::create_dir(path("folder")).unwrap();
        std::os::unix::fs::symlink(path("nowhere"), path("link")).unwrap();
        let _datagram = UnixDatagram::bind(path("datagram")).unwrap();
        for name in ["file", "folder", "link", "datagram"] {
            let error = bind(&path(name), 8).unwrap_err();
            assert_ne!(error.kind(), io::ErrorKind::AddrInUse, "{name}: {error}");
            assert!(fs::symlink_metadata(path(name)).is_ok(), "{name}");
        }
        assert_eq!(fs::read_to_string(path("file")).unwrap(), "kept");
        assert_eq!(bind(&path("missing/admin"), 8).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
