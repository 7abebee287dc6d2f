//! The pages that people read: every link of theirs leads to a file that is there,
//! and to a heading that is there; a site finds every check that can refuse it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use pulldown_cmark::{Event, Parser, Tag, TagEnd};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What one page says that matters here.
#[derive(Default)]
struct Page {
    /// Where its links lead, as written.
    links: Vec<String>,
    /// What may stand behind `#` in a link to it.
    anchors: Vec<String>,
}

/// The anchor that GitHub gives a heading: lower case, hyphens for spaces, without
/// punctuation; a number behind the second and later ones of the same words.
fn anchor(heading: &str, before: &[String]) -> String {
    let kept = |c: char| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        _ => c.is_alphanumeric().then_some(c),
    };
    let slug: String = heading.trim().to_lowercase().chars().filter_map(kept).collect();
    let mut numbered = slug.clone();
    let mut number = 0;
    while before.contains(&numbered) {
        number += 1;
        numbered = format!("{slug}-{number}");
    }
    numbered
}

impl Page {
    fn read(text: &str) -> Self {
        let mut page = Self::default();
        let mut heading: Option<String> = None;
        for event in Parser::new(text) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.into_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let words = heading.take().unwrap();
                    page.anchors.push(anchor(&words, &page.anchors));
                }
                Event::Text(words) | Event::Code(words) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&words);
                    }
                }
                _ => {}
            }
        }
        page
    }
}

/// All pages below a folder, but for what is built or fetched there.
fn pages(folder: &Path, found: &mut BTreeMap<PathBuf, Page>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.insert(path.canonicalize().unwrap(), Page::read(&text));
        }
    }
}

/// What is wrong with a link of a page, if anything is.
fn broken(link: &str, from: &Path, pages: &BTreeMap<PathBuf, Page>) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() {
        from.to_owned()
    } else {
        let Ok(target) = from.parent().unwrap().join(path).canonicalize() else {
            return Some(format!("{}: {link}: no such file", from.display()));
        };
        target
    };
    if anchor.is_empty() {
        return None;
    }
    let known = pages.get(&target).map(|page| page.anchors.as_slice()).unwrap_or_default();
    (!known.iter().any(|name| name == anchor))
        .then(|| format!("{}: {link}: no such heading, there are {known:?}", from.display()))
}

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().canonicalize().unwrap()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    let mut all = BTreeMap::new();
    pages(&checkout(), &mut all);
    let links = all.iter().flat_map(|(path, page)| page.links.iter().map(move |link| (path, link)));
    let links: Vec<_> = links.collect();
    assert!(all.len() > 40 && links.len() > 150, "{} pages, {} links", all.len(), links.len());
    let broken: Vec<_> = links.iter().filter_map(|(path, link)| broken(link, path, &all)).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn headings_get_the_anchors_that_github_gives_them() {
    let page = Page::read("# COSE_Sign1: one *signer*\n\n## `x`, a b?\n\n## x a-b\n\n## x a-b\n");
    assert_eq!(page.anchors, ["cose_sign1-one-signer", "x-a-b", "x-a-b-1", "x-a-b-2"]);
}

#[test]
fn a_link_to_nothing_is_found() {
    let from = checkout().join("docs/site.md");
    let page = Page::read("[a](access.md) [b](#once) [c](#never) [d](nothing.md)\n\n## Once\n");
    let all = BTreeMap::from([(from.clone(), page)]);
    let found = all[&from].links.iter().map(|link| broken(link, &from, &all).is_some());
    assert_eq!(found.collect::<Vec<_>>(), [false, false, true, true]);
}

#[test]
fn every_page_of_the_documents_is_linked_to() {
    let mut all = BTreeMap::new();
    pages(&checkout(), &mut all);
    let linked: Vec<_> = all
        .iter()
        .flat_map(|(from, page)| page.links.iter().map(move |link| (from, link)))
        .filter_map(|(from, link)| {
            let path = link.split('#').next().unwrap();
            from.parent().unwrap().join(path).canonicalize().ok()
        })
        .collect();
    let docs = checkout().join("docs");
    for page in all.keys().filter(|path| path.parent() == Some(&docs)) {
        assert!(linked.contains(page), "no page links to {}", page.display());
    }
}

