//! The operating system: the only place of this crate that names time, threads, processes and system randomness.

#[cfg(all(feature = "memory", not(target_family = "wasm")))]
pub(crate) mod blobs;

#[cfg(not(target_family = "wasm"))]
use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(not(target_family = "wasm"))]
use getrandom::SysRng;
#[cfg(not(target_family = "wasm"))]
use rand_core::UnwrapErr;

/// Milliseconds since 1970.
#[cfg(not(target_family = "wasm"))]
#[expect(clippy::disallowed_methods, reason = "the clock of this crate")]
pub(crate) fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The system's generator. It has no state, so no fork or clone can share one.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// A path from the root, without links as far as it exists.
#[cfg(all(any(feature = "sled", feature = "redb"), not(target_family = "wasm")))]
pub(crate) fn whole_path(path: &std::path::Path) -> std::path::PathBuf {
    let path = if path.as_os_str().is_empty() {
        std::path::Path::new(".")
    } else {
        path
    };
    std::fs::canonicalize(path)
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_path_buf())
}

/// A file that has its name only once all of it is written.
#[cfg(all(feature = "attachments", not(target_family = "wasm")))]
pub(crate) struct WholeFile {
    file: std::fs::File,
    /// Where it is until then.
    part: std::path::PathBuf,
    path: std::path::PathBuf,
}

#[cfg(all(feature = "attachments", not(target_family = "wasm")))]
impl WholeFile {
    /// Begins a file beside `path`, where nothing may be yet.
    pub(crate) fn begin(path: &std::path::Path) -> std::io::Result<Self> {
        use std::io::{Error, ErrorKind};

        if path.symlink_metadata().is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let name = path
            .file_name()
            .ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
        let mut random = [0; 8];
        rand_core::Rng::fill_bytes(&mut rng(), &mut random);
        let mut part = std::ffi::OsString::from(".");
        part.push(name);
        part.push(format!(".part-{:016x}", u64::from_be_bytes(random)));
        let part = path.with_file_name(part);
        let mut options = std::fs::OpenOptions::new();
        options.create_new(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Self {
            file: options.open(&part)?,
            part,
            path: path.to_path_buf(),
        })
    }

    /// Gives it its name. Whatever came there meanwhile stays.
    pub(crate) fn end(self) -> std::io::Result<()> {
        use std::io::ErrorKind;

        self.file.sync_all()?;
        // A link is never put over anything; not all file systems have links.
        match std::fs::hard_link(&self.part, &self.path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(error),
            Err(_) if self.path.symlink_metadata().is_ok() => {
                return Err(ErrorKind::AlreadyExists.into());
            }
            Err(_) => std::fs::rename(&self.part, &self.path)?,
            Ok(()) => {}
        }
        // What remains beside it goes when this is dropped; it has its name already.
        #[cfg(unix)]
        if let Some(folder) = self.path.parent() {
            let folder = if folder.as_os_str().is_empty() {
                std::path::Path::new(".")
            } else {
                folder
            };
            std::fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

#[cfg(all(feature = "attachments", not(target_family = "wasm")))]
impl std::io::Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

#[cfg(all(feature = "attachments", not(target_family = "wasm")))]
impl Drop for WholeFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.part);
    }
}

/// Begins a thread; says whether there is one now.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> bool {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .is_ok()
}

/// Does something on another thread, and waits for it. `None`: there is no thread, or it panicked.
#[cfg(all(feature = "s3", not(target_family = "wasm")))]
pub(crate) fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work);
        thread.ok()?.join().ok()
    })
}

/// The number of this process: another one in a forked child.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn process() -> u32 {
    std::process::id()
}

/// There is one process, and it does not fork.
#[cfg(target_family = "wasm")]
pub(crate) fn process() -> u32 {
    0
}

/// Whether a host of a URL is this machine itself.
#[cfg(all(feature = "http", not(target_family = "wasm")))]
pub(crate) fn is_loopback(host: &str) -> bool {
    use std::net::IpAddr;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let address = bare.unwrap_or(host).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
