//! The operating system, as far as the store needs it: the process, and (with a file system) files.

use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(any(feature = "sled", feature = "redb"))]
pub(crate) use files::*;

/// Locks a mutex whose data is never left half-changed: nothing panics under our locks.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of this process.
pub(crate) fn process_id() -> u32 {
    #[cfg(test)]
    if let Some(pid) = tests::PRETENDED.get() {
        return pid;
    }
    #[cfg(not(target_arch = "wasm32"))]
    return std::process::id();
    // There is one process, and it cannot fork.
    #[cfg(target_arch = "wasm32")]
    return 0;
}

/// Lets a moment pass.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(1));
}

/// Runs a call on a thread of its own, which nobody joins.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn spawn(name: &str, call: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let named = std::thread::Builder::new().name(name.to_owned());
    named.spawn(call).map(drop)
}

/// An instant of a clock that only goes forward.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) struct Moment(std::time::Instant);

#[cfg(not(target_arch = "wasm32"))]
impl Moment {
    pub(crate) fn now() -> Self {
        Self(std::time::Instant::now())
    }

    /// The time since.
    pub(crate) fn elapsed(&self) -> std::time::Duration {
        self.0.elapsed()
    }
}

#[cfg(any(feature = "sled", feature = "redb"))]
mod files {
    use std::fs::{self, File, OpenOptions, TryLockError};
    use std::io::{self, Read, Seek, Write};
    use std::path::{Path, PathBuf};
    use std::time::SystemTime;

    use crate::StoreError;

