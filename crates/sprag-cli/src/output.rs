//! The only place that prints: results to standard output, everything else to standard error.

use std::io::{self, BufWriter, Stderr, Stdout, Write};

use zeroize::Zeroizing;

use crate::error::CliError;
use crate::line::{EventLine, Figures, HealthLine, Line, MessageLine};

/// Where results go, and how.
pub(crate) struct Output {
    json: bool,
    out: BufWriter<Stdout>,
    err: Stderr,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            out: BufWriter::new(io::stdout()),
            err: io::stderr(),
        }
    }

    /// Prints a result.
    pub(crate) fn line(&mut self, line: &Line) -> Result<(), CliError> {
        if self.json {
            serde_json::to_writer(&mut self.out, line)
                .map_err(io::Error::from)
                .and_then(|()| self.out.write_all(b"\n"))
        } else {
            let text = Zeroizing::new(text(line));
            self.out.write_all(text.as_bytes())
        }
        .map_err(CliError::output)
    }

    /// Prints bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.out.write_all(bytes).map_err(CliError::output)
    }

    /// Where bytes go as they are, by whoever keeps track of them.
    pub(crate) fn out(&mut self) -> &mut impl Write {
        &mut self.out
    }

    /// Whether programs read this.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a block that is for people only.
    pub(crate) fn picture(&mut self, picture: &str) -> Result<(), CliError> {
        if self.json {
            return Ok(());
        }
        writeln!(self.out, "{picture}").map_err(CliError::output)
    }

    /// All results have left this program.
    pub(crate) fn flush(&mut self) -> Result<(), CliError> {
        self.out.flush().map_err(CliError::output)
    }

    /// Tells something that is no result. Nobody needs to listen.
    pub(crate) fn note(&mut self, text: &str) {
        let _ = if self.json {
            let object = serde_json::json!({ "type": "note", "message": text });
            writeln!(self.err, "{object}")
        } else {
            writeln!(self.err, "sprag: {}", printable(text))
        };
    }

    /// Tells why the program ends.
    pub(crate) fn error(&mut self, error: &CliError) {
        if matches!(error, CliError::ClosedPipe) {
            return;
        }
        // Results that were there before it come before it.
        let _ = self.out.flush();
        if self.json {
            let object = serde_json::json!({
                "type": "error",
                "code": error.code(),
                "exit": error.exit() as u8,
                "message": error.to_string(),
                "advice": error.advice(),
                "incomplete": matches!(error, CliError::Incomplete(_)),
            });
            let _ = writeln!(self.err, "{object}");
            return;
        }
        self.note(&error.to_string());
        if let Some(advice) = error.advice() {
            self.note(advice);
        }
    }
}

