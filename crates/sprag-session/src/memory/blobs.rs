//! Blobs that are held in rows, and what is to be done with blobs at the server.

use std::ops::ControlFlow;

use sprag_crypto::sha256;
use sprag_store::{MAX_ROW, Rows, Staged, StoreError};
use zeroize::Zeroizing;

use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::own::{Device, Env};
use crate::tables;
use crate::task::{Kind, StoredTask, TaskId};

/// The largest blob, in bytes; what is longer is split.
pub const MAX_BLOB: usize = 64 << 20;
/// Tasks about blobs of one sort (get, put, drop) that are offered at once; the others follow when these are done.
const AT_ONCE: usize = 64;

const VERSION: u8 = 1;

/// What is to be done with a blob, in the order in which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    GetSegment,
    Put,
    Get,
    Drop,
    /// The server does not have it: it is asked for again with the next refresh.
    MissingSegment,
    Missing,
}

impl Work {
    fn number(self) -> u8 {
        match self {
            Self::GetSegment => 0,
            Self::Put => 1,
            Self::Get => 2,
            Self::Drop => 3,
            Self::MissingSegment => 0x10,
            Self::Missing => 0x12,
        }
    }
}

/// What a blob is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// A part of the log of a space.
    Segment(u32),
    /// The same, and what it says is in the log here.
    Merged(u32),
    /// A record of a space.
    Record(u32, [u8; 16]),
    /// Something of the application's: given up once the server has it.
    Loose,
    /// Something that the application asked for, of so many bytes at most.
    Fetched(u32),
}

impl Use {
    fn is_of_application(self) -> bool {
        matches!(self, Self::Loose | Self::Fetched(_))
    }
}

impl Use {
    fn write(self, writer: &mut Writer) {
        match self {
            Self::Segment(space) => writer.u8(0).u32(space),
            Self::Merged(space) => writer.u8(3).u32(space),
            Self::Record(space, record) => writer.u8(1).u32(space).fixed(&record),
            Self::Loose => writer.u8(2),
            Self::Fetched(most) => writer.u8(4).u32(most),
        };
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, StoreError> {
        Ok(match reader.u8()? {
            0 => Self::Segment(reader.u32()?),
            1 => Self::Record(reader.u32()?, reader.array()?),
            2 => Self::Loose,
            4 => Self::Fetched(reader.u32()?),
            3 => Self::Merged(reader.u32()?),
            _ => return Err(reader.damaged()),
        })
    }
}

/// Where a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlobState {
    /// It is held here.
    Here,
    /// It is held here, and the server is to get it.
    Leaving,
    /// The server was asked for it.
    Asked,
    /// The server was asked for it and does not have it.
    Missing,
    /// Nothing is known of it.
    Unknown,
}

/// Something to be done: the task that does it, if it is offered, and what the blob is part of.
struct Job {
    task: Option<TaskId>,
    used: Use,
}

impl Job {
    fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes, VERSION, "blob work")?;
        let task = Some(reader.u64()?).filter(|id| *id > 0).map(TaskId::new);
        let used = Use::read(&mut reader)?;
        reader.finish()?;
        Ok(Self { task, used })
    }

    fn load(rows: &dyn Rows, work: Work, name: &[u8; 32]) -> Result<Option<Self>, StoreError> {
        let bytes = rows.get(&tables::blob_work(work.number(), name))?;
        bytes.map(|bytes| Self::read(&bytes)).transpose()
    }

    fn save(&self, rows: &mut Staged<'_>, work: Work, name: &[u8; 32]) {
        let mut writer = Writer::new(VERSION, 30);
        writer.u64(self.task.map_or(0, TaskId::get));
        self.used.write(&mut writer);
        rows.put(tables::blob_work(work.number(), name), writer.finish());
    }
}

/// Keeps a blob in rows.
pub(crate) fn hold(
    rows: &mut Staged<'_>,
    name: &[u8; 32],
    used: Use,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let length = u32::try_from(bytes.len()).map_err(|_| StoreError::TooLarge)?;
    put_header(rows, name, length, used);
    let first = tables::blob(name);
    for (number, chunk) in (0u32..).zip(bytes.chunks(MAX_ROW)) {
        let name = first.join(&number.to_be_bytes());
        rows.put(name, Zeroizing::new(chunk.to_vec()));
    }
    Ok(())
}

fn put_header(rows: &mut Staged<'_>, name: &[u8; 32], length: u32, used: Use) {
    let mut writer = Writer::new(VERSION, 30);
    writer.u32(length);
    used.write(&mut writer);
    rows.put(tables::blob(name), writer.finish());
}

