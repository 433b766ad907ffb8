//! Servers for the tests of key services, on loopback; each stops with its value.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test file uses its part"
)]

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| known == name);
        header.map(|(_, value)| value.as_str())
    }
}

pub enum Reply {
    Bytes(Vec<u8>),
    HangUp,
}

impl Reply {
    pub fn text(status: u16, body: &str) -> Self {
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
        Self::Bytes(format!("{head}connection: close\r\n\r\n{body}").into_bytes())
    }

    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        match status {
            204 => Self::empty(status),
            _ => Self::text(status, &body.to_string()),
        }
    }

    pub fn empty(status: u16) -> Self {
        Self::Bytes(format!("HTTP/1.1 {status} X\r\nconnection: close\r\n\r\n").into_bytes())
    }

    pub fn redirect(status: u16, location: &str) -> Self {
        let head = format!("HTTP/1.1 {status} X\r\nlocation: {location}\r\n");
        Self::Bytes(format!("{head}content-length: 0\r\nconnection: close\r\n\r\n").into_bytes())
    }
}

/// A server of one thread that answers one request per connection.
pub struct Server {
    pub address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let Some(request) = read(&stream) else {
                    continue;
                };
                if let Reply::Bytes(bytes) = answer(&request) {
                    // A client that has seen enough may be gone.
                    let _ = stream.write_all(&bytes);
                }
            }
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address.trim_start_matches("http://"));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            None => break,
            Some((name, value)) => {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
    }
    let len = headers.iter().find(|(name, _)| name == "content-length");
    let len = len.map_or(0, |(_, len)| len.parse().unwrap());
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        method,
        path,
        headers,
        body,
    })
}

/// A server that tests/kms/serve.py runs; it ends when its standard input does.
pub struct Python {
    pub address: String,
    words: Vec<String>,
    child: Child,
}

impl Python {
    /// `what` as serve.py knows it. The interpreter is the one of the environment that `cargo xtask ci kms` makes.
    pub fn start(what: &str) -> Self {
        let python = env::var_os("SPRAG_KMS_PYTHON").expect("run by `cargo xtask ci kms`");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/kms/serve.py");
        let mut child = Command::new(python)
            .args([script, what])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap());
        lines.read_line(&mut line).unwrap();
        let mut words = line.split_whitespace().map(str::to_owned);
        let address = words.next().expect("it says where it is");
        assert!(address.contains("://127.0.0.1:"), "{line:?}");
        Self {
            address,
            words: words.collect(),
            child,
        }
    }

    /// What it said after its address.
    pub fn words(&self) -> Vec<String> {
        self.words.clone()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
