//! What one client may take from all others: connections and time.

use axum::body::{Body, Bytes};
use hyper::body::{self as http_body, Frame, SizeHint};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

mod taken;
pub use taken::Taken;

/// The most connections of one address at a time. Loopback has no such limit:
/// behind a reverse proxy every site comes from there.
const PER_PEER: usize = 64;
/// How long any body may take.
const GRACE: Duration = Duration::from_mins(1);
/// The pace in bytes a second that a body must have beyond that: a hospital's
/// slow line, but not a byte now and then.
const SLOWEST: u64 = 16 << 10;

/// The address that stands for all that one party can have: of IPv6 the network of
/// 64 bits, which is what anybody is given.
#[must_use]
pub fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) if !six.is_loopback() => {
            Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX)).into()
        }
        other => other,
    }
}

/// Connections by address.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection's place; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    peers: Peers,
    address: Option<IpAddr>,
}

impl Peers {
    /// A place for a connection, if its address has not taken too many.
    #[must_use]
    pub fn admit(&self, address: Option<IpAddr>) -> Option<Place> {
        let address = address.map(counted).filter(|address| !address.is_loopback());
        if let Some(address) = address {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(address).or_default();
            if *count >= PER_PEER {
                return None;
            }
            *count += 1;
        }
        Some(Place { peers: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut counts = self.peers.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

/// A body that ends with an error when it is slower than it may be.
struct Paced {
    inner: Body,
    start: Instant,
    got: u64,
    alarm: Pin<Box<Sleep>>,
}

/// The same body, bounded in time.
pub fn paced(body: Body) -> Body {
    let start = Instant::now();
    Body::new(Paced { inner: body, start, got: 0, alarm: Box::pin(sleep_until(start + GRACE)) })
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            if let Some(Ok(frame)) = &frame {
                self.got += frame.data_ref().map_or(0, |data| data.len() as u64);
                let allowed =
                    GRACE + Duration::from_millis(self.got.saturating_mul(1000) / SLOWEST);
                let until = self.start + allowed;
                self.alarm.as_mut().reset(until);
            }
            return Poll::Ready(frame);
        }
        std::task::ready!(self.alarm.as_mut().poll(context));
        let (got, seconds) = (self.got, self.start.elapsed().as_secs());
        let error = format!("{got} bytes in {seconds} s, expected {SLOWEST} bytes a second");
        Poll::Ready(Some(Err(axum::Error::new(io::Error::new(io::ErrorKind::TimedOut, error)))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};

    #[test]
    fn one_address_cannot_take_every_place() {
        let peers = Peers::default();
        let stranger = Some("192.0.2.1".parse().unwrap());
        let mut places: Vec<_> = (0..PER_PEER).map(|_| peers.admit(stranger).unwrap()).collect();
        assert!(peers.admit(stranger).is_none());
        assert!(peers.admit(Some("192.0.2.2".parse().unwrap())).is_some());
        assert!(peers.admit(Some("::ffff:192.0.2.1".parse().unwrap())).is_none());
        assert!(peers.admit(Some("127.0.0.1".parse().unwrap())).is_some());
        places.pop();
        assert!(peers.admit(stranger).is_some());
        drop(places);
        assert!(peers.counts.lock().unwrap().is_empty());
    }

    #[test]
    fn a_network_of_64_bits_is_one_party() {
        let of = |text: &str| counted(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:2:ffff::1"), "2001:db8:1:2::");
        assert_ne!(of("2001:db8:1:3::1"), of("2001:db8:1:2::1"));
        assert_eq!((of("::1"), of("192.0.2.1")), ("::1".to_owned(), "192.0.2.1".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_is_given_up_and_a_steady_one_is_not() {
        let one = || stream::once(async { Ok::<_, io::Error>(Bytes::from_static(b"x")) });
        let stalled = Body::from_stream(one().chain(stream::pending()));
        let error = axum::body::to_bytes(paced(stalled), 10).await.unwrap_err();
        assert!(error.to_string().contains("expected 16384 bytes a second"), "{error}");
        let steady = Body::from_stream(one().chain(one()));
        assert_eq!(axum::body::to_bytes(paced(steady), 10).await.unwrap(), "xx");
    }
}