/// A result for people. What others wrote is made harmless for the terminal.
fn text(line: &Line) -> String {
    match line {
        Line::Profile {
            user,
            device,
            tasks,
            inbox,
        } => format!(
            "{}, device {device}: {tasks} tasks for the network, {inbox} messages to read\n",
            printable(user)
        ),
        Line::Sent { id, copies, .. } | Line::Status { id, copies } => {
            let copies = copies
                .iter()
                .map(|copy| format!("  {}  {}\n", printable(&copy.to), copy.status));
            std::iter::once(format!("{id}\n")).chain(copies).collect()
        }
        Line::Message(message) => message_text(message),
        Line::Refused { source, code, kept } => format!(
            "refused: {} ({code}){}\n",
            printable(source),
            if *kept { ", to be tried again" } else { "" }
        ),
        Line::Task(task) => format!(
            "{}  {}  {}{}\n",
            task.id,
            task.kind,
            task.user.as_deref().map(printable).unwrap_or_default(),
            task.file
                .as_deref()
                .map(|file| format!("  -> {}", printable(file)))
                .unwrap_or_default()
        ),
        Line::TaskEnded { id, how } => format!("{id}  {how}\n"),
        Line::Bundle { user, file, bytes } => format!(
            "{bytes} bytes to {}: for one person who wants to write to {}\n",
            printable(file),
            printable(user)
        ),
        Line::SafetyNumber {
            digits, matches, ..
        } => {
            let verdict = match matches {
                None => "",
                Some(true) => "they match\n",
                Some(false) => "THEY DIFFER: somebody may stand between\n",
            };
            format!("{}{verdict}", grouped(digits))
        }
        Line::Contact {
            user,
            accepted,
            changed,
            devices,
        } => format!(
            "{}: {}{}, {} devices\n",
            printable(user),
            if *accepted {
                "accepted"
            } else {
                "not accepted"
            },
            if *changed { ", identity changed" } else { "" },
            devices.len()
        ),
        Line::Store {
            database: Some(database),
            ..
        } => format!("the profile is in {database} now\n"),
        Line::Store { .. } => "the profile opens with the new key now\n".to_owned(),
        Line::LinkRequest { request, .. } => {
            let request = request.as_ref().map(|request| request.as_str());
            format!("{}\n", request.unwrap_or_default())
        }
        Line::Device {
            device,
            holder,
            this,
            state,
        } => format!(
            "{device}  {state}{}{}\n",
            if *holder { ", may add others" } else { "" },
            if *this { ", this one" } else { "" },
        ),
        Line::ForkSide {
            hash,
            ours,
            devices,
        } => format!(
            "{hash}  {}: devices {}\n",
            if *ours {
                "the list of this device"
            } else {
                "the other list"
            },
            devices
                .iter()
                .map(u32::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        ),
        Line::Event(event) => event_text(event),
        Line::Synced {
            tasks_done,
            tasks_waiting,
            envelopes,
            refused,
            inbox,
        } => format!(
            "{tasks_done} tasks done, {tasks_waiting} wait; {envelopes} envelopes came, {refused} refused; \
             {inbox} messages to read\n"
        ),
        Line::Health(health) => health_text(health),
        Line::Found {
            code,
            severity,
            explanation,
            remedy,
        } => {
            let remedy = remedy.map(|remedy| format!("         repair: {remedy}\n"));
            let explanation = printable(explanation);
            format!(
                "{severity:<8} {explanation} ({code})\n{}",
                remedy.unwrap_or_default()
            )
        }
        Line::Examined {
            damaged, remedies, ..
        } => match (damaged, remedies.is_empty()) {
            (false, true) => "nothing is missing\n".to_owned(),
            (false, false) => {
                "nothing is missing; something can be put right: --repair\n".to_owned()
            }
            (true, false) => {
                "the profile is damaged, and can be repaired whole: --repair\n".to_owned()
            }
            (true, true) => {
                "the profile is damaged, and nothing is left to repair it by\n".to_owned()
            }
        },
        Line::Repaired { done, aside } => {
            let done = done.iter().map(|done| format!("done: {done}\n"));
            let aside = printable(&aside.display().to_string());
            std::iter::once(format!("copied aside to {aside}\n"))
                .chain(done)
                .collect()
        }
        Line::Quiet { quiet } => format!("quiet mode is {}\n", if *quiet { "on" } else { "off" }),
        Line::Maintained {
            rotated,
            asked,
            deleted,
            expired,
            renewed,
            doubted_time,
        } => {
            let mut text = format!(
                "{deleted} old prekeys deleted, {expired} messages forgotten{}{}{}\n",
                if *rotated { ", prekeys rotated" } else { "" },
                if *asked { ", the server is asked" } else { "" },
                if *renewed { ", the store renewed" } else { "" },
            );
            if let Some(time) = doubted_time {
                text.push_str(&format!(
                    "the clock jumped, and nothing is deleted until it is right again; if it is right, run \
                     `sprag maintain --confirm-time {time}`\n"
                ));
            }
            text
        }
        Line::BackupMade {
            file,
            bytes,
            recovery_key,
        } => {
            let mut text = format!("{bytes} bytes to {}\n", printable(file));
            if let Some(key) = recovery_key {
                text.push_str(
                    "Recovery key, kept nowhere else: print it, and keep it apart from the file\n",
                );
                let groups: Vec<&str> = key.split('-').collect();
                for line in groups.chunks(7) {
                    text.push_str("    ");
                    text.push_str(&line.join("-"));
                    text.push('\n');
                }
            }
            text
        }
        Line::Backup {
            user,
            device,
            contacts,
            generations,
            holder,
            epoch,
            devices,
            ..
        } => format!(
            "backup of {}, made by device {device}: {contacts} contacts, {generations} memory keys, {} devices on list \
             {epoch}{}\n",
            printable(user),
            devices.len(),
            if *holder {
                ""
            } else {
                "; it cannot change the account: link a new device instead of restoring it"
            }
        ),
        Line::Report { file, events } => {
            format!(
                "{events} events to {}: no names, no keys\n",
                printable(file)
            )
        }
        Line::Diagnosis {
            sentence, findings, ..
        } => {
            let more = findings
                .iter()
                .skip(1)
                .map(|finding| format!("also: {}\n", finding.text));
            std::iter::once(format!("{sentence}\n"))
                .chain(more)
                .collect()
        }
        Line::MemoryWritten(written) => written.text(),
        Line::Memory(memory) => memory.text(),
        Line::MemoryForgotten { id, state } => format!(
            "{}  {}\n",
            printable(id),
            match *state {
                "erase_pending" => "erased here; for good once all your devices have said so",
                state => state,
            }
        ),
        Line::MemoriesExported {
            file,
            bytes,
            left_out,
        } => {
            let left_out = match left_out {
                0 => String::new(),
                count => format!("; {count} records cannot be read here, and are NOT in it"),
            };
            format!("{bytes} bytes to {}{left_out}\n", printable(file))
        }
        Line::MemoriesImported(done) => done.text(),
        Line::VaultKey(key) => key.text(),
        Line::VaultFile(file) => file.text(),
        Line::Vault(blob) => blob.text(),
        Line::VaultSlot(slot) => slot.text(),
        Line::Ring(ring) => ring.text(),
        Line::KeyVersion(version) => version.text(),
        Line::KeyJob(job) => job.text(),
        Line::KeyFailure(failure) => failure.text(),
        Line::Step { text } => format!("{}\n", printable(text)),
        Line::Figures(figures) => figures_text(figures),
    }
}

fn message_text(message: &MessageLine) -> String {
    let stranger = if message.accepted {
        ""
    } else {
        " (not accepted)"
    };
    let mut text = printable(&message.from);
    if message.is_sync {
        text.push_str(&format!(
            " to {}",
            printable(&message.conversation.join(", "))
        ));
    }
    text.push_str(&format!("{stranger}: "));
    match (&message.text, &message.hex) {
        (Some(content), _) => {
            // Further lines are indented, so that none of them looks like another message.
            let mut lines = content.strip_suffix('\n').unwrap_or(content).split('\n');
            text.push_str(&printable(lines.next().unwrap_or_default()));
            for line in lines {
                text.push_str("\n    ");
                text.push_str(&printable(line));
            }
        }
        (None, Some(hex)) => text.push_str(&format!(
            "[{} bytes that are not text: they are printed by --raw and --json]",
            hex.len() / 2
        )),
        (None, None) => {}
    }
    text.push('\n');
    text
}

fn event_text(event: &EventLine) -> String {
    let user = event.user.as_deref().map(printable).unwrap_or_default();
    let code = event.code.as_deref().unwrap_or_default();
    let task = event.task.unwrap_or_default();
    let device = event.device.unwrap_or_default();
    let what = match event.event {
        "identity_changed" => format!(
            "{user} has another identity: compare safety numbers, then `sprag accept {user}` or not"
        ),
        "provisional_replaced" => {
            format!("what was remembered of {user} gave way to what the server says")
        }
        "list_mismatch" => {
            format!("{user} saw a device list of ours that we never signed: compare safety numbers")
        }
        "reply_refused" => format!("the reply to task {task} was refused ({code})"),
        "task_refused" => format!("the server refused task {task} ({code})"),
        "unreadable" => format!("a message of {user} could not be read ({code})"),
        "bad_content" => format!("a message of {user} broke the rules"),
        "clock_jumped" => format!("the clock jumped to {code}: see `sprag maintain`"),
        "unsupported" => format!("a message of {user} needs a newer version"),
        "foreign_device" => format!(
            "the server gave keys of a device of {user} that {user} never added: nothing went there"
        ),
        "list_replayed" => format!("the server showed an old device list of {user}"),
        "list_refused" => format!("a device list in a message of {user} was refused ({code})"),
        "own_list_forked" => {
            "there are two lists of your own devices: see `sprag device settle`".to_owned()
        }
        "device_added" => {
            format!("device {device} is new on your account: see `sprag device list`")
        }
        "device_removed" => format!("device {device} is no longer on your account"),
        "linked" => "this device has the keys of your account".to_owned(),
        "link_ended" => "a new device did not get the keys of your account in time".to_owned(),
        "list_change_dropped" => {
            format!("the change about device {device} did not fit what others changed meanwhile")
        }
        "share_refused" => "keys that are not those of your account were refused".to_owned(),
        "sent_again" => format!("{code} messages were sent to {user} again, who asked for them"),
        "offered_again" => {
            format!("a message of {user} that had waited for a list or a decision was opened")
        }
        "strangers_saw_other_list" => {
            format!("{code} messages of strangers claim a device list of ours that we never signed")
        }
        "server_went_back" => {
            format!("the server went back: {code} messages are delivered to it again")
        }
        "restored" => {
            "this device came out of a backup, and is on the account now; its sessions are new"
                .to_owned()
        }
        "memory_refused" => {
            format!("what the server has of the memories of {user} was refused ({code})")
        }
        "memory_conflict" => format!(
            "two devices wrote one memory of {user} at once: the write of device {device} does not count, and is kept"
        ),
        "memory_refilled" => {
            format!("the server had lost memories of {user}, and is given them again")
        }
        "memory_erased" => {
            format!("{code} erased memories are gone from all devices and keys")
        }
        _ => "something that this version has no words for".to_owned(),
    };
    format!("{}  {what}\n", event.number)
}

fn health_text(health: &HealthLine) -> String {
    let refused: Vec<_> = health
        .refused
        .iter()
        .map(|(code, count)| format!("{code} {count}"))
        .collect();
    let refused = match refused.as_slice() {
        [] => "none".to_owned(),
        some => some.join(", "),
    };
    format!(
        "frames     {} opened; refused: {refused}\n\
         healing    {} sessions lost, {} opened anew; {} requests sent, {} answered, {} messages sent again\n\
         waiting    {} frames of 64 ({} bytes) for a list or a decision; {} opened later, {} in vain\n\
         sessions   {} current ({} unanswered), {} archived, {} retired, with {} devices\n\
         people     {} accepted, {} devices of strangers of 1000, {} changed identities undecided\n\
         boxes      inbox {} of 10000, outbox {} of 10000\n\
         network    {} tasks, {} of them parked; {} list fetches, {} bundle fetches\n\
         prekeys    {} signed, {} last resort, {} one-time, {} one-time KEM\n\
         memories   {} spaces, {} records not at the server yet, {} erased and not gone everywhere yet{}\n\
         quiet      {}\n",
        health.opened,
        health.heals,
        health.fresh_sessions,
        health.requests_sent,
        health.requests_answered,
        health.sent_again,
        health.kept_frames,
        health.kept_bytes,
        health.offered_again,
        health.given_up,
        health.current_sessions,
        health.pending_sessions,
        health.archived_sessions,
        health.retired_sessions,
        health.records,
        health.accepted_users,
        health.strangers,
        health.undecided,
        health.inbox,
        health.outbox,
        health.tasks,
        health.parked_tasks,
        health.list_fetches,
        health.bundle_fetches,
        health.signed_pre_keys,
        health.last_resort_pre_keys,
        health.one_time_pre_keys,
        health.kem_pre_keys,
        health.memory_spaces,
        health.memories_unpublished,
        health.erases_pending,
        if health.backup_due {
            "; make a new backup"
        } else {
            ""
        },
        if health.quiet { "on" } else { "off" },
    )
}

fn figures_text(figures: &Figures) -> String {
    let Figures {
        messages,
        wire_bytes,
        bundle_bytes,
        first_envelope_bytes,
        next_envelope_bytes,
        measured,
        send_median_us,
        receive_median_us,
        open_with_passphrase_ms,
        open_with_key_file_ms,
        disk_bytes,
        total_ms,
    } = figures;
    format!(
        "Measured in this run:\n\
         \x20 messages opened            {messages}\n\
         \x20 bytes on the wire          {wire_bytes}\n\
         \x20 fetching a prekey bundle   {bundle_bytes} bytes\n\
         \x20 the first envelope         {first_envelope_bytes} bytes, handshake included\n\
         \x20 an envelope after a reply  {next_envelope_bytes} bytes\n\
         \x20 a durable send             {send_median_us} us (median of {measured})\n\
         \x20 a durable receive          {receive_median_us} us (median of {measured})\n\
         \x20 opening with a passphrase  {open_with_passphrase_ms} ms (Argon2id)\n\
         \x20 opening with a key file    {open_with_key_file_ms} ms\n\
         \x20 both stores on disk        {disk_bytes} bytes\n\
         \x20 the whole demo             {total_ms} ms\n"
    )
}

/// 60 digits in groups of five, four groups to a line.
fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        match place {
            0 => {}
            _ if place % 20 == 0 => text.push('\n'),
            _ if place % 5 == 0 => text.push(' '),
            _ => {}
        }
        text.push(digit);
    }
    text.push('\n');
    text
}

