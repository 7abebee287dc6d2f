//! Where a part listens or is reached: one URI for every transport.
//!
//! - `tcp://HOST:PORT`
//! - `unix:///PATH`
//! - `vsock://CID:PORT`, the socket between an enclave and its parent
//! - `hybrid-vsock:///PATH:PORT`, the Unix socket that a virtual machine
//!   monitor (Firecracker, vhost-device-vsock) puts before a guest's vsock: one
//!   connects to PATH and asks for the guest's port in a line; connections that
//!   the guest makes to its parent arrive at `PATH_PORT`.
//!
//! Streams exist in two kinds: blocking ones for the record door, whose
//! readers are threads that do nothing else, and asynchronous ones for HTTP.

use crate::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_io_timeout::TimeoutStream;
use vsock::{VsockListener, VsockStream};

/// Large writes from a guest have stalled or been corrupted on some kernels
/// (base/base#1444), so a write to a vsock is this long at most.
const VSOCK_WRITE: usize = 16 << 10;
/// The longest answer of a virtual machine monitor to `CONNECT`.
const HYBRID_ANSWER: usize = 64;
/// How long a connection may take to establish.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer may leave unread what is written to it.
pub const UNREAD: Duration = Duration::from_mins(1);

/// Where a part listens or is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP address; the host may be a name.
    Tcp(String),
    /// A Unix domain socket.
    Unix(PathBuf),
    /// A vsock address.
    Vsock {
        /// The context identifier.
        cid: u32,
        /// The port.
        port: u32,
    },
    /// A virtual machine monitor's Unix socket and a port of its guest.
    HybridVsock {
        /// The monitor's socket.
        path: PathBuf,
        /// The guest's port.
        port: u32,
    },
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::Endpoint { found: text.chars().take(200).collect() };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let port_of = |rest: &str| -> Result<(String, u32)> {
            let (before, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
            Ok((before.to_owned(), port.parse().map_err(|_| wrong())?))
        };
        match scheme {
            "tcp" => {
                let (host, port) = port_of(rest)?;
                if host.is_empty() || u16::try_from(port).is_err() {
                    return Err(wrong());
                }
                Ok(Self::Tcp(rest.to_owned()))
            }
            "unix" if rest.starts_with('/') => Ok(Self::Unix(PathBuf::from(rest))),
            "vsock" => {
                let (cid, port) = port_of(rest)?;
                Ok(Self::Vsock { cid: cid.parse().map_err(|_| wrong())?, port })
            }
            "hybrid-vsock" if rest.starts_with('/') => {
                let (path, port) = port_of(rest)?;
                Ok(Self::HybridVsock { path: PathBuf::from(path), port })
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Vsock { cid, port } => write!(f, "vsock://{cid}:{port}"),
            Self::HybridVsock { path, port } => {
                write!(f, "hybrid-vsock://{}:{port}", path.display())
            }
        }
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Endpoint {
    /// Connects, blocking.
    ///
    /// # Errors
    /// As the system gives them; a refusal of the virtual machine monitor is
    /// [`io::ErrorKind::ConnectionRefused`].
    pub fn connect(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(address) => {
                let stream = connect_tcp(address)?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
            Self::Vsock { cid, port } => {
                VsockStream::connect_with_cid_port(*cid, *port).map(Stream::Vsock)
            }
            Self::HybridVsock { path, port } => connect_hybrid(path, *port).map(Stream::Unix),
        }
    }

    /// Listens, blocking. A Unix socket that nobody listens on any more is
    /// replaced. On a hybrid endpoint this is the parent's side, `PATH_PORT`.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn listen(&self) -> io::Result<Listener> {
        match self {
            Self::Tcp(address) => TcpListener::bind(address).map(Listener::Tcp),
            Self::Unix(path) => listen_unix(path).map(Listener::Unix),
            Self::Vsock { cid, port } => {
                VsockListener::bind_with_cid_port(*cid, *port).map(Listener::Vsock)
            }
            Self::HybridVsock { path, port } => {
                let mut name = path.clone().into_os_string();
                name.push(format!("_{port}"));
                listen_unix(Path::new(&name)).map(Listener::Unix)
            }
        }
    }

    /// Connects for HTTP.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub async fn connect_async(&self) -> io::Result<AsyncStream> {
        let endpoint = self.clone();
        let stream = tokio::task::spawn_blocking(move || endpoint.connect()).await??;
        stream.into_async()
    }

    /// Listens for HTTP.
    ///
    /// # Errors
    /// As [`Endpoint::listen`].
    pub fn listen_async(&self) -> io::Result<AsyncListener> {
        match self.listen()? {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener).map(AsyncListener::Tcp)
            }
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                tokio::net::UnixListener::from_std(listener).map(AsyncListener::Unix)
            }
            Listener::Vsock(listener) => {
                drop(listener);
                let Self::Vsock { cid, port } = *self else { unreachable!("a vsock listener") };
                let address = tokio_vsock::VsockAddr::new(cid, port);
                tokio_vsock::VsockListener::bind(address).map(AsyncListener::Vsock)
            }
        }
    }
}