    /// The time in seconds of Unix.
    #[expect(
        clippy::disallowed_methods,
        reason = "the clock of the system is read here"
    )]
    pub(crate) fn unix_time() -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    }

    /// The size of a file; 0 if what has this name is none.
    pub(crate) fn file_len(path: &Path) -> io::Result<u64> {
        let meta = fs::metadata(path)?;
        Ok(if meta.is_file() { meta.len() } else { 0 })
    }

    /// Makes a directory for our eyes only, and makes it last; it may be there already.
    pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path
            .ancestors()
            .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists())
            .collect();
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)?;
        for dir in missing {
            match dir.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent)?,
                _ => sync_dir(Path::new("."))?,
            }
        }
        Ok(())
    }

    /// Makes the entries of a directory durable.
    pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
        #[cfg(unix)]
        File::open(path)?.sync_all()?;
        // Elsewhere a directory cannot be opened as a file; its journal has to do.
        #[cfg(not(unix))]
        let _ = path;
        Ok(())
    }

    /// Opens a file that only its owner may read, for writing from the start.
    fn create_private(path: &Path, exclusive: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .create_new(exclusive);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path)
    }

    /// Writes `name` in `dir` so that it has the old content or the new one, whatever happens, and the new one for good
    /// when this returns.
    pub(crate) fn replace_file(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
        write_aside(dir, name, content)?;
        rename_aside(dir, name)?;
        sync_dir(dir)
    }

    /// The name that a file has before it is there.
    pub(crate) fn aside(name: &str) -> String {
        format!("{name}.tmp")
    }

    /// The first half of a replacement: the new content, synced, under another name.
    pub(crate) fn write_aside(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
        let aside = dir.join(aside(name));
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = create_private(&aside, true)?;
        file.write_all(content)?;
        file.sync_all()
    }

    /// The second half, which the sync of the directory makes last.
    pub(crate) fn rename_aside(dir: &Path, name: &str) -> io::Result<()> {
        fs::rename(dir.join(aside(name)), dir.join(name))
    }

    /// A file whose content is to be destroyed, opened while it still has a name.
    #[derive(Debug)]
    pub(crate) struct Retired(File);

    impl Retired {
        pub(crate) fn open(path: &Path) -> io::Result<Self> {
            OpenOptions::new().write(true).open(path).map(Self)
        }

        /// Writes zeros over the content.
        pub(crate) fn wipe(mut self) -> io::Result<()> {
            let len = usize::try_from(self.0.metadata()?.len()).unwrap_or(usize::MAX);
            self.0.write_all(&vec![0; len.min(1 << 16)])?;
            self.0.sync_all()
        }
    }

    /// A small file that is written over in its place, again and again.
    #[derive(Debug)]
    pub(crate) struct InPlace(File);

    impl InPlace {
        /// Opens it, or makes one.
        pub(crate) fn open(path: &Path) -> io::Result<Self> {
            create_private(path, false).map(Self)
        }

        /// Writes over what was there. Not synced: a kill does not undo it, a power cut may.
        pub(crate) fn write(&self, content: &[u8]) -> io::Result<()> {
            let mut file = &self.0;
            file.rewind()?;
            file.write_all(content)
        }
    }

    /// A directory of our own beside another one, gone with this.
    #[derive(Debug)]
    pub(crate) struct Scratch(PathBuf);

    impl Scratch {
        /// An empty one. What an earlier one of this name left is removed: whoever calls has the lock of `path`.
        pub(crate) fn beside(path: &Path) -> io::Result<Self> {
            let scratch = sibling(path, "doctor")?;
            if scratch.exists() {
                fs::remove_dir_all(&scratch)?;
            }
            create_private_dir(&scratch)?;
            Ok(Self(scratch))
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// `path.word`, beside it.
    fn sibling(path: &Path, word: &str) -> io::Result<PathBuf> {
        let path = fs::canonicalize(path)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".");
        name.push(word);
        Ok(path.with_file_name(name))
    }

    /// `path.word-1`, or the next number that is free.
    pub(crate) fn free_sibling(path: &Path, word: &str) -> io::Result<PathBuf> {
        for number in 1_u32.. {
            let free = sibling(path, &format!("{word}-{number}"))?;
            if !free.exists() {
                return Ok(free);
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Copies a directory with all that is in it, for our eyes only.
    pub(crate) fn copy_private(from: &Path, to: &Path) -> io::Result<()> {
        create_private_dir(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
            if kind.is_dir() {
                copy_private(&entry.path(), &target)?;
            } else if kind.is_file() {
                let mut source = File::open(entry.path())?;
                let mut copy = create_private(&target, true)?;
                io::copy(&mut source, &mut copy)?;
            }
        }
        Ok(())
    }

    /// Makes a directory with all that is in it last.
    pub(crate) fn sync_below(path: &Path) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            if path.is_dir() {
                sync_below(&path)?;
            } else {
                File::open(&path)?.sync_all()?;
            }
        }
        sync_dir(path)
    }

    /// Whether other users may read or write a file or directory.
    pub(crate) fn is_open_to_others(path: &Path) -> bool {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let meta = fs::symlink_metadata(path);
            meta.is_ok_and(|meta| !meta.is_symlink() && meta.permissions().mode() & 0o077 != 0)
        }
        #[cfg(not(unix))]
        {
            let _ = path;
            false
        }
    }

    /// Takes all permissions of others away.
    pub(crate) fn restrict(path: &Path) -> io::Result<()> {
        #[cfg(unix)]
        if is_open_to_others(path) {
            use std::os::unix::fs::PermissionsExt;
            let mut permissions = fs::metadata(path)?.permissions();
            permissions.set_mode(permissions.mode() & 0o700);
            return fs::set_permissions(path, permissions);
        }
        let _ = path;
        Ok(())
    }

    /// The lock of a store, held by somebody who leaves no trace: nothing is written, and nothing is made.
    #[derive(Debug)]
    pub(crate) struct Watch(#[expect(dead_code, reason = "locked as long as it is open")] File);

    impl Watch {
        /// Takes the lock; `None` if there is no lock file, and so nobody who could hold it.
        pub(crate) fn hold(home: &Path) -> Result<Option<Self>, StoreError> {
            let mut file = match File::open(home.join("LOCK")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file.map_err(StoreError::io)?,
            };
            match file.try_lock() {
                Ok(()) => Ok(Some(Self(file))),
                Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
                    owner: owner_in(&mut file),
                }),
                Err(TryLockError::Error(error)) => Err(StoreError::io(error)),
            }
        }
    }

    /// The process that a lock file names.
    fn owner_in(file: &mut File) -> Option<u32> {
        let mut text = String::new();
        file.take(16).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    /// Removes a file, which need not be there.
    pub(crate) fn remove_file(dir: &Path, name: &str) -> io::Result<()> {
        match fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync_dir(dir),
        }
    }

    /// The content of a file of at most `max` bytes; `None` if it is not there, or larger.
    pub(crate) fn read_file(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut content = Vec::new();
        file.take(max.saturating_add(1)).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    /// Removes a directory with all that is in it.
    pub(crate) fn remove_dir(path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    /// The names in a directory, as far as they are text.
    pub(crate) fn names_in(dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    /// A locked file; the lock goes with it. The system takes the lock back from a process that dies.
    #[derive(Debug)]
    pub(crate) struct LockFile(File);

    impl LockFile {
        /// Takes the lock and says so in the file, or tells who has it.
        pub(crate) fn acquire(path: &Path) -> Result<Self, StoreError> {
            let mut file = create_private(path, false).map_err(StoreError::io)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let owner = owner_in(&mut file);
                    return Err(StoreError::Locked { owner });
                }
                Err(TryLockError::Error(error)) => return Err(StoreError::io(error)),
            }
            // The number is a courtesy: a full disk must not keep anybody from opening.
            let _ = file.set_len(0).and_then(|()| file.rewind());
            let _ = writeln!(file, "{}", super::process_id());
            Ok(Self(file))
        }
    }

    impl Drop for LockFile {
        fn drop(&mut self) {
            let _ = self.0.set_len(0);
            let _ = self.0.unlock();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    thread_local! {
        /// What this thread takes for the number of the process: another number is a forked child, without a fork.
        pub(crate) static PRETENDED: Cell<Option<u32>> = const { Cell::new(None) };
    }
}
