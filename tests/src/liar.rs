//! A host that lies to a site: it stands between the real site client and the
//! real host, passes every request on as it came, and changes what it likes of
//! the replies.

use sealfold_protocol::endpoint::{Endpoint, Stream};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A request on its way to the host.
pub struct Asked {
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// Its body.
    pub body: Vec<u8>,
}

/// Changes the body of a reply; whether it did.
pub type Lie = Box<dyn Fn(&Asked, &mut Vec<u8>) -> bool + Send + Sync>;

/// The lying host.
pub struct Liar {
    /// Its URL.
    pub url: String,
    lies: Arc<AtomicUsize>,
}

impl Liar {
    /// Stands in front of a host.
    #[must_use]
    pub fn before(
        host: &Endpoint,
        lie: impl Fn(&Asked, &mut Vec<u8>) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (lies, lie): (Arc<AtomicUsize>, Arc<Lie>) = (Arc::default(), Arc::new(Box::new(lie)));
        let (told, host) = (lies.clone(), host.clone());
        std::thread::spawn(move || {
            for site in listener.incoming().flatten() {
                let (host, lie, told) = (host.clone(), lie.clone(), told.clone());
                std::thread::spawn(move || pass(site, &host, &lie, &told));
            }
        });
        Self { url, lies }
    }

    /// How often it has lied.
    #[must_use]
    pub fn lies(&self) -> usize {
        self.lies.load(Ordering::Relaxed)
    }
}

/// Reads a head and as much of a body as it announces.
fn read(stream: &mut impl Read) -> Option<(String, Vec<u8>)> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// A head whose connection ends with its message, of a body of that length.
fn closing(head: &str, length: usize) -> String {
    let kept = head.trim_end().lines().filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        !["connection", "content-length", "transfer-encoding"]
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other))
    });
    let kept: Vec<_> = kept.collect();
    format!("{}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n", kept.join("\r\n"))
}

fn pass(mut site: TcpStream, host: &Endpoint, lie: &Lie, told: &AtomicUsize) {
    let Some((head, body)) = read(&mut site) else { return };
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let mut behind: Stream = host.connect().unwrap();
    behind.write_all(closing(&head, body.len()).as_bytes()).unwrap();
    behind.write_all(&body).unwrap();
    let Some((head, mut reply)) = read(&mut behind) else { return };
    if lie(&Asked { method, path, body }, &mut reply) {
        told.fetch_add(1, Ordering::Relaxed);
    }
    let _ = site.write_all(closing(&head, reply.len()).as_bytes());
    let _ = site.write_all(&reply);
}