/// A blocking connection.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket, a virtual machine monitor's included.
    Unix(UnixStream),
    /// Over vsock.
    Vsock(VsockStream),
}

impl Stream {
    /// Limits how long a read or a write may block.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.set_read_timeout(timeout).and(s.set_write_timeout(timeout)),
            Self::Unix(s) => s.set_read_timeout(timeout).and(s.set_write_timeout(timeout)),
            Self::Vsock(s) => s.set_read_timeout(timeout).and(s.set_write_timeout(timeout)),
        }
    }

    fn into_async(self) -> io::Result<AsyncStream> {
        Ok(match self {
            Self::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Box::new(tokio::net::TcpStream::from_std(stream)?)
            }
            Self::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Box::new(tokio::net::UnixStream::from_std(stream)?)
            }
            Self::Vsock(stream) => {
                stream.set_nonblocking(true)?;
                Box::new(tokio_vsock::VsockStream::new(stream)?)
            }
        })
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::Vsock(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buffer),
            Self::Unix(stream) => stream.write(buffer),
            Self::Vsock(stream) => stream.write(&buffer[..buffer.len().min(VSOCK_WRITE)]),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blocking listener.
#[derive(Debug)]
pub enum Listener {
    /// On TCP.
    Tcp(TcpListener),
    /// On a Unix socket.
    Unix(UnixListener),
    /// On vsock.
    Vsock(VsockListener),
}

impl Listener {
    /// Waits for a connection.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
            Self::Unix(listener) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
            Self::Vsock(listener) => listener.accept().map(|(stream, _)| Stream::Vsock(stream)),
        }
    }
}

/// What an asynchronous connection can do.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// An asynchronous connection.
pub type AsyncStream = Box<dyn Duplex>;

/// An asynchronous listener.
#[derive(Debug)]
pub enum AsyncListener {
    /// On TCP.
    Tcp(tokio::net::TcpListener),
    /// On a Unix socket.
    Unix(tokio::net::UnixListener),
    /// On vsock.
    Vsock(tokio_vsock::VsockListener),
}

impl AsyncListener {
    /// Waits for a connection; with its peer's address on TCP. A peer that
    /// does not read what is written to it for [`UNREAD`] loses the connection.
    ///
    /// # Errors
    /// As the system gives them.
    pub async fn accept(&self) -> io::Result<(AsyncStream, Option<IpAddr>)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                (read_in_time(stream), Some(peer.ip()))
            }
            Self::Unix(listener) => (read_in_time(listener.accept().await?.0), None),
            Self::Vsock(listener) => (read_in_time(listener.accept().await?.0), None),
        })
    }

    /// Where it listens: the endpoint that was asked for, with the TCP port
    /// that the system chose if that was 0.
    #[must_use]
    pub fn place(&self, asked: &Endpoint) -> Endpoint {
        match (self, asked) {
            (Self::Tcp(listener), Endpoint::Tcp(address)) => {
                let host = address.rsplit_once(':').map_or("", |(host, _)| host);
                let port = listener.local_addr().map(|address| address.port());
                Endpoint::Tcp(port.map_or(address.clone(), |port| format!("{host}:{port}")))
            }
            _ => asked.clone(),
        }
    }
}

fn read_in_time(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> AsyncStream {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(UNREAD));
    Box::new(Box::pin(stream))
}

fn connect_tcp(address: &str) -> io::Result<TcpStream> {
    use std::net::ToSocketAddrs;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect_hybrid(path: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    // One byte at a time: what follows the line is the guest's.
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\n") && answer.len() < HYBRID_ANSWER {
        if stream.read(&mut byte)? == 0 {
            break;
        }
        answer.push(byte[0]);
    }
    if !answer.starts_with(b"OK ") {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            format!("the guest does not listen on port {port}"),
        ));
    }
    stream.set_read_timeout(None)?;
    Ok(stream)
}

/// Listens on a path, taking the place of a socket whose owner is gone.
fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let is_socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
            if !is_socket || UnixStream::connect(path).is_ok() {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
