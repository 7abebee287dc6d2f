use super::*;

#[test]
fn uris_come_back_as_they_are_written() {
    for uri in [
        "tcp://127.0.0.1:8443",
        "tcp://[::1]:80",
        "tcp://host.example:443",
        "unix:///run/sealfold/enclave.sock",
        "vsock://16:5000",
        "hybrid-vsock:///tmp/vm.sock:5000",
    ] {
        assert_eq!(uri.parse::<Endpoint>().unwrap().to_string(), uri);
    }
    for wrong in [
        "",
        "tcp://",
        "tcp://:1",
        "tcp://a:70000",
        "unix://relative",
        "vsock://x:1",
        "hybrid-vsock:///p",
        "http://a:1",
        "vsock://1",
    ] {
        assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
    }
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let path = std::env::temp_dir().join(format!("sealfold-endpoint-{}", std::process::id()));
    let endpoint = Endpoint::Unix(path.clone());
    drop(endpoint.listen().unwrap());
    let live = endpoint.listen().unwrap();
    assert!(endpoint.listen().is_err());
    drop(live);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "not a socket").unwrap();
    assert!(endpoint.listen().is_err());
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_hybrid_endpoint_asks_for_the_guest_port() {
    let path = std::env::temp_dir().join(format!("sealfold-hybrid-{}", std::process::id()));
    let monitor = listen_unix(&path).unwrap();
    let endpoint = Endpoint::HybridVsock { path: path.clone(), port: 5000 };
    let guest = std::thread::spawn(move || {
        let (mut stream, _) = monitor.accept().unwrap();
        let mut line = [0; 13];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(b"OK 1073741824\nhello").unwrap();
        line
    });
    let mut stream = endpoint.connect().unwrap();
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    assert_eq!(&guest.join().unwrap(), b"CONNECT 5000\n");
    std::fs::remove_file(&path).unwrap();
}
