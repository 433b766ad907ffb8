//! Where the socket is: in the home folder, for our user alone.
//!
//! Whoever has the lock of the store makes the socket in a folder of its own, for our eyes only, and then renames it: at no
//! instant does it stand there open to others, and what stood there before, a socket whose process died, is replaced.
//! The kernel takes about a hundred bytes of a socket's path; a longer one is reached through a link in the folder for
//! temporary files.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Its name in the home folder.
const NAME: &str = "profile.sock";
/// The longest path that every system takes, in bytes: macOS has room for 104, with a zero at the end.
const LONGEST: usize = 103;

/// The path of the socket.
#[derive(Debug, Clone)]
pub(super) struct Place {
    home: PathBuf,
}

impl Place {
    pub(super) fn in_home(home: &Path) -> Self {
        Self {
            home: home.to_path_buf(),
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.home.join(NAME)
    }

    /// Reaches whoever answers there.
    pub(super) fn connect(&self) -> io::Result<UnixStream> {
        let short = Short::of(&self.home, NAME)?;
        UnixStream::connect(&short.path)
    }

    /// Takes the place. Only for whoever has the lock of the store.
    pub(super) fn bind(&self) -> io::Result<UnixListener> {
        let aside = tempfile::Builder::new()
            .prefix(".sock-")
            .tempdir_in(&self.home)?;
        let short = Short::of(aside.path(), NAME)?;
        let listener = UnixListener::bind(&short.path)?;
        let path = aside.path().join(NAME);
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        fs::rename(&path, self.path())?;
        Ok(listener)
    }

    /// Leaves it. Only for whoever has the lock of the store.
    pub(super) fn leave(&self) {
        // What is not removed refuses whoever comes.
        let _ = fs::remove_file(self.path());
    }

    /// Removes what attempts to bind left that were cut short. Only for whoever has the lock of the store.
    pub(super) fn tidy(&self) {
        let Ok(entries) = fs::read_dir(&self.home) else {
            return;
        };
        for entry in entries.flatten() {
            if entry.file_name().as_bytes().starts_with(b".sock-") {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// A path that the kernel takes, as long as this is there.
struct Short {
    path: PathBuf,
    _link: Option<TempDir>,
}

impl Short {
    fn of(folder: &Path, name: &str) -> io::Result<Self> {
        let path = folder.join(name);
        if path.as_os_str().len() <= LONGEST {
            return Ok(Self { path, _link: None });
        }
        let link = tempfile::Builder::new().prefix("sprag-").tempdir()?;
        let shown = link.path().join("h");
        symlink(std::path::absolute(folder)?, &shown)?;
        let path = shown.join(name);
        if path.as_os_str().len() > LONGEST {
            return Err(io::Error::new(
                ErrorKind::InvalidFilename,
                "the paths of home folder and temporary folder are too long for a socket",
            ));
        }
        Ok(Self {
            path,
            _link: Some(link),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::FileTypeExt;
    use std::thread;

    use super::*;

    fn talks(place: &Place) -> bool {
        let listener = place.bind().unwrap();
        let host = thread::spawn(move || listener.accept().unwrap().0.write_all(b"hello"));
        let mut heard = Vec::new();
        place.connect().unwrap().read_to_end(&mut heard).unwrap();
        host.join().unwrap().unwrap();
        heard == b"hello"
    }

    #[test]
    fn the_socket_is_for_our_user_alone_and_nothing_else_is_left() {
        let home = tempfile::tempdir().unwrap();
        let place = Place::in_home(home.path());
        assert!(talks(&place));
        let there = fs::symlink_metadata(place.path()).unwrap();
        assert!(there.file_type().is_socket());
        assert_eq!(there.permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
        place.leave();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
        assert_eq!(place.connect().unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_socket_whose_process_died_refuses_and_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let place = Place::in_home(home.path());
        drop(place.bind().unwrap());
        let refused = place.connect().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(talks(&place));
    }

    #[test]
    fn a_path_that_is_too_long_for_the_kernel_is_reached_all_the_same() {
        let home = tempfile::tempdir().unwrap();
        let deep = home.path().join("d".repeat(120)).join("e".repeat(120));
        fs::create_dir_all(&deep).unwrap();
        let place = Place::in_home(&deep);
        assert!(talks(&place));
        assert!(place.path().exists());
    }

    #[test]
    fn what_an_attempt_left_is_tidied_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".sock-x")).unwrap();
        fs::create_dir(home.path().join("profile")).unwrap();
        let place = Place::in_home(home.path());
        place.tidy();
        assert!(!home.path().join(".sock-x").exists());
        assert!(home.path().join("profile").exists());
    }
}
