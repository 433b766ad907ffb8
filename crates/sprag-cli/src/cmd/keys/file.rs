//! One file, put under another version of its key.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sprag_keys::{
    KeyId, KeySource, KeyVersion, RecordError, RingFile, Rotated, SourceError, VersionedKey,
};
use sprag_vault::raw12::{self, LegacyError, lumera};
use sprag_vault::{
    Context, DataKey, FormatError, Header, MAGIC, OpenError, OpenReader, Recipient, ResealError,
    SealWriter, Sealing, SlotKind, Unlock, reseal_header,
};
use zeroize::Zeroizing;

use super::args::Raw12;
use super::folder::to_path;
use super::{KeysError, ring};
use crate::cmd::vault::VaultError;
use crate::cmd::vault::aside::Aside;
use crate::cmd::vault::blob::Blob;
use crate::cmd::vault::source::Source;
use crate::error::CliError;
use crate::input;
use crate::sys::CryptoRng;

/// Bytes that pass at a time.
const STEP: usize = 64 * 1024;
/// The largest file of the older form: it is in memory as a whole.
const MOST: usize = 1 << 30;
/// Files of the older form above this are done one at a time.
const LARGE: u64 = 16 << 20;

/// How files are read and written, whatever their names.
pub(super) struct Files<'a> {
    ring: &'a RingFile,
    /// All versions that open, the newest first: a file is under whichever it is committed to, whatever it says.
    keys: Vec<(KeyVersion, DataKey)>,
    id: KeyId,
    context: &'a [String],
    raw12: Option<Raw12>,
    large: Mutex<()>,
}

/// What a file of either form is under.
pub(super) enum Under {
    /// Nothing of this key.
    Nothing,
    Version(KeyVersion),
}

impl<'a> Files<'a> {
    pub(super) fn new(
        ring: &'a RingFile,
        id: &KeyId,
        context: &'a [String],
        raw12: Option<Raw12>,
    ) -> Result<Self, CliError> {
        let versions = ring.ring().versions(id);
        let versions = versions.map_err(|_| KeysError::source(id, SourceError::NotFound))?;
        let newest_first = versions.iter().rev();
        let keys = newest_first.filter_map(|info| {
            let key = ring.by_version(id, info.version).ok()?;
            Some((info.version, DataKey::from_bytes(key.as_bytes())))
        });
        let files = Self {
            ring,
            keys: keys.collect(),
            id: id.clone(),
            context,
            raw12,
            large: Mutex::new(()),
        };
        // A slip in it is not the fault of each file.
        files.context(b"name")?;
        Ok(files)
    }

    /// Puts a file under `target`.
    pub(super) fn rotate(
        &self,
        root: &Path,
        name: &[u8],
        target: &VersionedKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Rotated, RecordError> {
        let path = to_path(root, name).map_err(|cause| failed(CliError::file(root, cause)))?;
        let there = match fs::symlink_metadata(&path) {
            Ok(there) if there.is_file() => there,
            Ok(_) => return Ok(Rotated::Fine),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Rotated::Fine),
            Err(cause) => return Err(failed(CliError::file(&path, cause))),
        };
        let one = One {
            files: self,
            path: &path,
            name,
            there: &there,
            target,
        };
        match one.rotate(rng) {
            // Whoever writes it at this moment has not got to its end.
            Err(_) if !one.is_unchanged().unwrap_or(true) => Ok(Rotated::Contended),
            Err(error) => Err(failed(error)),
            Ok(done) => Ok(done),
        }
    }

