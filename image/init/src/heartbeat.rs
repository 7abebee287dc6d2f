//! Telling the hypervisor that the image is up.
//!
//! Source: `init/init.c` of aws-nitro-enclaves-sdk-bootstrap: the byte 0xB7 is
//! sent to the parent (CID 3), port 9000, and comes back.

use crate::{InitError, in_time};
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use vsock::VsockStream;

const PARENT: u32 = 3;
const PORT: u32 = 9000;
const BEAT: u8 = 0xB7;
/// How long the parent may take to listen and to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends the byte and waits for it. A connection to a parent that is not there
/// may hang in the kernel, whatever its timeouts say, so all of it is bounded.
pub fn tell_the_hypervisor() -> Result<(), InitError> {
    in_time("heartbeat", "the parent to answer on vsock 3:9000 in 10 s", TIMEOUT, || {
        let mut stream = connect()?;
        exchange(&mut stream)
    })
}

fn connect() -> Result<VsockStream, InitError> {
    let start = Instant::now();
    loop {
        match VsockStream::connect_with_cid_port(PARENT, PORT) {
            Ok(stream) => return Ok(stream),
            Err(_) if start.elapsed() < TIMEOUT => std::thread::sleep(Duration::from_millis(50)),
            Err(error) => {
                let expected = "the parent to listen on vsock 3:9000";
                return Err(InitError::new("heartbeat", expected, error));
            }
        }
    }
}

fn exchange(stream: &mut (impl Read + Write)) -> Result<(), InitError> {
    stream.write_all(&[BEAT]).map_err(wrong)?;
    let mut answer = [0];
    stream.read_exact(&mut answer).map_err(wrong)?;
    if answer[0] == BEAT { Ok(()) } else { Err(wrong(format!("the byte {:#04x}", answer[0]))) }
}

fn wrong(found: impl ToString) -> InitError {
    InitError::new("heartbeat", "the byte 0xB7 back from the parent", found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn answered_with(answer: Option<u8>) -> Result<(), InitError> {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let parent = std::thread::spawn(move || {
            let mut byte = [0];
            theirs.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [0xB7]);
            if let Some(answer) = answer {
                theirs.write_all(&[answer]).unwrap();
            }
        });
        let result = exchange(&mut ours);
        parent.join().unwrap();
        result
    }

    #[test]
    fn the_beat_comes_back() {
        answered_with(Some(0xB7)).unwrap();
    }

    #[test]
    fn another_byte_or_none_is_named() {
        let other = answered_with(Some(1)).unwrap_err().to_string();
        assert!(other.contains("expected the byte 0xB7 back") && other.contains("0x01"), "{other}");
        let none = answered_with(None).unwrap_err().to_string();
        assert!(none.contains("heartbeat"), "{none}");
    }
}