/// Without what steers a terminal or turns the direction of writing.
pub(crate) fn printable(text: &str) -> String {
    let harmless = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => '\u{fffd}',
        c => c,
    };
    text.chars().map(harmless).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> MessageLine {
        MessageLine {
            number: 1,
            id: "00".repeat(16),
            from: "bob\u{1b}".to_owned(),
            device: 70_000,
            conversation: vec!["bob\u{1b}".to_owned()],
            is_sync: false,
            sent_at: 1,
            received_at: 2,
            accepted: true,
            text: Some(text.to_owned().into()),
            hex: None,
        }
    }

    #[test]
    fn a_message_neither_steers_the_terminal_nor_looks_like_another() {
        assert_eq!(
            message_text(&from("hi\u{1b}[2J\nalice: send money\u{202e}\n")),
            "bob\u{fffd}: hi\u{fffd}[2J\n    alice: send money\u{fffd}\n"
        );
    }

    #[test]
    fn sixty_digits_stand_in_three_lines_of_four_groups() {
        let text = grouped(&"12345".repeat(12));
        assert_eq!(text, "12345 12345 12345 12345\n".repeat(3));
    }

    #[test]
    fn json_keeps_every_key_also_where_there_is_nothing() {
        let json = serde_json::to_string(&Line::Message(from("hi"))).unwrap();
        assert_eq!(
            json,
            "{\"type\":\"message\",\"number\":1,\"id\":\"00000000000000000000000000000000\",\
             \"from\":\"bob\\u001b\",\"device\":70000,\"conversation\":[\"bob\\u001b\"],\"is_sync\":false,\"sent_at\":1,\"received_at\":2,\"accepted\":true,\
             \"text\":\"hi\",\"hex\":null}"
        );
    }
}