    /// The context of a file: pairs, with its name for `{file}`.
    fn context(&self, name: &[u8]) -> Result<Context, CliError> {
        let mut pairs = Vec::new();
        for pair in self.context {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| CliError::Usage("a context is NAME=VALUE".to_owned()))?;
            let mut parts = value.split("{file}");
            let mut value = parts.next().unwrap_or_default().as_bytes().to_vec();
            for part in parts {
                value.extend_from_slice(name);
                value.extend_from_slice(part.as_bytes());
            }
            pairs.push((key.as_bytes(), value));
        }
        Context::from_pairs(pairs).map_err(|error| CliError::Usage(error.to_string()))
    }

    /// What a blob is under. Which key it is committed to counts; what its slots say is only a hint.
    pub(super) fn under(&self, header: &Header) -> Result<Under, CliError> {
        let mut keys = self.keys.iter();
        if let Some((version, _)) = keys.find(|(_, key)| header.commits_to(key)) {
            return Ok(Under::Version(*version));
        }
        let direct = header.slots().iter();
        let direct = direct.filter(|slot| slot.kind() == SlotKind::Direct);
        let mut named = direct.filter_map(|slot| ring::of_slot(slot.id()));
        match named.find(|(id, _)| *id == self.id) {
            None => Ok(Under::Nothing),
            Some((id, version)) => match self.ring.by_version(&id, version) {
                Err(error) => {
                    Err(KeysError::source(format!("{id}, version {version}"), error).into())
                }
                Ok(_) => Err(OpenError::WrongKey.into()),
            },
        }
    }

    fn key(&self, version: KeyVersion) -> Result<&DataKey, CliError> {
        let found = self.keys.iter().find(|(number, _)| *number == version);
        let missing = || KeysError::source(&self.id, SourceError::NotFound).into();
        found.map(|(_, key)| key).ok_or_else(missing)
    }

    /// How many of these files are under a version: to be asked before it is destroyed.
    pub(super) fn count_under(
        &self,
        root: &Path,
        names: &[Vec<u8>],
        version: KeyVersion,
    ) -> Result<u64, CliError> {
        let key = self.key(version)?;
        let mut count = 0;
        for name in names {
            let path = to_path(root, name).map_err(|cause| CliError::file(root, cause))?;
            let is_under = match is_blob(&path) {
                // It has gone meanwhile.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => false,
                Err(cause) => return Err(CliError::file(&path, cause)),
                Ok(true) => match Blob::read(Source::open(Some(&path))?) {
                    Ok(blob) => blob.header.commits_to(key),
                    // It opens under no key.
                    Err(CliError::Vault(_)) => false,
                    Err(error) => return Err(error),
                },
                Ok(false) => is_older_under(&path, key)?,
            };
            count += u64::from(is_under);
        }
        Ok(count)
    }
}

/// A file that is being done.
struct One<'a> {
    files: &'a Files<'a>,
    path: &'a Path,
    name: &'a [u8],
    there: &'a Metadata,
    target: &'a VersionedKey,
}

