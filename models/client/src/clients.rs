//! What threads do with one client.

use std::future::Future;
use std::sync::LazyLock;

use rows::{MemoryRows, RowName, Rows};
use shuttle::sync::atomic::{AtomicU32, Ordering};
use shuttle::sync::{Arc, Condvar, Mutex};
use shuttle::{future, thread};
use sprag_wire::UserId;

use crate::client::Write;
use crate::reopen::Recipe;
use crate::store::Disk;
use crate::{Client, Error, Pending, Store, Surroundings, UpkeepSettings, sys};

/// The rows of a profile: made once, for it costs hundreds of keys.
static PROFILE: LazyLock<Arc<MemoryRows>> = LazyLock::new(|| {
    let mut rows = MemoryRows::new();
    let user = UserId::new("alice").unwrap();
    let made = Surroundings::new(sys::now, sys::rng()).create(&rows, &user);
    rows.apply(made.unwrap().1);
    Arc::new(rows)
});

/// Makes the profile of all models, where there is room for it.
pub fn prepare() {
    LazyLock::force(&PROFILE);
}

/// A row that no session knows.
fn counter() -> RowName {
    RowName::plain(0x7e, [1])
}

fn number(value: Option<impl AsRef<[u8]>>) -> u32 {
    value.map_or(0, |value| {
        u32::from_be_bytes(value.as_ref().try_into().unwrap())
    })
}

/// A client over a disk.
fn client() -> (Client, Disk) {
    let disk = Disk::new(&PROFILE);
    let surroundings = Surroundings::new(sys::now, sys::rng());
    let client = Client::with_store(Store::open(&disk), "alice", surroundings).unwrap();
    let platter = disk.clone();
    let recipe: Recipe = Arc::new(move |store: &Store| {
        let _ = store.close();
        Ok(Store::open(&platter))
    });
    (client.with_recipe(recipe), disk)
}

fn durable(disk: &Disk) -> u32 {
    number(disk.get(&counter()))
}

/// A step like those of the verbs: it counts on from what it reads, and its result is the count.
fn count(client: &Client) -> Pending<u32> {
    client.shared.step(Write::Durable, |step| {
        let next = number(step.rows.get(&counter())?) + 1;
        step.rows.put(counter(), next.to_be_bytes().to_vec());
        Ok(next)
    })
}

/// A step that only reads.
fn read(client: &Client) -> Pending<u32> {
    (client.shared).step(Write::Durable, |step| {
        Ok(number(step.rows.get(&counter())?))
    })
}

/// A result is there: what it tells must be on the disk.
fn check(disk: &Disk, result: Result<u32, Error>) -> Result<u32, Error> {
    if let Ok(count) = result {
        assert!(
            durable(disk) >= count,
            "{count} was told before it was durable"
        );
    }
    result
}

/// Counts the callbacks that ran.
#[derive(Clone, Default)]
struct Bell(Arc<(Mutex<u32>, Condvar)>);

impl Bell {
    fn ring(&self) {
        *self.0.0.lock().unwrap() += 1;
        self.0.1.notify_all();
    }

    /// One that is lost leaves everybody asleep here.
    fn wait(&self, times: u32) {
        let mut rung = self.0.0.lock().unwrap();
        while *rung < times {
            rung = self.0.1.wait(rung).unwrap();
        }
    }

    fn rung(&self) -> u32 {
        *self.0.0.lock().unwrap()
    }
}

/// Results that are waited for, awaited, and taken by callbacks, which call the client again.
pub fn results() {
    let (client, disk) = client();
    let bell = Bell::default();
    let waits = {
        let (client, disk) = (client.clone(), disk.clone());
        thread::spawn(move || {
            for _ in 0..2 {
                let count = check(&disk, count(&client).wait()).unwrap();
                assert!(check(&disk, read(&client).wait()).unwrap() >= count);
            }
        })
    };
    let awaits = {
        let (client, disk) = (client.clone(), disk.clone());
        thread::spawn(move || {
            check(&disk, future::block_on(count(&client))).unwrap();
        })
    };
    for _ in 0..2 {
        let (again, theirs, told) = (client.clone(), disk.clone(), bell.clone());
        count(&client).on_ready(move |result| {
            let first = check(&theirs, result).unwrap();
            let disk = theirs.clone();
            let bell = told.clone();
            // On the notifier, which may wait for what comes from the committer.
            assert!(check(&disk, count(&again).wait()).unwrap() > first);
            count(&again).on_ready(move |result| {
                check(&theirs, result).unwrap();
                told.ring();
            });
            bell.ring();
        });
    }
    waits.join().unwrap();
    awaits.join().unwrap();
    bell.wait(4);
    // Two that wait, one that awaits, and three of each callback.
    assert_eq!(check(&disk, read(&client).wait()).unwrap(), 9);
    client.start().close().wait().unwrap();
    assert_eq!(bell.rung(), 4, "each once");
    assert!(!disk.is_open());
}

