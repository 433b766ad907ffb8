//! An MCP client, as agents have one: it starts its own server, and speaks to it over pipes.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, ExitStatus, Stdio};

use serde_json::{Value, json};

use crate::home::Home;

pub(crate) struct Agent {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    next: u64,
}

/// The server is gone.
#[derive(Debug)]
pub(crate) struct Gone;

impl Agent {
    /// Starts a server, and begins the conversation.
    pub(crate) fn start(home: &Home, args: &[&str]) -> Self {
        let mut agent = Self::spawn(home, args);
        let answer = agent.initialize();
        assert_eq!(answer["result"]["serverInfo"]["name"], "sprag", "{answer}");
        agent
    }

    /// Starts a server, and says nothing yet. What it logs goes to a file of its own.
    pub(crate) fn spawn(home: &Home, args: &[&str]) -> Self {
        let args: Vec<&str> = ["mcp"].into_iter().chain(args.iter().copied()).collect();
        let mut command = home.command(&args);
        let log = tempfile::Builder::new()
            .prefix("log-")
            .tempfile_in(home.path(""))
            .unwrap();
        let log: File = log.keep().unwrap().0;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
            next: 1,
        }
    }

    pub(crate) fn initialize(&mut self) -> Value {
        let hello = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" },
        });
        let answer = self.ask("initialize", &hello).unwrap();
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string())
            .unwrap();
        answer
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// One request, and its answer.
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> Result<Value, Gone> {
        let id = self.next;
        self.next += 1;
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.send(&request.to_string())?;
        let answer = self.hear()?;
        assert_eq!(answer["id"], id, "{answer}");
        Ok(answer)
    }

    /// Calls a tool: what it gave, or the error that the agent sees.
    pub(crate) fn try_call(
        &mut self,
        tool: &str,
        arguments: Value,
    ) -> Result<Result<Value, Value>, Gone> {
        let call = json!({ "name": tool, "arguments": arguments });
        let answer = self.ask("tools/call", &call)?;
        let result = &answer["result"];
        assert!(result.is_object(), "{answer}");
        let told = result["structuredContent"].clone();
        let text = result["content"][0]["text"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), told);
        Ok(match result["isError"].as_bool() {
            Some(true) => Err(told),
            _ => Ok(told),
        })
    }

    pub(crate) fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.try_call(tool, arguments).unwrap().unwrap()
    }

    /// The code of an error that a tool gives.
    pub(crate) fn refused(&mut self, tool: &str, arguments: Value) -> (String, String) {
        let error = self.try_call(tool, arguments).unwrap().unwrap_err();
        let text = |name: &str| error[name].as_str().unwrap().to_owned();
        (text("code"), text("message"))
    }

    pub(crate) fn send(&mut self, line: &str) -> Result<(), Gone> {
        let input = self.input.as_mut().unwrap();
        let sent = input
            .write_all(line.as_bytes())
            .and_then(|()| input.write_all(b"\n"))
            .and_then(|()| input.flush());
        sent.map_err(|_| Gone)
    }

    /// The next line, which is one message of the protocol.
    pub(crate) fn hear(&mut self) -> Result<Value, Gone> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) | Err(_) => Err(Gone),
            Ok(_) if !line.ends_with('\n') => Err(Gone),
            Ok(_) => Ok(serde_json::from_str(&line).unwrap()),
        }
    }

    /// Ends the conversation, as the client of an agent that ends. Nothing more was said.
    pub(crate) fn end(mut self) -> ExitStatus {
        self.input = None;
        let mut rest = String::new();
        self.output.read_line(&mut rest).unwrap();
        assert_eq!(rest, "");
        self.child.wait().unwrap()
    }

    /// How it ended, by itself.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// As `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that the servers logged.
pub(crate) fn logs(home: &Home) -> String {
    let entries = std::fs::read_dir(home.path("")).unwrap();
    let logs = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("log-")
        });
    logs.map(|log| std::fs::read_to_string(log).unwrap())
        .collect()
}
