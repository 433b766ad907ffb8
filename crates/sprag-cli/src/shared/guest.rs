//! A process that asks the one that has the store open.

use std::borrow::Cow;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sprag::store::ProofKey;
use zeroize::Zeroizing;

use super::call::{Answer, Call, CallId, Fault};
use super::hello::{Line, MAX_SAID, Refused, Trust, as_guest};
use super::host::Question;

/// How long an answer may take.
const UNANSWERED: Duration = Duration::from_secs(120);

/// A conversation with the host.
pub(super) struct Guest {
    /// `None` once it is over.
    line: Mutex<Option<Line>>,
    host: u32,
}

/// The conversation is over: whether the call was done nobody knows, so it has to be made again under its id.
pub(super) struct Over;

impl Guest {
    pub(super) fn begin(stream: UnixStream, key: &ProofKey, trust: Trust) -> Result<Self, Refused> {
        let (line, host) = as_guest(stream, key, trust)?;
        let stream = line.stream();
        stream.set_read_timeout(Some(UNANSWERED))?;
        stream.set_write_timeout(Some(UNANSWERED))?;
        Ok(Self {
            line: Mutex::new(Some(line)),
            host,
        })
    }

    /// The process that answers.
    pub(super) fn host(&self) -> u32 {
        self.host
    }

    pub(super) fn call(&self, id: CallId, call: &Call) -> Result<Result<Answer, Fault>, Over> {
        let question = Question {
            id,
            call: Cow::Borrowed(call),
        };
        let Ok(question) = serde_json::to_vec(&question).map(Zeroizing::new) else {
            return Ok(Err(Fault::bad_input("this cannot be written as JSON")));
        };
        if question.len() > MAX_SAID {
            return Ok(Err(Fault::bad_input("this is too large")));
        }
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = line.as_mut() else {
            return Err(Over);
        };
        match ask(open, &question) {
            Ok(Some(answer)) => Ok(answer),
            // After an error it is unknown where the next answer begins.
            Ok(None) | Err(_) => {
                *line = None;
                Err(Over)
            }
        }
    }

    /// Waits, without a call, until the host ends. For a conversation that is for nothing else.
    pub(super) fn until_over(self) {
        let line = self
            .line
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = line {
            let mut stream = line.stream();
            if stream.set_read_timeout(None).is_ok() {
                // It says nothing unasked.
                let _ = stream.read(&mut [0]);
            }
        }
    }
}

fn ask(line: &mut Line, question: &[u8]) -> io::Result<Option<Result<Answer, Fault>>> {
    line.say(question)?;
    let Some(answer) = line.hear()? else {
        return Ok(None);
    };
    Ok(Some(serde_json::from_slice(&answer)?))
}
