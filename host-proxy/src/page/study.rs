//! A study's part of the page.

use super::html::Html;
use super::timeline::Progress;
use crate::state::{Round, State};
use crate::study::Study;
use sealfold_protocol::api::{UploadState, UploadStatus};
use sealfold_protocol::terms::{RoundKind, Terms};
use sealfold_protocol::{Digest, Signed};
use sealfold_study::Manifest;

/// The last releases that are shown.
const RELEASES: usize = 5;

/// Draws a study.
pub fn section(
    page: &mut Html,
    state: &State,
    id: &Digest,
    study: &Study,
    measured: Option<&(String, Vec<(&'static str, String)>)>,
    url: &str,
) {
    let manifest = study.manifest();
    let (terms, purpose) = (&manifest.terms, &manifest.agreement.study);
    page.within("<section><h2>", &purpose.name, "</h2>");
    page.within("<p>", &purpose.purpose, "</p>");
    page.within("<p class=soft>Study <code>", id, "</code></p>");
    page.within("<p>", study.rounds_done(), " of ").within("", rounds(terms), "</p>");
    let missing = study.missing();
    let waits = if missing.is_empty() { study.waiting_for.clone() } else { missing.join(" and ") };
    if !waits.is_empty() {
        page.within("<p class=waits><strong>Waits for</strong> ", waits, "</p>");
    }
    let number = study.current_round();
    let round = study.rounds.get(&number);
    let offer = round.and_then(|round| round.offer.as_ref()).map(Signed::digest);
    let uploads = offer.map(|offer| state.uploads_of(&offer)).unwrap_or_default();
    page.within("<h3>Round ", number, kind(study, number)).markup("</h3>");
    Progress::of(terms.sites.len(), round, &uploads).draw(page);
    if let Some(offer) = offer {
        page.within("<p class=soft>Offer <code>", offer, "</code></p>");
    }
    sites(page, terms, round, &uploads);
    measurements(page, manifest, measured);
    page.markup(
        "<h3>Check it yourself</h3><p>A site of this study, with its own policy, asks the enclave \
         for fresh evidence and compares every measurement:</p><pre>",
    );
    page.within("sealfold verify --host ", url, " ").within("", id, "</pre>");
    releases(page, study);
    page.markup("</section>");
}

/// The number of rounds, in words.
fn rounds(terms: &Terms) -> String {
    let measures = if terms.channels.is_empty() {
        ""
    } else {
        "; the last round trains nothing, it measures the last model"
    };
    format!("{} rounds released{measures}", terms.last_round())
}

/// What is special about a round, by the terms of its offer.
fn kind(study: &Study, number: u32) -> &'static str {
    let offer = study.rounds.get(&number).and_then(|round| round.offer.as_ref());
    let terms = study.under(offer.map(Signed::statement)).unwrap_or(study.terms());
    match terms.kind(number) {
        RoundKind::Training => "",
        RoundKind::Evaluation => " (measures the last model)",
    }
}

/// Which sites have uploaded and committed. Everybody may know that; nothing of
/// what they uploaded is shown.
fn sites(page: &mut Html, terms: &Terms, round: Option<&Round>, uploads: &[UploadStatus]) {
    let roster = round.and_then(|round| round.roster.as_ref());
    let members = roster.map(|roster| roster.statement().sites()).unwrap_or_default();
    let is_released = round.is_some_and(|round| round.release.is_some());
    page.markup(
        "<table class=wide><caption>Sites in this round</caption><thead><tr><th scope=col>Site<th \
         scope=col>Update<th scope=col>Roster<th scope=col>Commit</tr></thead><tbody>",
    );
    for site in &terms.sites {
        let name = site.name.as_str();
        let on_roster = members.contains(&name);
        let upload = uploads.iter().find(|upload| upload.site == name).map(|upload| &upload.state);
        let (class, update) = match upload {
            _ if is_released && on_roster => ("<span class=good>", "✓ folded"),
            // That one was refused is its own site's business.
            None | Some(UploadState::Refused(_)) => ("<span class=soft>", "○ not yet"),
            Some(UploadState::Receiving) => ("<span class=now>", "● on its way"),
            Some(UploadState::Stored) => ("<span class=now>", "● uploaded"),
            Some(UploadState::Admitted(_)) => ("<span class=good>", "✓ admitted"),
        };
        page.within("<tr><th scope=row>", name, "</th><td data-name=Update>");
        page.within(class, update, "</span></td><td data-name=Roster>");
        let (class, word) = match (on_roster, roster.is_some()) {
            (true, _) => ("<span class=good>", "✓ on it"),
            (false, true) => ("<span class=soft>", "not on it"),
            (false, false) => ("<span class=soft>", "○ not yet"),
        };
        page.within(class, word, "</span></td><td data-name=Commit>");
        let has_committed = round.is_some_and(|round| round.commits.contains_key(name));
        let (class, word) = match (has_committed, on_roster) {
            (true, _) => ("<span class=good>", "✓ committed"),
            (false, true) => ("<span class=now>", "● awaited"),
            (false, false) => ("<span class=soft>", "–"),
        };
        page.within(class, word, "</span></td></tr>");
    }
    page.markup("</tbody></table>");
}

fn measurements(
    page: &mut Html,
    manifest: &Manifest,
    measured: Option<&(String, Vec<(&'static str, String)>)>,
) {
    page.markup("<h3>The enclave’s measurements</h3>");
    if let Some((platform, values)) = measured {
        page.markup("<p class=soft>As the evidence says that this host kept, read here without ");
        page.within("being verified (", platform, "):</p><dl>");
        // An image that is not signed has no PCR8.
        for (name, value) in values.iter().filter(|(_, value)| !value.is_empty()) {
            page.within("<dt>", name, "</dt>").within("<dd><code>", value, "</code></dd>");
        }
        page.markup("</dl>");
    } else {
        page.markup("<p class=soft>No evidence yet.</p>");
    }
    page.markup("<details><summary>The images that the study’s manifest accepts</summary>");
    for (place, image) in manifest.agreement.measurements.nitro.iter().enumerate() {
        page.within("<p>Image ", place + 1, ", Nitro</p><dl>");
        for (name, register) in
            [("pcr0", &image.pcr0), ("pcr1", &image.pcr1), ("pcr2", &image.pcr2)]
        {
            page.within("<dt>", name, "</dt>").within("<dd><code>", register, "</code></dd>");
        }
        page.markup("</dl>");
    }
    for image in &manifest.agreement.measurements.confidential_space {
        page.markup("<p>Confidential Space</p><dl><dt>image-digest</dt>");
        page.within("<dd><code>", image.image_digest, "</code></dd></dl>");
    }
    page.markup("</details>");
}

fn releases(page: &mut Html, study: &Study) {
    let released = study.rounds.iter().rev();
    let released =
        released.filter_map(|(number, round)| Some((number, round, round.release.as_ref()?)));
    let released: Vec<_> = released.take(RELEASES).collect();
    if released.is_empty() {
        return;
    }
    page.markup(
        "<h3>Last releases</h3><table class=wide><thead><tr><th scope=col>Round<th scope=col>Sites<th \
         scope=col>Privacy spent<th scope=col>Release</tr></thead><tbody>",
    );
    for (number, round, release) in released {
        let sites = round.roster.as_ref().map(|roster| roster.statement().sites());
        let sites: Vec<_> = sites.into_iter().flatten().collect();
        let spent = study.spent(*number).map_or("no noise".to_owned(), |spent| {
            format!("epsilon {:.3}, delta {:e}", spent.epsilon, spent.delta)
        });
        page.within("<tr><th scope=row data-name=Round>", number, kind(study, *number));
        page.markup("</th>");
        page.within("<td data-name=Sites>", sites.join(", "), "</td>");
        page.within("<td data-name=\"Privacy spent\">", spent, "</td>");
        page.within("<td data-name=Release><code>", release.digest(), "</code></td></tr>");
    }
    page.markup("</tbody></table>");
}
