//! What a server keeps for the devices of a user, for all harnesses that carry tasks to one.

use sprag::Task;
use sprag_directory::{Directory, DirectoryError, Storage};
use sprag_wire::UserId;

/// Does a task about an object or a blob. `Some` is a reply, to be supplied.
///
/// # Errors
/// What the server answers.
///
/// # Panics
/// On any other task.
#[allow(clippy::panic, reason = "a test fails by panicking")]
pub fn keep<S: Storage>(
    server: &Directory<S>,
    user: &UserId,
    task: &Task,
) -> Result<Option<Vec<u8>>, DirectoryError> {
    match task {
        Task::PutObject { object, .. } => server.put_object(user, object).map(Some),
        Task::GetObject { object, .. } => server.get_object(user, object).map(Some),
        Task::PutBlob { name, bytes, .. } => server.put_blob(user, name, bytes).map(|()| None),
        Task::GetBlob { name, .. } => server.get_blob(name).map(Some),
        Task::DropBlob { name, .. } => Ok(server.drop_blob(user, name).map(|()| None)?),
        _ => panic!("a task that this network does not know: {task:?}"),
    }
}
