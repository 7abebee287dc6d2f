//! The API document: what it says is what the host does, for every operation,
//! down to the last field of bodies and replies.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_attestation::log::note::KeyKind;
use sealfold_attestation::log::{NoteSigner, SignedCheckpoint};
use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::access::Role;
use sealfold_protocol::api::UPLOAD_OFFSET;
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::release::Release;
use sealfold_protocol::report::ModelReport;
use sealfold_protocol::roster::Roster;
use sealfold_protocol::{Digest, MultiSigned, Signed};
use sealfold_tests::http;
use sealfold_tests::study::{BEYOND, Options};
use sealfold_tests::system::{System, operator};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// A host, its document, and what was asked of it so far.
struct Api {
    system: System,
    document: Value,
    /// The operations that succeeded.
    done: RefCell<BTreeSet<(String, String)>>,
    /// The site that signs.
    site: Cell<usize>,
}

/// A body of a request.
enum Body<'a> {
    None,
    Json(&'a Value),
    Bytes(&'a [u8]),
}

impl Api {
    fn start() -> Self {
        let system = System::start(&Options::default());
        let document = serde_json::from_slice(&system.get("/v1/openapi.json").body).unwrap();
        Self { system, document, done: RefCell::default(), site: Cell::new(0) }
    }

    fn operations(&self) -> BTreeSet<(String, String)> {
        let paths = self.document["paths"].as_object().unwrap();
        paths
            .iter()
            .flat_map(|(path, operations)| {
                let methods = operations.as_object().unwrap().keys();
                methods.map(|method| (method.to_uppercase(), path.clone()))
            })
            .collect()
    }

    /// Puts a request and expects body and reply to be as documented.
    fn ask(&self, method: &str, path: &str, header: &str, body: &Body) -> (u16, Value) {
        let filled = path
            .replace("{study}", &self.system.id())
            .replace("{manifest}", &self.system.id())
            .replace("{round}", "1")
            .replace("{tile}", "0/000.p/1")
            .replace("{digest}", header)
            .replace("{witness}", header)
            .replace("{header}", header);
        let operation = &self.document["paths"][path][method.to_lowercase()];
        let mut headers = vec![(UPLOAD_OFFSET, "0")];
        let bytes = match body {
            Body::None => Vec::new(),
            Body::Json(json) => {
                headers.push(("content-type", "application/json"));
                serde_json::to_vec(json).unwrap()
            }
            Body::Bytes(bytes) => bytes.to_vec(),
        };
        let documented = &operation["requestBody"]["content"];
        match body {
            Body::None => assert!(operation["requestBody"].is_null(), "{method} {path}"),
            Body::Json(json) => self.expect(&documented["application/json"]["schema"], json, path),
            Body::Bytes(_) => assert!(documented["application/octet-stream"].is_object(), "{path}"),
        }
        // Without a signature it is refused if the document asks for one.
        let security = operation["security"].as_array().unwrap();
        let endpoint = self.system.endpoint();
        let bare = http::send(&endpoint, method, &filled, &headers, &bytes).unwrap();
        assert_eq!(bare.status == 401, !security.is_empty(), "{method} {path}: {}", bare.status);
        if bare.status == 401 {
            assert_eq!(bare.check(), "access");
            assert!(bare.field("accept-signature").is_some_and(|f| f.contains("@method")));
        }
        let reply = match security.iter().find_map(|scheme| scheme.as_object()?.keys().next()) {
            None => bare,
            Some(scheme) if scheme == "operator" => {
                let signer = (&operator(), Role::Operator);
                http::send_as(signer, &endpoint, method, &filled, &headers, &bytes).unwrap()
            }
            Some(_) => {
                let site = &self.system.study.sites[self.site.get()];
                self.system.send_as(site, method, &filled, &headers, &bytes)
            }
        };
        let which = if reply.status < 300 { "2XX" } else { "default" };
        let content = operation["responses"][which]["content"].as_object().unwrap();
        let value = match content.get("application/json") {
            Some(json) => {
                let value = serde_json::from_slice(&reply.body).unwrap();
                self.expect(&json["schema"], &value, path);
                value
            }
            None => Value::Null,
        };
        assert_eq!(content.is_empty(), reply.status == 204, "{method} {path}: {}", reply.status);
        if reply.status < 300 {
            self.done.borrow_mut().insert((method.to_owned(), path.to_owned()));
        }
        (reply.status, value)
    }

    /// As [`Self::ask`], and it succeeds.
    fn good(&self, method: &str, path: &str, header: &str, body: &Body) -> Value {
        let (status, value) = self.ask(method, path, header, body);
        assert!(status < 300, "{method} {path}: {status} {value}");
        value
    }

    fn expect(&self, schema: &Value, value: &Value, place: &str) {
        if let Err(wrong) = self.check(schema, value, place) {
            panic!("{wrong}\nin {value}\nof {schema}");
        }
    }

    /// Compares a value with a schema, of the words that the document uses.
    fn check(&self, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{place}: expected {what}, found {value}"));
        let known = [
            "$ref",
            "anyOf",
            "type",
            "items",
            "properties",
            "required",
            "enum",
            "pattern",
            "contentEncoding",
            "description",
        ];
        let words = schema.as_object().ok_or_else(|| format!("{place}: no schema, {schema}"))?;
        assert!(words.keys().all(|word| known.contains(&word.as_str())), "{schema}");
        assert!(
            ["$ref", "anyOf", "type", "enum"].iter().any(|word| words.contains_key(*word)),
            "{place}: a schema that says nothing: {schema}"
        );
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.rsplit('/').next().unwrap();
            return self.check(&self.document["components"]["schemas"][name], value, place);
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            let all: Vec<_> = choices.iter().map(|c| self.check(c, value, place)).collect();
            let fits = all.iter().any(Result::is_ok);
            return if fits { Ok(()) } else { Err(format!("{place}: none fits: {all:?}")) };
        }
        if let Some(values) = schema["enum"].as_array()
            && !values.contains(value)
        {
            return wrong("a listed value");
        }
        match schema["type"].as_str() {
            Some("null") if !value.is_null() => return wrong("null"),
            Some("boolean") if !value.is_boolean() => return wrong("a boolean"),
            Some("integer") if !value.is_u64() => return wrong("an integer"),
            Some("string") => {
                let Some(text) = value.as_str() else { return wrong("a string") };
                let is_hex = text.len() == 64
                    && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                if schema["pattern"].is_string() && !is_hex {
                    return wrong("64 hex digits");
                }
                let is_base64 = serde_json::from_value::<Envelope>(value.clone()).is_ok();
                if schema["contentEncoding"].is_string() && !is_base64 {
                    return wrong("base64");
                }
            }
            Some("array") => {
                let Some(items) = value.as_array() else { return wrong("an array") };
                for (i, item) in items.iter().enumerate() {
                    self.check(&schema["items"], item, &format!("{place}[{i}]"))?;
                }
            }
            Some("object") => {
                let Some(fields) = value.as_object() else { return wrong("an object") };
                for field in schema["required"].as_array().into_iter().flatten() {
                    if !fields.contains_key(field.as_str().unwrap()) {
                        return wrong(&format!("a field {field}"));
                    }
                }
                let Some(properties) = schema["properties"].as_object() else { return Ok(()) };
                for (name, field) in fields {
                    let Some(schema) = properties.get(name) else {
                        return wrong(&format!("no field {name}"));
                    };
                    self.check(schema, field, &format!("{place}.{name}"))?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn envelope(bytes: &[u8]) -> Value {
    json!({ "envelope": Envelope(bytes.to_vec()) })
}

#[test]
fn the_paths_of_the_document_are_those_of_the_server_and_of_the_protocol_page() {
    let api = Api::start();
    assert_eq!(api.document["openapi"], "3.1.0");
    let operations = api.operations();
    let paths: BTreeSet<_> = operations.iter().map(|(_, path)| path.clone()).collect();
    for path in &paths {
        let filled = path
            .replace("{study}", &api.system.id())
            .replace("{manifest}", &api.system.id())
            .replace("{round}", "1")
            .replace("{tile}", "0/000.p/1")
            .replace("{digest}", &"00".repeat(32))
            .replace("{witness}", "00000000")
            .replace("{header}", &"00".repeat(32));
        for method in METHODS {
            let site = &api.system.study.sites[0];
            let reply = api.system.send_as(site, method, &filled, &[], b"");
            let text = String::from_utf8_lossy(&reply.body).into_owned();
            let is_unknown = text.contains("a method of /v1/openapi.json")
                || text.contains("a path of /v1/openapi.json");
            let is_listed = operations.contains(&(method.to_owned(), path.clone()));
            assert_eq!(is_unknown, !is_listed, "{method} {filled}: {text}");
        }
    }
    let odd = api.system.get("/v1/no/such/path");
    assert_eq!(odd.status, 404);
    assert_eq!(serde_json::from_slice::<Value>(&odd.body).unwrap()["check"], "not-found");
    // The table of the protocol's page: "| GET, PUT /path | ...".
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, table) = page.split_once("### Host (reached by sites)").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let mut described = BTreeSet::new();
    for row in table.lines().filter_map(|line| line.strip_prefix("| ")) {
        let row = row.split(" |").next().unwrap();
        let Some((methods, path)) = row.rsplit_once(' ').filter(|(_, p)| p.starts_with('/')) else {
            continue;
        };
        for method in methods.split(", ") {
            described.insert((method.to_owned(), path.replace("{r}", "{round}")));
        }
    }
    assert_eq!(described, operations);
}

#[test]
fn bodies_and_replies_are_as_documented_through_a_whole_round() {
    let api = Api::start();
    let (rounds, none) = ("/v1/studies/{study}/rounds/{round}", "00".repeat(32));
    let get = |path: &str| api.good("GET", path, &none, &Body::None);
    let post = |path: &str, body: &Value| api.good("POST", path, &none, &Body::Json(body));
    let sites = &api.system.study.sites;
    post("/v1/studies", &envelope(&api.system.study.manifest.envelope().unwrap()));
    assert_eq!(get("/v1/studies").as_array().unwrap().len(), 1);
    post("/v1/operator/studies", &json!({ "study": api.system.id() }));
    for path in ["/", "/v1/health", "/v1/openapi.json", "/v1/studies/{study}"] {
        get(path);
    }
    get("/v1/studies/{study}/manifests/{manifest}");
    get("/v1/studies/{study}/model");
    api.good("PUT", "/v1/studies/{study}/model", &none, &Body::Bytes(&[0; 4000]));
    let offer = api.system.round(1).offer.unwrap();
    let offer = Offer::open(&offer.0).unwrap();
    let (study, instance) = (api.system.study.id(), offer.statement().instance_key);
    post(&format!("{rounds}/evidence"), &json!({ "nonce": none }));
    get(&format!("{rounds}/evidence"));
    let abandonment =
        Abandonment { study, round: 1, offer: offer.digest(), reason: "a test".to_owned() };
    let abandonment = MultiSigned::sign(abandonment, &sites[0].key).unwrap();
    post(&format!("{rounds}/abandonments"), &envelope(&abandonment.envelope().unwrap()));

    let terms = api.system.study.terms().clone();
    let mut headers = Vec::new();
    for (place, (site, value)) in sites.iter().zip([1.0, 2.0, 4.0, BEYOND]).enumerate() {
        api.site.set(place);
        let update = site.seal(&offer, &terms, &[value; 1000]);
        let header = update.header.digest();
        post(&format!("{rounds}/updates"), &envelope(update.header.envelope()));
        api.good("PATCH", "/v1/uploads/{header}", &header.to_string(), &Body::Bytes(&update.bytes));
        headers.push(header);
    }
    // Three are admitted, and the fourth is refused until it is sealed anew.
    let settled = |want: usize| {
        api.system.wait_for(1, "admissions", |round| {
            let state = |u: &sealfold_protocol::api::UploadStatus| json!(u.state).is_object();
            round.uploads.iter().filter(|u| state(u)).count() == want
        })
    };
    let _ = settled(4);
    for (place, header) in headers.iter().enumerate() {
        api.site.set(place);
        api.good("GET", "/v1/uploads/{header}", &header.to_string(), &Body::None);
    }
    let open = get(rounds);
    assert!(open["uploads"].to_string().contains("\"norm-limit\""), "{open}");
    let update = sites[3].seal(&offer, &terms, &[8.0; 1000]);
    headers[3] = update.header.digest();
    post(&format!("{rounds}/updates"), &envelope(update.header.envelope()));
    let name = headers[3].to_string();
    api.good("PATCH", "/v1/uploads/{header}", &name, &Body::Bytes(&update.bytes));
    let round = api.system.wait_for(1, "a roster", |round| round.roster_leaf.is_some());
    let checkpoint = api.system.roster_checkpoint(&round);
    let roster = Signed::<Roster>::open(&round.roster.unwrap().0, &instance).unwrap();
    for (place, (site, header)) in sites.iter().zip(&headers).enumerate() {
        api.site.set(place);
        get("/v1/studies/{study}/round");
        let commit = site.commit_at(&roster, *header, checkpoint);
        post(&format!("{rounds}/commits"), &envelope(commit.envelope()));
    }
    let release = api.system.wait_for(1, "the release", |round| round.release.is_some()).release;
    let release = Signed::<Release>::open(&release.unwrap().0, &instance).unwrap();
    let report = ModelReport {
        study,
        round: 1,
        release: release.digest(),
        site: sites[0].name.clone(),
        model: Digest::new([1; 32]),
    };
    let report = Signed::sign(report, &sites[0].key).unwrap();
    api.site.set(0);
    post(&format!("{rounds}/models"), &envelope(report.envelope()));
    get(&format!("{rounds}/aggregate"));
    get(rounds);
    get("/log/checkpoint");
    get("/log/tile/{tile}");
    let site = &api.system.study.sites[0];
    let witness =
        NoteSigner::from_seed(&site.name, KeyKind::CosignatureV1, &site.key.seed()).unwrap();
    let checkpoint = api.system.get("/log/checkpoint").body;
    let mut signed = SignedCheckpoint::open(&checkpoint, &api.system.log_key()).unwrap();
    signed.cosign(&witness, 1_800_000_000).unwrap();
    api.good("POST", "/log/cosignatures", &none, &Body::Bytes(&signed.to_bytes()));
    let id = hex::encode(witness.key().digest());
    api.good("GET", "/log/cosigned/{witness}", &id, &Body::None);
    let manifest = Digest::of(&[&api.system.study.manifest.envelope().unwrap()]).to_string();
    api.good("GET", "/log/objects/{digest}", &manifest, &Body::None);
    // Every operation has been seen to succeed as it is documented.
    assert_eq!(*api.done.borrow(), api.operations());
    // And refused, each as documented too.
    let with_body = |(_, path): &(String, String)| {
        !path.ends_with("/evidence") && !path.starts_with("/v1/operator/")
    };
    for (method, path) in api.operations().into_iter().filter(with_body) {
        let body = &api.document["paths"][&path][method.to_lowercase()]["requestBody"]["content"];
        let (status, _) = match (&body["application/json"], &body["application/octet-stream"]) {
            (Value::Object(_), _) => api.ask(&method, &path, &none, &Body::Json(&envelope(b""))),
            (_, Value::Object(_)) => api.ask(&method, &path, &none, &Body::Bytes(&[1; 5000])),
            _ => continue,
        };
        assert!(status >= 400, "{method} {path}: {status}");
    }
}
