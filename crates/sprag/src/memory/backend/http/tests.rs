use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;

use super::super::conformance;
use super::*;

/// A server as `docs/MEMORY.md` says, on this machine, with the manners that a test asks for.
struct Server {
    address: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Answers of this status, whatever is asked.
    status: Mutex<Option<u16>>,
    /// Says this in the place of what was asked.
    instead: Mutex<Option<Vec<u8>>>,
    seen: Mutex<Vec<String>>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/blobs/", listener.local_addr().unwrap());
        let state = Arc::new(State::default());
        let served = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = served.clone();
                thread::spawn(move || while serve(&stream, &state).is_some() {});
            }
        });
        Self { address, state }
    }

    fn backend(&self) -> HttpBackend {
        HttpBackend::new(&self.address).unwrap().token("secret")
    }

    fn answer_with(&self, status: u16, body: &[u8]) {
        *self.state.status.lock().unwrap() = Some(status);
        *self.state.instead.lock().unwrap() = Some(body.to_vec());
    }
}

fn serve(stream: &TcpStream, state: &State) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut parts = line.split(' ');
    let (method, path) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let (mut length, mut chunked, mut authorised) = (0, false, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_ascii_lowercase();
        match header.split_once(": ") {
            None => break,
            Some(("content-length", value)) => length = value.parse().ok()?,
            Some(("transfer-encoding", "chunked")) => chunked = true,
            Some(("authorization", "bearer secret")) => authorised = true,
            Some(_) => {}
        }
    }
    assert!(!chunked, "blobs come with their length");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    state.seen.lock().unwrap().push(format!("{method} {path}"));
    let (mut status, mut answer) = if authorised {
        act(&method, &path, body, state)
    } else {
        (401, Vec::new())
    };
    if let Some(instead) = state.instead.lock().unwrap().clone() {
        answer = instead;
    }
    status = state.status.lock().unwrap().unwrap_or(status);
    let mut stream = stream;
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nlocation: /elsewhere\r\n\r\n",
        answer.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&answer).ok()
}

fn act(method: &str, path: &str, body: Vec<u8>, state: &State) -> (u16, Vec<u8>) {
    let mut blobs = state.blobs.lock().unwrap();
    let name = path.strip_prefix("/blobs/").unwrap();
    match (method, name.strip_prefix("?after=")) {
        ("GET", Some(after)) => {
            let names = blobs.keys().filter(|name| name.as_str() > after).take(7);
            let lines = names.map(|name| format!("{name} 1700000000000\n"));
            (200, lines.collect::<String>().into_bytes())
        }
        ("PUT", None) => {
            blobs.insert(name.to_owned(), body);
            (201, Vec::new())
        }
        ("GET", None) => match blobs.get(name) {
            Some(blob) => (200, blob.clone()),
            None => (404, Vec::new()),
        },
        ("DELETE", None) => match blobs.remove(name) {
            Some(_) => (204, Vec::new()),
            None => (404, Vec::new()),
        },
        _ => (405, Vec::new()),
    }
}

#[test]
fn http_store_keeps_what_a_backend_promises() {
    let server = Server::new();
    conformance::check(&server.backend());
    let seen = server.state.seen.lock().unwrap();
    let name = conformance::blob(0).0;
    assert!(seen.contains(&format!("PUT /blobs/{name}")));
    assert!(seen.contains(&"GET /blobs/?after=".to_owned()));
}

#[test]
fn what_a_server_answers_is_retried_later_or_not() {
    let server = Server::new();
    let backend = server.backend();
    let (name, bytes) = conformance::blob(1);
    for (status, is_retryable) in [
        (408, true),
        (429, true),
        (500, true),
        (503, true),
        (301, false),
        (400, false),
        (401, false),
        (403, false),
        (413, false),
        (507, true),
    ] {
        server.answer_with(status, b"");
        for error in [
            backend.put(&name, &bytes).err(),
            backend.get(&name).err(),
            backend.list(None).err(),
            backend.delete(&name).err(),
        ] {
            assert_eq!(error.unwrap().is_retryable(), is_retryable, "{status}");
        }
    }
    // A redirect was not followed: it would have shown the token elsewhere.
    let seen = server.state.seen.lock().unwrap();
    assert!(!seen.iter().any(|seen| seen.contains("elsewhere")));
    drop(seen);
    let stranger = HttpBackend::new(&server.address).unwrap();
    *server.state.status.lock().unwrap() = None;
    assert!(matches!(stranger.get(&name), Err(BackendError::Refused(_))));
}

#[test]
fn lists_that_contradict_themselves_are_refused() {
    let server = Server::new();
    let backend = server.backend();
    let (one, other) = ("a".repeat(64), "b".repeat(64));
    server.answer_with(200, format!("{one}\n{other} 5\n").as_bytes());
    let page = backend.list(None).unwrap();
    assert_eq!((page[0].put_at, page[1].put_at), (None, Some(5)));
    assert!(backend.list(Some(&one)).is_err());
    for wrong in [
        format!("{other}\n{one}\n"),
        format!("{one}\n{one}\n"),
        format!("{one} soon\n"),
        format!("{one} -1\n"),
        "../../etc/passwd\n".to_owned(),
        format!("{}\n", &one[1..]),
        "\n".to_owned(),
    ] {
        server.answer_with(200, wrong.as_bytes());
        assert!(
            matches!(backend.list(None), Err(BackendError::Refused(_))),
            "{wrong}"
        );
    }
    server.answer_with(200, &[0xff]);
    assert!(backend.list(None).is_err());
    server.answer_with(200, &vec![b'\n'; MAX_LIST + 1]);
    assert!(matches!(backend.list(None), Err(BackendError::Refused(_))));
}

#[test]
fn server_that_is_not_there_is_retried_later() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let backend = HttpBackend::new(&address).unwrap();
    let error = backend.get(&conformance::blob(1).0).unwrap_err();
    assert!(error.is_retryable());
    // One that hangs up in the middle as well.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 1_000]);
            let _ = stream.write_all(b"HTTP/1.1 200 x\r\ncontent-length: 10\r\n\r\nhalf");
        }
    });
    let backend = HttpBackend::new(&address).unwrap();
    let error = backend.get(&conformance::blob(1).0).unwrap_err();
    assert!(error.is_retryable());
}

#[test]
fn blobs_go_through_tls_or_stay_on_this_machine() {
    for address in [
        "https://blobs.example",
        "https://blobs.example:8443/a/b/",
        "http://[::1]:8200",
    ] {
        assert!(HttpBackend::new(address).is_ok(), "{address}");
    }
    for address in [
        "",
        "blobs.example",
        "http://blobs.example",
        "http://10.0.0.1",
        "http://localhost.example",
        "ftp://127.0.0.1",
        "https://user:secret@blobs.example",
        "https://blobs.example?x=1",
        "https://blobs.example#x",
    ] {
        assert!(HttpBackend::new(address).is_err(), "{address}");
    }
    assert!(HttpBackend::with_certificates("https://blobs.example", b"none").is_err());
    assert_eq!(
        format!("{:?}", Server::new().backend()),
        "HttpBackend { .. }"
    );
}
