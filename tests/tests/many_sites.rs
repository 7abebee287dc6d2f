//! More sites than requests fit a socket: the enclave asks ahead of what it takes,
//! and must not ask so far ahead that it and the host wait for each other.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealed_round::SealedRound;
use sealfold_enclave::door::Parent;
use sealfold_protocol::door::{Operation, Request, Status};
use sealfold_protocol::endpoint::{Endpoint, Stream};
use sealfold_tests::study::Options;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[path = "../benches/fold/sealed_round.rs"]
mod sealed_round;

/// Two records each, and some hundred kilobytes of answers before the first is taken.
const PARAMETERS: usize = 70_000;
const SITES: usize = sealfold_protocol::terms::MAX_SITES;

type Objects = HashMap<[u8; 32], Vec<u8>>;

/// A host that answers one request after the other, as the real one does.
fn answer(mut stream: Stream, objects: &Objects) -> std::io::Result<()> {
    while let Some(request) = Request::read_from(&mut stream)? {
        let (start, length) = (usize::try_from(request.offset).unwrap(), request.length as usize);
        match request.operation {
            Operation::Read => {
                Status::Done.write_to(&mut stream)?;
                stream.write_all(&objects[&request.object][start..start + length])?;
            }
            Operation::Write => {
                stream.read_exact(&mut vec![0; length])?;
                Status::Done.write_to(&mut stream)?;
            }
            Operation::Finish => Status::Done.write_to(&mut stream)?,
        }
    }
    Ok(())
}

#[test]
fn hundreds_of_sites_are_folded_through_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::Unix(folder.path().join("door"));
    let options = Options {
        sites: SITES,
        smallest_roster: SITES,
        parameters: PARAMETERS,
        aggregation: sealfold_tests::study::MEAN.into(),
        ..Options::default()
    };
    let mut objects = Objects::new();
    let values = vec![0.5; PARAMETERS];
    let round = SealedRound::new(
        &options,
        |_| values.clone(),
        |sealed| _ = objects.insert(*sealed.header.digest().as_bytes(), sealed.bytes),
    );
    let objects = Arc::new(objects);
    let listener = endpoint.listen().unwrap();
    std::thread::spawn(move || {
        while let Ok(stream) = listener.accept() {
            let objects = objects.clone();
            std::thread::spawn(move || answer(stream, &objects));
        }
    });
    // A door that waits for the host, which waits for it, ends after a minute.
    let until = Some(Instant::now() + Duration::from_secs(50));
    let parent = Parent { endpoint: &endpoint, until };
    let members = (0..SITES).map(|site| round.admit(site, &parent, 2).unwrap()).collect();
    let folded = round.fold(&round.plan(members), &parent, 2);
    assert!(folded.is_ok(), "the fold did not come to its end");
}
