//! `sprag mcp`: memories for an agent, over the Model Context Protocol on standard input and output.

mod server;
mod tools;

use std::process;
use std::sync::Arc;

use rmcp::ServiceExt;
use rmcp::service::{QuitReason, ServerInitializeError};
use rmcp::transport::async_rw::AsyncRwTransport;

use self::server::MemoryServer;
use super::memory::args::McpArgs;
use crate::args::Global;
use crate::error::{CliError, Exit};
use crate::profile::home;
use crate::shared::Shared;
use crate::shared::call::Fault;
use crate::shared::local::ProfileDoor;
use crate::{key, note};

/// The longest line that is read, in bytes: one call.
const MAX_LINE: usize = 8 << 20;
/// Calls that are done at once.
const AT_ONCE: usize = 16;

/// Serves until standard input ends.
pub(super) fn run(global: &Global, args: &McpArgs) -> Result<Exit, CliError> {
    let door = ProfileDoor::new(global, key::unattended(global)?, true);
    let shared = Arc::new(Shared::new(door, &home(global)?, note));
    // What is wrong with the profile is told now, and not to the agent only.
    shared.attach()?;
    shared.keep();
    close_when_asked(&shared)?;
    let server = MemoryServer::new(shared.clone(), args.whose.to_whose(), !args.no_redaction);
    let ended = serve(server);
    // What is under way is answered; then the next process takes over.
    shared.close()?;
    ended?;
    Ok(Exit::Ok)
}

fn serve(server: MemoryServer) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .max_blocking_threads(AT_ONCE)
        .build()
        .map_err(|error| CliError::Refused(format!("no server could be begun: {error}")))?;
    let served = runtime.block_on(async {
        let transport = AsyncRwTransport::new(tokio::io::stdin(), tokio::io::stdout())
            .with_max_line_length(MAX_LINE);
        let service = match server.serve(transport).await {
            Ok(service) => service,
            // Nobody began.
            Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
            // What came instead is not for a log.
            Err(_) => {
                return Err(CliError::Refused(
                    "the client did not begin as the Model Context Protocol wants it".to_owned(),
                ));
            }
        };
        match service.waiting().await {
            Ok(QuitReason::JoinError(_)) | Err(_) => Err(CliError::Fault(Box::new(Fault::new(
                "internal",
                Exit::Failed,
                "the server stopped",
            )))),
            Ok(_) => Ok(()),
        }
    });
    runtime.shutdown_background();
    served
}

/// Ctrl-C, and being asked to end, end as the end of standard input does, but for the answers.
fn close_when_asked(shared: &Arc<Shared>) -> Result<(), CliError> {
    let shared = Arc::downgrade(shared);
    let close = move || {
        if let Some(shared) = shared.upgrade() {
            let _ = shared.close();
        }
        process::exit(Exit::Interrupted as i32);
    };
    ctrlc::set_handler(close).map_err(|error| CliError::Refused(error.to_string()))
}