/// Every text of a source file, and of those in the folders below it.
fn sources(folder: &Path, read: &mut impl FnMut(&str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, read);
        } else {
            read(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// The variants of an enum in a source file, as they are serialised.
fn variants(file: &str, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(checkout().join(file)).unwrap();
    let (_, rest) = text.split_once(&format!("pub enum {name} {{")).unwrap();
    let words = rest.split("\n}").next().unwrap().lines().map(str::trim);
    let words = words.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    let kebab = |word: &str| {
        let capital =
            |c: char| [if c.is_ascii_uppercase() { "-" } else { "" }, &c.to_string()].concat();
        let parted: String = word.trim_end_matches(',').chars().map(capital).collect();
        parted.trim_start_matches('-').to_lowercase()
    };
    words.map(kebab).collect()
}

#[test]
fn a_site_finds_every_check_that_can_refuse_it() {
    let mut names = variants("protocol/src/refusal.rs", "Check");
    names.extend(variants("attestation/src/verdict.rs", "CheckName"));
    let mut collect = |text: &str| {
        for refusal in ["SiteRefusal::new(", "Error::input("] {
            let named = text.split(refusal).skip(1);
            let named = named.filter_map(|rest| rest.trim_start().strip_prefix('"'));
            names.extend(named.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    };
    sources(&checkout().join("site-client/src"), &mut collect);
    assert!(names.len() > 100, "{names:?}");
    let page = std::fs::read_to_string(checkout().join("docs/site.md")).unwrap();
    let (_, page) = page.split_once("\n## When something is refused\n").unwrap();
    let table = page.lines().filter(|line| line.starts_with("| `"));
    let cells: String = table.map(|line| line.split(" | ").next().unwrap()).collect();
    let known = |name: &str| cells.contains(&format!("`{name}`"));
    let unknown: Vec<_> = names.iter().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "docs/site.md has no row for {unknown:?}");
}

#[test]
fn make_help_and_the_developers_page_name_every_target() {
    let makefile = std::fs::read_to_string(checkout().join("Makefile")).unwrap();
    let targets = makefile.lines().filter(|line| !line.starts_with('\t') && line.contains(" ## "));
    let targets: Vec<_> = targets.filter_map(|line| line.split(':').next()).collect();
    assert!(targets.len() > 15 && targets.contains(&"aarch64"), "{targets:?}");
    let output =
        Command::new("make").args(["-s", "help"]).current_dir(checkout()).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let page = std::fs::read_to_string(checkout().join("docs/development.md")).unwrap();
    for target in targets {
        let is_named = help.lines().any(|line| line.split(' ').next() == Some(target));
        assert!(is_named, "{target} is not in {help}");
        assert!(page.contains(&format!("| `make {target}` |")), "docs/development.md: {target}");
    }
}

#[test]
fn every_script_of_the_deployment_explains_itself_and_takes_no_other_word() {
    for script in ["confidential-space/launch.sh", "nitro/run-enclave.sh"] {
        let path = checkout().join("deploy").join(script);
        let run = |argument: &str| Command::new("sh").arg(&path).arg(argument).output().unwrap();
        let output = run("--help");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{script}: {said}");
        // Every setting is explained, and nothing else; what the launcher is told
        // about the enclave's own environment is none.
        let text = std::fs::read_to_string(&path).unwrap().replace("tee-env-SEALFOLD_", "");
        let names = |text: &str| {
            let rest = text.split("SEALFOLD_").skip(1);
            let is_name = |c: &char| c.is_ascii_uppercase() || *c == '_';
            let names = rest.map(|rest| rest.chars().take_while(is_name).collect::<String>());
            names.filter(|name| !name.is_empty()).collect::<BTreeSet<_>>()
        };
        assert!(names(&said).len() > 6, "{script}: {said}");
        assert_eq!(names(&said), names(&text), "{script}");
        assert_eq!(run("begin").status.code(), Some(78), "{script}");
    }
}