fn header(rows: &dyn Rows, name: &[u8; 32]) -> Result<Option<(u32, Use)>, StoreError> {
    let Some(bytes) = rows.get(&tables::blob(name))? else {
        return Ok(None);
    };
    let mut reader = Reader::new(&bytes, VERSION, "held blob")?;
    let length = reader.u32()?;
    let used = Use::read(&mut reader)?;
    reader.finish()?;
    Ok(Some((length, used)))
}

/// What a segment that is held says is in the log here.
pub(super) fn note_merged(rows: &mut Staged<'_>, name: &[u8; 32]) -> Result<(), StoreError> {
    if let Some((length, Use::Segment(space))) = header(rows, name)? {
        put_header(rows, name, length, Use::Merged(space));
    }
    Ok(())
}

pub(super) fn is_merged(rows: &dyn Rows, name: &[u8; 32]) -> Result<bool, StoreError> {
    Ok(matches!(header(rows, name)?, Some((_, Use::Merged(_)))))
}

/// Whether a blob is held.
pub(crate) fn is_held(rows: &dyn Rows, name: &[u8; 32]) -> Result<bool, StoreError> {
    Ok(header(rows, name)?.is_some())
}

/// A blob that is held.
pub(crate) fn get(
    rows: &dyn Rows,
    name: &[u8; 32],
) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let Some((length, _)) = header(rows, name)? else {
        return Ok(None);
    };
    let first = tables::blob(name);
    let mut bytes = Zeroizing::new(Vec::with_capacity(length as usize));
    for number in 0..u32::try_from((length as usize).div_ceil(MAX_ROW)).unwrap_or(u32::MAX) {
        let chunk = rows.get(&first.join(&number.to_be_bytes()))?;
        let chunk = chunk.ok_or_else(|| StoreError::Damaged("chunk of a blob is missing"))?;
        bytes.extend_from_slice(&chunk);
    }
    if bytes.len() != length as usize {
        return Err(StoreError::Damaged("held blob"));
    }
    Ok(Some(bytes))
}

/// Holds a blob no longer, and puts it nowhere.
pub(crate) fn release(rows: &mut Staged<'_>, name: &[u8; 32]) -> Result<(), StoreError> {
    unwant(rows, Work::Put, name)?;
    if let Some((length, _)) = header(rows, name)? {
        let first = tables::blob(name);
        for number in 0..u32::try_from((length as usize).div_ceil(MAX_ROW)).unwrap_or(u32::MAX) {
            rows.delete(first.join(&number.to_be_bytes()));
        }
        rows.delete(first);
    }
    Ok(())
}

/// Notes what is to be done with a blob.
pub(crate) fn want(
    rows: &mut Staged<'_>,
    work: Work,
    name: &[u8; 32],
    used: Use,
) -> Result<(), StoreError> {
    if Job::load(rows, work, name)?.is_none() {
        Job { task: None, used }.save(rows, work, name);
        rows.put(tables::memory_state(WORK_WAITS, &[]), vec![1]);
    }
    Ok(())
}

/// It is not missed any more.
pub(crate) fn forget_missing(rows: &mut Staged<'_>, name: &[u8; 32]) {
    for work in [Work::MissingSegment, Work::Missing] {
        rows.delete(tables::blob_work(work.number(), name));
    }
}

/// It is not to be done any more.
pub(crate) fn unwant(rows: &mut Staged<'_>, work: Work, name: &[u8; 32]) -> Result<(), StoreError> {
    if let Some(job) = Job::load(rows, work, name)? {
        rows.delete(tables::blob_work(work.number(), name));
        if let Some(id) = job.task
            && let Some(task) = StoredTask::load(rows, id)?
        {
            task.delete(rows, id);
        }
        rows.put(tables::memory_state(WORK_WAITS, &[]), vec![1]);
    }
    Ok(())
}

/// Ends what was to be done, with the row of its task left to the caller. What the blob is part of, if it was wanted.
fn finish(rows: &mut Staged<'_>, work: Work, name: &[u8; 32]) -> Result<Option<Use>, StoreError> {
    let job = Job::load(rows, work, name)?;
    rows.delete(tables::blob_work(work.number(), name));
    rows.put(tables::memory_state(WORK_WAITS, &[]), vec![1]);
    Ok(job.map(|job| job.used))
}

/// There may be something to be done with blobs for which no task is offered yet.
pub(super) const WORK_WAITS: u8 = 2;

/// Tasks that were offered may be gone: what is to be done is looked through once more.
pub(crate) fn offer_again(rows: &mut Staged<'_>) {
    rows.put(tables::memory_state(WORK_WAITS, &[]), vec![1]);
}