/// Who watches hears of every change, and of the end.
pub fn watchers() {
    let (client, disk) = client();
    let bell = Bell::default();
    let watchers: Vec<_> = (0..2)
        .map(|_| {
            let (client, bell) = (client.clone(), bell.clone());
            thread::spawn(move || {
                let mut seen = 0;
                // Until what both have written is there: a wake-up that is lost leaves it asleep.
                while read(&client).wait().unwrap() < 2 {
                    let now = client.start().changed(seen).wait().unwrap();
                    assert!(now > seen);
                    seen = now;
                }
                bell.ring();
                // And from here on until the end.
                loop {
                    match client.start().changed(seen).wait() {
                        Ok(now) => seen = now,
                        Err(error) => return assert_eq!(error.code(), "closed"),
                    }
                }
            })
        })
        .collect();
    let writer = {
        let client = client.clone();
        thread::spawn(move || count(&client).wait().unwrap())
    };
    check(&disk, count(&client).wait()).unwrap();
    writer.join().unwrap();
    bell.wait(2);
    client.start().close().wait().unwrap();
    for watcher in watchers {
        watcher.join().unwrap();
    }
}

/// One change and one who waits for it: a small model, so that every order of the two comes up.
pub fn watcher() {
    let (client, disk) = client();
    let seen = client.start().changed(0).wait().unwrap();
    let watcher = {
        let client = client.clone();
        thread::spawn(move || {
            let mut seen = seen;
            while read(&client).wait().unwrap() < 1 {
                seen = client.start().changed(seen).wait().unwrap();
            }
        })
    };
    check(&disk, count(&client).wait()).unwrap();
    watcher.join().unwrap();
}

/// Two closes beside steps: whoever hears that the client is closed finds the disk let go, and each step is answered.
pub fn closes() {
    let (client, disk) = client();
    let bell = Bell::default();
    let asked = Arc::new(AtomicU32::new(0));
    let mut threads = Vec::new();
    for _ in 0..2 {
        let (client, disk) = (client.clone(), disk.clone());
        let (bell, asked) = (bell.clone(), Arc::clone(&asked));
        threads.push(thread::spawn(move || {
            asked.fetch_add(1, Ordering::SeqCst);
            let theirs = disk.clone();
            count(&client).on_ready(move |result| {
                let _ = check(&theirs, result);
                bell.ring();
            });
            match check(&disk, count(&client).wait()) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.code(), "closed"),
            }
        }));
    }
    for _ in 0..2 {
        let (client, disk) = (client.clone(), disk.clone());
        threads.push(thread::spawn(move || {
            client.start().close().wait().unwrap();
            assert!(!disk.is_open(), "closed, and still open");
            assert_eq!(count(&client).wait().unwrap_err().code(), "closed");
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    bell.wait(asked.load(Ordering::SeqCst));
}

/// A disk that fails, and a client that is opened again while others wait, write, and watch.
pub fn reopens(fails_at: u32) {
    let (client, disk) = client();
    disk.fail_at(fails_at);
    let bell = Bell::default();
    let mut threads = Vec::new();
    for _ in 0..2 {
        let (client, disk) = (client.clone(), disk.clone());
        threads.push(thread::spawn(move || {
            let (mut told, mut tries) = (0, 0);
            for _ in 0..2 {
                loop {
                    tries += 1;
                    assert!(tries < 20, "it never goes on");
                    match check(&disk, count(&client).wait()) {
                        Ok(count) => {
                            assert!(count > told, "a count was given twice");
                            told = count;
                            break;
                        }
                        Err(error) if error.is_in_doubt() => {
                            client.start().reopen().wait().unwrap();
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }));
    }
    {
        let (again, bell) = (client.clone(), bell.clone());
        // Told of the failure or of the count; may call a client that is being opened.
        count(&client).on_ready(move |_| {
            let _ = read(&again).wait();
            bell.ring();
        });
    }
    let watcher = {
        let client = client.clone();
        // It goes on over an opening, until the end.
        thread::spawn(move || {
            let mut seen = 0;
            loop {
                match client.start().changed(seen).wait() {
                    Ok(now) => seen = now,
                    Err(error) => return assert_eq!(error.code(), "closed"),
                }
            }
        })
    };
    for thread in threads {
        thread.join().unwrap();
    }
    bell.wait(1);
    let last = check(&disk, read(&client).wait());
    assert!(
        (4..=5).contains(&last.unwrap()),
        "what was told is there once"
    );
    client.start().close().wait().unwrap();
    watcher.join().unwrap();
    assert_eq!(client.start().reopen().wait().unwrap_err().code(), "closed");
}

/// Upkeep that two ask for at once, beside steps and a close: each is told, however it ends.
pub fn upkeeps(close: bool) {
    let (client, disk) = client();
    let asks: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            thread::spawn(move || {
                let kept = client.start().maintain_with(UpkeepSettings::default());
                match kept.wait() {
                    Ok(upkeep) => assert!(upkeep.renewed),
                    Err(error) => assert!(close && error.code() == "closed", "{error}"),
                }
            })
        })
        .collect();
    match check(&disk, count(&client).wait()) {
        Ok(count) => assert_eq!(count, 1),
        Err(error) => panic!("{error}"),
    }
    if close {
        client.start().close().wait().unwrap();
    }
    for ask in asks {
        ask.join().unwrap();
    }
    client.start().close().wait().unwrap();
    assert!(!disk.is_open());
}