impl One<'_> {
    fn rotate(&self, rng: &mut dyn CryptoRng) -> Result<Rotated, CliError> {
        let io = |cause| CliError::file(self.path, cause);
        if is_blob(self.path).map_err(io)? {
            return self.rotate_blob(rng);
        }
        match self.files.raw12 {
            None if self.is_metadata() => Ok(Rotated::Fine),
            None => Err(FormatError::Magic.into()),
            Some(_) if self.is_metadata() => Ok(Rotated::Fine),
            Some(form) => self.rotate_older(form, rng),
        }
    }

    /// `evlt/v1`, in the memory of a few chunks.
    fn rotate_blob(&self, rng: &mut dyn CryptoRng) -> Result<Rotated, CliError> {
        let blob = self.blob()?;
        let old = match self.files.under(&blob.header)? {
            Under::Nothing => return Ok(Rotated::Fine),
            Under::Version(version) if version >= self.target.version() => {
                return Ok(Rotated::Fine);
            }
            Under::Version(version) => self.files.key(version)?,
        };
        let [slot] = blob.header.slots() else {
            return Err(VaultError::SymmetricAmongOthers.into());
        };
        let unlock = Unlock::new().direct(slot.id(), old.clone());
        let (context, hidden) = self.context_of(&blob.header, &unlock, rng)?;

        let (id, key) = (ring::slot_id(self.target), self.target_key());
        let to = [Recipient::direct(&id)];
        let mut sealing = Sealing::new(&key, &to)
            .suite(blob.header.suite())
            .chunk_size(blob.header.chunk_size())
            .context(&context);
        if hidden {
            sealing = sealing.without_context_hint();
        }
        let mut aside = self.aside()?;
        let io = |cause| CliError::file(self.path, cause);
        let (whole, _) = blob.whole();
        let mut text = OpenReader::new(whole, &unlock, &context);
        let mut sealed = SealWriter::new(aside.file.as_file_mut(), &sealing, rng)?;
        let mut buffer = Zeroizing::new(vec![0; STEP]);
        loop {
            match text
                .read(&mut buffer)
                .map_err(|error| self.opening(error))?
            {
                0 => break,
                count => sealed
                    .write_all(buffer.get(..count).unwrap_or_default())
                    .map_err(io)?,
            }
        }
        sealed.finish().map_err(io)?;

        let again = Unlock::new().direct(&id, key.clone());
        let new = File::open(aside.file.path()).map_err(io)?;
        let (old, _) = self.blob()?.whole();
        let mut old = OpenReader::new(old, &unlock, &context);
        let mut new = OpenReader::new(new, &again, &context);
        if !same(&mut old, &mut new).map_err(|error| self.opening(error))? {
            return Err(KeysError::Changed.into());
        }
        self.commit(aside)
    }

    /// `raw12`, in memory as a whole.
    fn rotate_older(&self, form: Raw12, rng: &mut dyn CryptoRng) -> Result<Rotated, CliError> {
        let _alone = (self.there.len() > LARGE).then(|| {
            let large = self.files.large.lock();
            large.unwrap_or_else(PoisonError::into_inner)
        });
        let blob = read_older(self.path)?;
        let metadata = self.metadata()?;
        let mut keys = self.files.keys.iter();
        let opened = keys.find_map(|(version, key)| {
            let text = raw12::open(key, &blob).ok()?;
            Some((*version, key, text))
        });
        let (version, key, text) = opened.ok_or(LegacyError::Closed)?;
        if form == Raw12::Keep {
            if version >= self.target.version() {
                return Ok(Rotated::Fine);
            }
            if metadata.is_some() {
                return Err(KeysError::MetadataBeside.into());
            }
        } else if let Some(metadata) = &metadata {
            lumera::open(key, &blob, Some(metadata))?;
        }
        let key = self.target_key();
        let (sealed, again) = match form {
            Raw12::Keep => {
                let sealed = raw12::seal(&key, &text, rng);
                let again = raw12::open(&key, &sealed)?;
                (sealed, again)
            }
            Raw12::Upgrade => {
                let (id, context) = (ring::slot_id(self.target), self.files.context(self.name)?);
                let to = [Recipient::direct(&id)];
                let sealing = Sealing::new(&key, &to).context(&context);
                let sealed = sprag_vault::seal(&text, &sealing, rng)?;
                let unlock = Unlock::new().direct(&id, key.clone());
                let again = sprag_vault::open(&sealed, &unlock, &context)?;
                (sealed, again)
            }
        };
        if *again != *text {
            return Err(KeysError::Changed.into());
        }
        let mut aside = self.aside()?;
        let written = aside.file.write_all(&sealed);
        written.map_err(|cause| CliError::file(self.path, cause))?;
        self.commit(aside)
    }

    fn blob(&self) -> Result<Blob, CliError> {
        Blob::read(Source::open(Some(self.path))?)
    }

    fn target_key(&self) -> DataKey {
        DataKey::from_bytes(self.target.as_bytes())
    }

    /// The context that a file was sealed with, the one given or none; and whether it hides that there is one.
    fn context_of(
        &self,
        header: &Header,
        unlock: &Unlock<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<(Context, bool), CliError> {
        let given = self.files.context(self.name)?;
        let mut tries = vec![given];
        if !header.shows_context() {
            tries.insert(0, Context::none());
        }
        let mut last = OpenError::ContextOrHeader;
        for context in tries {
            match reseal_header(header, unlock, &context, |_| true, &[], rng) {
                Ok(_) => {
                    let hidden = !context.is_empty() && !header.shows_context();
                    return Ok((context, hidden));
                }
                Err(ResealError::Open(error)) => last = error,
                Err(_) => {}
            }
        }
        Err(last.into())
    }

    /// A file of Lumera's tool: `<name>.meta` beside `<name>`.
    fn is_metadata(&self) -> bool {
        let is = self.path.extension().is_some_and(|end| end == "meta");
        is && self.path.with_extension("").is_file()
    }

    fn metadata(&self) -> Result<Option<lumera::CryptoResult>, CliError> {
        let mut path = self.path.as_os_str().to_owned();
        path.push(".meta");
        let path = PathBuf::from(path);
        if !path.is_file() {
            return Ok(None);
        }
        let json = input::read(&path)?;
        Ok(Some(lumera::CryptoResult::from_json(&json)?))
    }

    fn aside(&self) -> Result<Aside, CliError> {
        let permissions = mode_of(self.there);
        let aside = Aside::create_only(self.path, true, permissions);
        aside.map_err(|cause| CliError::file(self.path, cause))
    }

    fn commit(&self, aside: Aside) -> Result<Rotated, CliError> {
        match aside.commit_if(|| self.is_unchanged())? {
            true => Ok(Rotated::Resealed),
            false => Ok(Rotated::Contended),
        }
    }

    /// Whether nobody wrote the file since it was looked at.
    fn is_unchanged(&self) -> io::Result<bool> {
        match fs::symlink_metadata(self.path) {
            Ok(now) => Ok(same_file(self.there, &now)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(cause),
        }
    }

    /// An error of reading, which may be one of the blob.
    fn opening(&self, error: io::Error) -> CliError {
        let inner = error.get_ref();
        match inner.and_then(|inner| inner.downcast_ref::<OpenError>()) {
            Some(error) => CliError::from(*error),
            None => CliError::file(self.path, error),
        }
    }
}

fn failed(error: CliError) -> RecordError {
    match error {
        CliError::File { .. } => RecordError::Records(Arc::new(error)),
        error => RecordError::Sealer(Arc::new(error)),
    }
}

/// Whether a file begins as `evlt` does. Whatever that makes of it, it is no older form.
fn is_blob(path: &Path) -> io::Result<bool> {
    let mut begin = Vec::with_capacity(MAGIC.len());
    let most = u64::try_from(MAGIC.len()).unwrap_or(u64::MAX);
    File::open(path)?.take(most).read_to_end(&mut begin)?;
    Ok(begin == MAGIC)
}

fn read_older(path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let file = File::open(path).map_err(|cause| CliError::file(path, cause))?;
    input::read_all(file, MOST).map_err(|cause| CliError::file(path, cause))
}

/// Whether a file of the older form opens with a key. Larger ones than jobs do are none.
fn is_older_under(path: &Path, key: &DataKey) -> Result<bool, CliError> {
    match read_older(path) {
        Ok(blob) => Ok(raw12::open(key, &blob).is_ok()),
        Err(CliError::File { cause, .. })
            if matches!(
                cause.kind(),
                io::ErrorKind::FileTooLarge | io::ErrorKind::NotFound
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Whether two readers give the same bytes.
fn same(one: &mut impl Read, other: &mut impl Read) -> io::Result<bool> {
    let (mut a, mut b) = (Zeroizing::new(vec![0; STEP]), Zeroizing::new(vec![0; STEP]));
    loop {
        let (got, found) = (fill(one, &mut a)?, fill(other, &mut b)?);
        if got != found || a.get(..got) != b.get(..found) {
            return Ok(false);
        }
        if got == 0 {
            return Ok(true);
        }
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest)? {
            0 => break,
            count => filled = filled.saturating_add(count),
        }
    }
    Ok(filled)
}

/// Reads, writes and runs, and nothing else.
#[cfg(unix)]
fn mode_of(there: &Metadata) -> Option<Permissions> {
    use std::os::unix::fs::PermissionsExt;
    Some(Permissions::from_mode(there.permissions().mode() & 0o777))
}

#[cfg(not(unix))]
fn mode_of(_: &Metadata) -> Option<Permissions> {
    None
}

#[cfg(unix)]
fn same_file(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let of = |file: &Metadata| {
        let (changed, written) = (
            (file.ctime(), file.ctime_nsec()),
            (file.mtime(), file.mtime_nsec()),
        );
        (file.dev(), file.ino(), file.len(), changed, written)
    };
    of(one) == of(other)
}

#[cfg(not(unix))]
fn same_file(one: &Metadata, other: &Metadata) -> bool {
    let of = |file: &Metadata| (file.len(), file.modified().ok());
    of(one) == of(other)
}