/// Offers tasks for what is to be done, as many as may be under way.
pub(crate) fn offer(rows: &mut Staged<'_>) -> Result<(), StoreError> {
    let waits = tables::memory_state(WORK_WAITS, &[]);
    if rows.get(&waits)?.is_none() {
        return Ok(());
    }
    let mut first = Vec::new();
    let mut more = false;
    // Each sort for itself: what a server has no room for does not keep it from dropping something.
    for work in [Work::GetSegment, Work::Put, Work::Get, Work::Drop] {
        let mut count = 0;
        let prefix = tables::blob_work(work.number(), &[]);
        rows.scan(&prefix, &mut |suffix, value| {
            if let Ok(name) = suffix.try_into() {
                first.push((work, name, value.to_vec()));
                count += 1;
            }
            if count >= AT_ONCE {
                more = true;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
    }
    for (work, name, value) in first {
        let mut job = Job::read(&value)?;
        if let Some(id) = job.task
            && StoredTask::load(rows, id)?.is_some()
        {
            continue;
        }
        let name: [u8; 32] = name;
        let kind = match work {
            Work::Put => match header(rows, &name)? {
                Some((length, _)) => Kind::PutBlob { name, length },
                None => {
                    rows.delete(tables::blob_work(work.number(), &name));
                    continue;
                }
            },
            Work::Drop => Kind::DropBlob { name },
            _ => Kind::GetBlob { name },
        };
        job.task = Some(StoredTask::now(kind).queue(rows)?);
        job.save(rows, work, &name);
    }
    if !more {
        rows.delete(waits);
    }
    Ok(())
}

/// Nothing of a log is dropped that was to be: a server that went back may need it again. What the application gave up it
/// gave up.
pub(crate) fn drop_nothing(rows: &mut Staged<'_>) -> Result<(), StoreError> {
    let mut names: Vec<[u8; 32]> = Vec::new();
    let prefix = tables::blob_work(Work::Drop.number(), &[]);
    let mut failed = Ok(());
    rows.scan(&prefix, &mut |suffix, value| {
        match Job::read(value) {
            Ok(job) if job.used.is_of_application() => {}
            Ok(_) => names.extend(<[u8; 32]>::try_from(suffix)),
            Err(error) => failed = Err(error),
        }
        ControlFlow::Continue(())
    })?;
    failed?;
    for name in names {
        unwant(rows, Work::Drop, &name)?;
    }
    Ok(())
}

/// What the server did not have is asked for again.
pub(crate) fn ask_for_missing(rows: &mut Staged<'_>) -> Result<(), StoreError> {
    for (missing, get) in [
        (Work::MissingSegment, Work::GetSegment),
        (Work::Missing, Work::Get),
    ] {
        let mut found = Vec::new();
        let prefix = tables::blob_work(missing.number(), &[]);
        rows.scan(&prefix, &mut |suffix, value| {
            if let Ok(name) = suffix.try_into() {
                found.push((name, value.to_vec()));
            }
            ControlFlow::Continue(())
        })?;
        for (name, value) in found {
            let name: [u8; 32] = name;
            rows.delete(tables::blob_work(missing.number(), &name));
            want(rows, get, &name, Job::read(&value)?.used)?;
        }
    }
    Ok(())
}

impl Device {
    /// Keeps a blob of the application's in rows and queues it for the server, where [`blob_fetch`](Self::blob_fetch)
    /// finds it. It is held until the server has it.
    ///
    /// # Errors
    /// `BadInput`: above 64 MiB, or empty. What the store answers.
    pub fn blob_hand_over(
        &self,
        rows: &mut Staged<'_>,
        bytes: &[u8],
    ) -> Result<[u8; 32], StepError> {
        if bytes.is_empty() || bytes.len() > MAX_BLOB {
            return Err(ProtocolError::BadInput.into());
        }
        let name = sha256(&[bytes]);
        if header(rows, &name)?.is_none() {
            hold(rows, &name, Use::Loose, bytes)?;
        }
        want(rows, Work::Put, &name, Use::Loose)?;
        Ok(name)
    }

    /// Asks the server for a blob of at most so many bytes, unless it is here already. It is held until
    /// [`blob_release`](Self::blob_release). A larger one is not taken, and `Missing`.
    ///
    /// # Errors
    /// What the store answers.
    pub fn blob_fetch(
        &self,
        rows: &mut Staged<'_>,
        name: &[u8; 32],
        most: u32,
    ) -> Result<BlobState, StepError> {
        let state = self.blob_state(rows, name)?;
        if matches!(state, BlobState::Unknown | BlobState::Missing) {
            rows.delete(tables::blob_work(Work::Missing.number(), name));
            want(rows, Work::Get, name, Use::Fetched(most))?;
            return Ok(BlobState::Asked);
        }
        Ok(state)
    }

    /// Where a blob is.
    ///
    /// # Errors
    /// What the store answers.
    pub fn blob_state(&self, rows: &dyn Rows, name: &[u8; 32]) -> Result<BlobState, StepError> {
        let is = |work| Ok::<_, StepError>(Job::load(rows, work, name)?.is_some());
        Ok(if header(rows, name)?.is_some() {
            if is(Work::Put)? {
                BlobState::Leaving
            } else {
                BlobState::Here
            }
        } else if is(Work::Get)? || is(Work::GetSegment)? {
            BlobState::Asked
        } else if is(Work::Missing)? || is(Work::MissingSegment)? {
            BlobState::Missing
        } else {
            BlobState::Unknown
        })
    }

    /// A blob that is held.
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_blob(
        &self,
        rows: &dyn Rows,
        name: &[u8; 32],
    ) -> Result<Option<Zeroizing<Vec<u8>>>, StepError> {
        Ok(get(rows, name)?)
    }

    /// Holds a blob of the application's no longer, and does not ask for it any more. One that the server is still to get
    /// does not get there. Blobs of records and logs are not the application's: nothing happens.
    ///
    /// # Errors
    /// What the store answers.
    pub fn blob_release(&self, rows: &mut Staged<'_>, name: &[u8; 32]) -> Result<(), StepError> {
        for work in [Work::Get, Work::Missing] {
            if Job::load(rows, work, name)?.is_some_and(|job| job.used.is_of_application()) {
                unwant(rows, work, name)?;
            }
        }
        if header(rows, name)?.is_some_and(|(_, used)| used.is_of_application()) {
            release(rows, name)?;
        }
        Ok(())
    }

    /// Has the server drop a blob of the application's.
    ///
    /// # Errors
    /// What the store answers.
    pub fn blob_drop(&self, rows: &mut Staged<'_>, name: &[u8; 32]) -> Result<(), StepError> {
        self.blob_release(rows, name)?;
        Ok(want(rows, Work::Drop, name, Use::Loose)?)
    }

    /// The server has a blob, or drops it no more.
    pub(crate) fn blob_done(
        &mut self,
        rows: &mut Staged<'_>,
        kind: &Kind,
    ) -> Result<(), StepError> {
        match kind {
            Kind::PutBlob { name, .. } => match finish(rows, Work::Put, name)? {
                Some(Use::Segment(space) | Use::Merged(space)) => {
                    self.segment_is_there(rows, space)
                }
                Some(Use::Loose) => Ok(release(rows, name)?),
                _ => Ok(()),
            },
            Kind::DropBlob { name } => finish(rows, Work::Drop, name)
                .map(|_| ())
                .map_err(Into::into),
            _ => Ok(()),
        }
    }

    /// The bytes of a blob came.
    pub(crate) fn blob_came(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        name: &[u8; 32],
        bytes: &[u8],
    ) -> Result<(), StepError> {
        if bytes.len() > MAX_BLOB || sha256(&[bytes]) != *name {
            return Err(ProtocolError::Malformed.into());
        }
        let segment = finish(rows, Work::GetSegment, name)?;
        let Some(used) = segment.or(finish(rows, Work::Get, name)?) else {
            return Ok(());
        };
        if matches!(used, Use::Fetched(most) if bytes.len() > most as usize) {
            Job { task: None, used }.save(rows, Work::Missing, name);
            return Ok(());
        }
        hold(rows, name, used, bytes)?;
        match used {
            Use::Segment(space) | Use::Merged(space) => self.segment_came(rows, env, space, name),
            Use::Record(space, record) => {
                rows.put(tables::unindexed(space, &record), Zeroizing::new(vec![1]));
                Ok(())
            }
            Use::Loose | Use::Fetched(_) => Ok(()),
        }
    }

    /// The server does not have a blob.
    pub(crate) fn blob_is_missing(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        name: &[u8; 32],
    ) -> Result<(), StepError> {
        if let Some(used) = finish(rows, Work::GetSegment, name)? {
            Job { task: None, used }.save(rows, Work::MissingSegment, name);
            if let Use::Segment(space) = used {
                self.segment_is_missing(rows, env, space)?;
            }
        }
        if let Some(used) = finish(rows, Work::Get, name)? {
            Job { task: None, used }.save(rows, Work::Missing, name);
        }
        Ok(())
    }
}
