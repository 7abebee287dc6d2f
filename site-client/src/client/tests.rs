use super::*;

#[test]
fn plain_http_is_for_this_machine() {
    let (network, voice) = (Network::default(), Voice { json: true, quiet: false });
    for url in
        ["http://127.0.0.1:8080", "http://localhost", "https://host.example/", "http://[::1]:1"]
    {
        assert!(Client::new(url, &network, voice).is_ok(), "{url}");
    }
    for url in ["http://host.example", "http://127.0.0.1.example", "ftp://a", "host.example"] {
        assert!(Client::new(url, &network, voice).is_err(), "{url}");
    }
}

#[test]
fn a_request_is_signed_for_the_name_and_the_path_that_the_host_sees() {
    let (network, voice) = (Network::default(), Voice { json: true, quiet: true });
    for (url, authority) in [
        ("https://Host.example:443/", "host.example"),
        ("https://host.example:8443", "host.example:8443"),
        ("http://127.0.0.1:80", "127.0.0.1"),
        ("http://127.0.0.1:443", "127.0.0.1:443"),
    ] {
        assert_eq!(Client::new(url, &network, voice).unwrap().authority, authority);
    }
    assert_eq!(target("https://host.example/a/v1/x?y=1"), "/a/v1/x?y=1");
    assert_eq!(target("https://host.example"), "/");
}
