//! The status page for people: what runs, and what it waits for.

use crate::routes::Shared;
use axum::extract::State;
use axum::response::Html;
use std::fmt::Write as _;

/// The page.
pub async fn page(State(host): Shared) -> Html<String> {
    let state = host.state.lock().await;
    let mut rows = String::new();
    for (id, study) in &state.studies {
        let manifest = study.manifest();
        let number = study.current_round();
        let phase = study.rounds.get(&number).map_or("idle".to_owned(), |round| {
            serde_json::to_string(&round.phase).unwrap_or_default().replace('"', "")
        });
        let missing = study.missing();
        let waits =
            if missing.is_empty() { study.waiting_for.clone() } else { missing.join(" and ") };
        // Writing to a string does not fail.
        let _ = write!(
            rows,
            "<tr><td>{}<br><code>{}</code></td><td>{} of {}</td><td>{}</td><td>{}</td></tr>",
            escape(&manifest.study.name),
            id.short(),
            study.rounds_done(),
            manifest.study.rounds,
            escape(&phase),
            escape(&waits),
        );
    }
    if rows.is_empty() {
        rows.push_str(
            "<tr><td colspan=4>no study yet: sealfold study approve publishes one</td></tr>",
        );
    }
    Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport \
         content='width=device-width'><meta http-equiv=refresh content=5><title>sealfold host</title>\
         <style>body{{font:16px system-ui;margin:2rem;max-width:60rem}}table{{border-collapse:\
         collapse;width:100%}}td,th{{text-align:left;padding:.5rem;border-bottom:1px solid #8884;\
         vertical-align:top}}:root{{color-scheme:light dark}}</style><h1>sealfold host</h1>\
         <p>Version {}. Everything here is sealed, signed or public.</p><table><tr><th>Study<th>\
         Rounds<th>Phase<th>Waits for</tr>{rows}</table></html>",
        crate::VERSION
    ))
}

/// Text for HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_studys_name_is_no_markup() {
        assert_eq!(super::escape("<b>&\""), "&lt;b&gt;&amp;&quot;");
    }
}
