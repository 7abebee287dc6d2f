//! The OpenAPI document, made from the table of operations.

use crate::access::guard::Access;
use crate::routes::OPERATIONS;
use serde_json::{Map, Value, json};

/// The document.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let parameters: Vec<_> = operation
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| {
                let kind = if name == "round" { "integer" } else { "string" };
                json!({ "name": name, "in": "path", "required": true, "schema": { "type": kind } })
            })
            .collect();
        let mut described = json!({
            "summary": operation.summary,
            "parameters": parameters,
            "security": security(operation.access),
            "responses": {
                "429": {
                    "description": "more than one party may take; wait as retry-after says",
                    "headers": { "Retry-After": { "schema": { "type": "integer" } } },
                    "content": content("Refusal"),
                },
                "2XX": { "description": operation.reply, "content": content(operation.reply) },
                "default": {
                    "description": "a refusal: check, expected, found, next",
                    "content": content("Refusal"),
                },
            },
        });
        if !operation.body.is_empty() {
            described["requestBody"] =
                json!({ "required": true, "content": content(operation.body) });
        }
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described;
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "sealfold host", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": schemas(), "securitySchemes": schemes() },
    })
}

/// Whose signature an operation asks for; none of it for everybody.
fn security(access: Access) -> Value {
    match access {
        Access::Anyone => json!([]),
        Access::Signer | Access::Witness | Access::Site => json!([{ "party": [] }]),
        Access::Party => json!([{ "party": [] }, { "operator": [] }]),
        Access::Operator => json!([{ "operator": [] }]),
    }
}

fn schemes() -> Value {
    let scheme = |who: &str, tag: &str| {
        json!({
            "type": "apiKey",
            "in": "header",
            "name": "Signature",
            "description": format!(
                "An HTTP message signature (RFC 9421) by {who}, tag {tag}; docs/protocol.md, \
                 Signed requests"
            ),
        })
    };
    json!({
        "party": scheme("a site, an approver or a witness", "sealfold/v1/party"),
        "operator": scheme("the operator", "sealfold/v1/operator"),
    })
}

fn content(name: &str) -> Value {
    match name {
        "bytes" => json!({ "application/octet-stream": {} }),
        "204" => json!({}),
        text if text.starts_with("text/") => json!({ text: { "schema": { "type": "string" } } }),
        "{}" | "OpenAPI 3.1" => json!({ "application/json": { "schema": { "type": "object" } } }),
        list if list.starts_with('[') => {
            let item = reference(list.trim_matches(['[', ']']));
            json!({ "application/json": { "schema": { "type": "array", "items": item } } })
        }
        name => json!({ "application/json": { "schema": reference(name) } }),
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn schemas() -> Value {
    let string = json!({ "type": "string" });
    let integer = json!({ "type": "integer" });
    let envelope =
        json!({ "type": "string", "contentEncoding": "base64", "description": "a COSE envelope" });
    let hex = json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" });
    let optional = |schema: &Value| json!({ "anyOf": [schema, { "type": "null" }] });
    let list = |schema: &Value| json!({ "type": "array", "items": schema });
    let object = |fields: Value, required: &[&str]| json!({ "type": "object", "properties": fields, "required": required });
    let phase = json!({ "enum": ["idle", "open", "rostered", "released", "closed"] });
    let state = json!({ "anyOf": [
        { "enum": ["receiving", "stored"] },
        object(json!({ "admitted": envelope }), &["admitted"]),
        object(json!({ "refused": reference("Refusal") }), &["refused"]),
    ] });
    json!({
        "EnvelopeBody": object(json!({ "envelope": envelope }), &["envelope"]),
        "Introduction": object(json!({ "study": hex }), &["study"]),
        "EvidenceRequest": object(json!({ "nonce": hex }), &["nonce"]),
        "EvidenceReply": object(
            json!({ "platform": string, "offer": hex, "nonce": hex, "document": envelope }),
            &["platform", "offer", "nonce", "document"],
        ),
        "Health": object(
            json!({ "status": string, "version": string, "enclave": { "type": "boolean" } }),
            &["status", "version", "enclave"],
        ),
        "StudyStatus": object(
            json!({
                "study": hex, "name": string, "manifests": list(&envelope),
                "pending": list(&object(
                    json!({ "manifest": hex, "signers": list(&hex) }), &["manifest", "signers"],
                )),
                "active": { "type": "boolean" }, "missing": list(&string),
                "rounds_done": integer, "rounds": {
                    "type": "integer",
                    "description": "the number of the last round: the training rounds, and one \
                        that measures the last model if the manifest has channels",
                },
            }),
            &["study", "name", "manifests", "pending", "active", "missing", "rounds_done", "rounds"],
        ),
        "RoundStatus": object(
            json!({
                "round": integer, "phase": phase, "offer": optional(&envelope),
                "uploaded": list(&string), "uploads": list(&reference("UploadStatus")), "roster": optional(&envelope),
                "roster_leaf": optional(&integer),
                "commits": list(&envelope), "release": optional(&envelope),
                "abandonments": list(&envelope), "waiting_for": string,
            }),
            &["round", "phase", "uploaded", "uploads", "commits", "abandonments", "waiting_for"],
        ),
        "UploadStatus": object(
            json!({
                "site": string, "header": hex, "received": integer, "length": integer,
                "state": state,
            }),
            &["site", "header", "received", "length", "state"],
        ),
        "Refusal": object(
            json!({
                "check": string, "expected": string, "found": string, "next": string,
                "sealed": { "type": "object", "description": "the finding, sealed to the site" },
            }),
            &["check", "expected", "found"],
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
        let count: usize = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .map(|p| p.as_object().unwrap().len())
            .sum();
        assert_eq!(count, OPERATIONS.len());
    }
}
