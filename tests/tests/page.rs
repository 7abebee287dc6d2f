//! The status page in a real browser: during a round and after one, on wide and
//! narrow screens, with a study whose name attacks the reader.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_tests::browser::Browser;
use sealfold_tests::http;
use sealfold_tests::study::Options;
use sealfold_tests::system::System;

const HOSTILE: &str = "<script>document.title='taken'</script>\"'><img src=x onerror=alert(1)>\
    <style>*{display:none}</style></section>&amp;";

/// The width and height in a PNG's header.
fn size(png: &[u8]) -> (u32, u32) {
    assert_eq!(png[..8], *b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[test]
fn people_see_where_a_round_stands_and_that_the_page_proves_nothing() {
    let system = System::start(&Options { rounds: 2, ..Options::default() });
    let (browser, url) = (Browser::new(), format!("{}/?still", system.url));
    for site in ["site-000", "site-001"] {
        let _ = system.submit(site, 1.0).good();
    }
    let document = browser.document(&url);
    let has = |document: &str, text: &str| {
        assert!(document.contains(text), "{text}: {document}");
    };
    let verify = format!("sealfold verify --host {} {}", system.url, system.id());
    for text in [
        "This page proves nothing.",
        "the enclave answers",
        &verify,
        "0 of 2 rounds released",
        "<b>Uploads</b><span>● now · 2 of 4",
        "<b>Receipts</b><span>● now · 2 of 4",
        "<b>Commits</b><span>○ not yet",
        "<th scope=\"row\">site-001</th><td data-name=\"Update\"><span class=\"good\">✓ admitted",
        "<th scope=\"row\">site-003</th><td data-name=\"Update\"><span class=\"soft\">○ not yet",
        "leaves: manifests",
        &system.log_key().to_string(),
    ] {
        has(&document, text);
    }
    // The measurements of the evidence are those of the manifest.
    let accepted = std::fs::read_to_string(system.folder.path().join("study.toml")).unwrap();
    let pcr0 = accepted.lines().find_map(|line| line.strip_prefix("pcr0 = ")).unwrap();
    let pcr0 = pcr0.trim_matches('"');
    has(&document, &format!("<dt>pcr0</dt><dd><code>{pcr0}</code></dd>"));
    // Nothing of what was uploaded: no digest of a header.
    for upload in system.round(1).uploads {
        assert!(!document.contains(&upload.header.to_string()), "{}", upload.site);
    }
    let wide = browser.picture(&url, "open-wide", (1280, 1700), &[]);
    assert_eq!(size(&wide).0, 1280);
    assert!(wide.len() > 20_000, "{}", wide.len());
    let _ = browser.picture(&url, "open-narrow", (500, 2600), &[]);
    for (site, value) in [("site-002", 4.0), ("site-003", 8.0)] {
        let _ = system.submit(site, value).good();
    }
    let _ = system.wait_for(1, "the roster", |round| round.roster_leaf.is_some());
    system.commit(&["site-000", "site-002"]);
    let document = browser.document(&url);
    has(&document, "<b>Commits</b><span>● now · 2 of 4");
    has(&document, "Waits for</strong> commits of [\"site-001\", \"site-003\"]");
    let _ = browser.picture(&url, "commits-wide", (1280, 1700), &[]);
    system.commit(&["site-001", "site-003"]);
    let released = system.wait_for(1, "the release", |round| round.release.is_some());
    let release = sealfold_protocol::offer::Offer::open(&released.offer.unwrap().0).unwrap();
    let release = sealfold_protocol::Signed::<sealfold_protocol::release::Release>::open(
        &released.release.unwrap().0,
        &release.statement().instance_key,
    );
    let document = browser.document(&url);
    has(&document, "1 of 2 rounds released");
    has(&document, &release.unwrap().digest().to_string());
    has(&document, "site-000, site-001, site-002, site-003");
    let _ = browser.picture(&url, "released-wide", (1280, 1900), &[]);
    let _ = browser.picture(&url, "released-narrow", (500, 3000), &[]);
    let dark = ["--blink-settings=preferredColorScheme=0"];
    let _ = browser.picture(&url, "released-dark", (1280, 1900), &dark);
    // It refreshes itself, unless it is asked not to.
    assert!(!document.contains("http-equiv=\"refresh\""));
    has(&browser.document(&system.url), "<meta http-equiv=\"refresh\" content=\"10\">");
}

#[test]
fn a_studys_name_is_text_and_the_browser_may_run_nothing() {
    let system = System::start(&Options::default());
    let text = std::fs::read_to_string(system.folder.path().join("study.toml")).unwrap();
    let name = serde_json::to_string(HOSTILE).unwrap();
    let hostile = system.folder.path().join("hostile.toml");
    std::fs::write(&hostile, text.replace("name = \"test\"", &format!("name = {name}"))).unwrap();
    let fixed = ["study", "approve", hostile.to_str().unwrap(), "--host", &system.url, "--yes"];
    let _ = system.sealfold("site-000", &fixed).good();
    let reply = http::send(&system.endpoint(), "GET", "/?still", &[], b"").unwrap();
    let policy = reply.field("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(reply.field("x-content-type-options"), Some("nosniff"));
    let html = String::from_utf8(reply.body).unwrap();
    assert!(html.contains("&lt;script&gt;document.title=&#39;taken&#39;&lt;/script&gt;"), "{html}");
    assert!(!html.contains("<script") && !html.contains("<img"));
    let document = Browser::new().document(&format!("{}/?still", system.url));
    assert!(document.contains("<title>sealfold host</title>"), "{document}");
    assert_eq!(document.matches("<style").count(), 1, "{document}");
    assert!(document.contains("approvals: 1 of"), "{document}");
    let _ = Browser::new().picture(&format!("{}/?still", system.url), "hostile", (1280, 2600), &[]);
}
