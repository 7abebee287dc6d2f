//! `study`: read, approve, abandon.

use super::{Context, Target};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use sealfold::client::Client;
use sealfold::error::SiteRefusal;
use sealfold::home::read_text;
use sealfold::ledger::Ledger;
use sealfold::measured::expect_one_accepted;
use sealfold::study::{LocalStudy, acceptable};
use sealfold::{Error, Result, tensors};
use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::access::Role;
use sealfold_protocol::api::{PendingAmendment, RoundStatus, StudyStatus};
use sealfold_protocol::manifest::Manifested;
use sealfold_protocol::study::identity;
use sealfold_protocol::text::shown;
use sealfold_protocol::{Digest, MultiSigned};
use sealfold_study::Manifest;
use sealfold_study::in_words::{conclusions, describe};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// `sealfold study`
#[derive(Debug, Subcommand)]
pub enum Study {
    /// Show a study in words: a manifest file, or a study of a host.
    Show {
        /// A manifest (TOML), or a study's identity with --host.
        study: String,
        /// The host's URL.
        #[arg(long, env = "SEALFOLD_HOST", value_name = "URL")]
        host: Option<String>,
        /// The digest of the manifest to show, for example of an amendment that is
        /// pending; else the one in force.
        #[arg(long, value_name = "DIGEST", requires = "host")]
        manifest: Option<Digest>,
    },
    /// Sign a manifest and publish the signature.
    Approve(Approve),
    /// Sign that an offer is given up: it counts as possibly released.
    Abandon(Abandon),
    /// Print the digest of an initial model, for model.initial.
    DigestModel {
        /// The model, safetensors or npz.
        model: PathBuf,
        /// The manifest with the tensors, TOML.
        #[arg(long, value_name = "FILE")]
        study: PathBuf,
    },
}

/// `sealfold study approve`
#[derive(Debug, Args)]
pub struct Approve {
    /// A manifest (TOML), or the identity of a study that the host has.
    study: String,
    /// The host's URL.
    #[arg(long, env = "SEALFOLD_HOST", value_name = "URL")]
    host: String,
    /// The digest of the manifest to sign, where the host has more than one
    /// amendment that is not in force yet.
    #[arg(long, value_name = "DIGEST")]
    manifest: Option<Digest>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Publish the initial model as well, safetensors or npz.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The data source that the study uses, whose budget in the policy it is
    /// charged to. Not needed if the policy has one budget only, or none.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

/// `sealfold study abandon`
#[derive(Debug, Args)]
pub struct Abandon {
    #[command(flatten)]
    target: Target,
    /// The round.
    #[arg(long)]
    round: u32,
    /// The digest of the offer that is given up.
    #[arg(long)]
    offer: Digest,
    /// Why, for those who read it later. Without it you sign what the other
    /// approvers have said: an abandonment takes their signatures of the same words.
    #[arg(long, value_name = "WORDS")]
    reason: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// Asks on a terminal; refuses without one.
fn confirm(question: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Error::input("confirmation", "a terminal to ask on", "none").next("give --yes"));
    }
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    if answer.trim().eq_ignore_ascii_case("y") {
        return Ok(());
    }
    let found = format!("{:?}", answer.trim());
    Err(Error::input("confirmation", "y", found).next("nothing was signed"))
}

impl Study {
    /// Runs the command.
    pub fn run(&self, context: &Context) -> Result<u8> {
        match self {
            Self::Show { study, host, manifest } => {
                let (id, manifest, pending) = match host {
                    // The host may stand in the environment.
                    Some(host) if !Path::new(study).is_file() => {
                        let (id, client) = (digest(study)?, context.client(host)?);
                        let status = client.study(&id)?;
                        let signed = match manifest {
                            Some(chosen) => fetch(&client, &id, chosen)?,
                            None => in_force(&status)?,
                        };
                        expect_study(&id, &signed)?;
                        (id, signed.statement().clone(), status.pending)
                    }
                    _ => {
                        let (id, manifest) = from_file(Path::new(study))?;
                        (id, manifest, Vec::new())
                    }
                };
                let machine = json!({ "study": id, "manifest": manifest, "pending": pending,
                    "conclusions": conclusions(&manifest) });
                let mut text = describe(&manifest, &id);
                for amendment in &pending {
                    text.push_str(&format!("\nan amendment is pending: {}", named(amendment)));
                }
                context.voice.result(&machine, &text);
                Ok(0)
            }
            Self::Approve(approve) => approve.run(context),
            Self::Abandon(abandon) => abandon.run(context),
            Self::DigestModel { model, study } => {
                let manifest = Manifest::from_toml(&read_text(study)?)?;
                let digest = tensors::digest(model, &manifest.terms.model)?;
                context.voice.result(&json!({ "initial": digest }), &digest.to_string());
                Ok(0)
            }
        }
    }
}

/// The last manifest of a study's chain.
fn in_force(status: &StudyStatus) -> Result<MultiSigned<Manifest>> {
    Ok(Manifest::open(&status.manifests.last().ok_or_else(no_manifest)?.0)?)
}

/// A manifest that the host has, the very one that was asked for.
fn fetch(client: &Client, study: &Digest, wanted: &Digest) -> Result<MultiSigned<Manifest>> {
    let signed = Manifest::open(&client.manifest(study, wanted)?.envelope.0)?;
    if signed.digest() != *wanted {
        return Err(SiteRefusal::new("manifest", wanted, signed.digest())
            .next("stop: the host shows another manifest")
            .into());
    }
    Ok(signed)
}

/// A pending amendment in words.
fn named(amendment: &PendingAmendment) -> String {
    format!("{}, signed by {} keys so far", amendment.manifest, amendment.signers.len())
}

/// The manifest of a host's study that is to be signed: the one that was chosen,
/// the one amendment that is pending, or the one in force.
fn to_sign(client: &Client, id: &Digest, chosen: Option<&Digest>) -> Result<MultiSigned<Manifest>> {
    let status = client.study(id)?;
    match (chosen, status.pending.as_slice()) {
        (Some(chosen), _) => fetch(client, id, chosen),
        (None, []) => in_force(&status),
        (None, [only]) => fetch(client, id, &only.manifest),
        (None, several) => {
            let found: Vec<_> = several.iter().map(named).collect();
            let found = format!("{} that are pending: {}", several.len(), found.join("; "));
            Err(SiteRefusal::new("amendment", "one manifest to sign", found)
                .next(
                    "read them (sealfold study show STUDY --manifest DIGEST), then choose: \
                     sealfold study approve STUDY --manifest DIGEST",
                )
                .into())
        }
    }
}

fn no_manifest() -> Error {
    SiteRefusal::new("manifest", "the study's manifests", "none")
        .next("ask the operator what became of them")
        .into()
}

/// Whether a manifest that the host shows is one of the study that was asked for.
fn expect_study(id: &Digest, manifest: &MultiSigned<Manifest>) -> Result<()> {
    let found = identity(manifest);
    if found == *id {
        return Ok(());
    }
    Err(SiteRefusal::new("study", id, found).next("stop: the host shows another study").into())
}

fn digest(text: &str) -> Result<Digest> {
    text.parse().map_err(|_| {
        Error::input("study", "a manifest's file or a study's identity, 64 hex digits", text)
            .next("sealfold study approve prints the identity")
    })
}

/// A manifest in a file, and the identity of its study.
pub(super) fn from_file(path: &Path) -> Result<(Digest, Manifest)> {
    let manifest = Manifest::from_toml(&read_text(path)?)?;
    let id = match &manifest.terms.amends {
        Some(amends) => amends.study,
        // The digest of a payload does not depend on who signs it.
        None => MultiSigned::sign(manifest.clone(), &sealfold_protocol::SigningKey::generate()?)?
            .digest(),
    };
    Ok((id, manifest))
}

impl Approve {
    fn run(&self, context: &Context) -> Result<u8> {
        let keys = context.keys()?;
        let client = context.client(&self.host)?.signed(&keys.signing, Role::Party)?;
        let signed = if PathBuf::from(&self.study).is_file() {
            let signed = MultiSigned::sign(from_file(Path::new(&self.study))?.1, &keys.signing)?;
            if let Some(chosen) = self.manifest.filter(|chosen| *chosen != signed.digest()) {
                let next = "the file is another manifest than --manifest names; nothing was signed";
                return Err(Error::input("manifest", chosen, signed.digest()).next(next));
            }
            signed
        } else {
            let id = digest(&self.study)?;
            let mut signed = to_sign(&client, &id, self.manifest.as_ref())?;
            expect_study(&id, &signed)?;
            signed.add_signature(&keys.signing)?;
            signed
        };
        let (id, manifest) = (identity(&signed), signed.statement());
        let takes_part = manifest.terms.sites.iter().any(|site| site.name == keys.site);
        let policy = if takes_part { Some(context.policy()?) } else { None };
        if let Some(policy) = &policy {
            acceptable(manifest, &keys, policy, Timestamp::now())?;
            expect_one_accepted(&manifest.agreement.measurements, policy)?;
        }
        if !context.voice.json {
            eprintln!("{}", describe(manifest, &id));
        }
        confirm("sign this manifest?", self.yes)?;
        if let Some(policy) = &policy {
            let mut ledger = Ledger::open(&context.home)?;
            ledger.charge(policy, self.source.as_deref(), &id, manifest)?;
            LocalStudy::new(&context.home, id).approve(signed.digest())?;
        }
        let mut status = client.publish(&signed.envelope()?)?;
        if let Some(path) = &self.model {
            let content = tempfile::NamedTempFile::new_in(context.home.path("."))
                .map_err(|e| Error::file(path, e))?;
            let mut file = content.reopen().map_err(|e| Error::file(path, e))?;
            tensors::copy_content(path, &manifest.terms.model.tensors, &mut file)?;
            let reader = content.reopen().map_err(|e| Error::file(path, e))?;
            client.put_model(&id, manifest.terms.model.bytes(), reader)?;
            status = client.study(&id)?;
        }
        let machine = json!({ "study": id, "manifest": signed.digest(), "active": status.active,
            "missing": status.missing });
        let state = if status.active {
            "rounds can run; whoever signs now takes part from the next offer on".to_owned()
        } else {
            format!("still missing: {}", shown(&status.missing.join(" and ")))
        };
        context.voice.result(&machine, &format!("study {id}\n{state}"));
        Ok(0)
    }
}

/// What approvers have signed of an offer, with the most signatures first.
fn said_of(offer: &Digest, status: &RoundStatus) -> Vec<MultiSigned<Abandonment>> {
    let opened = status.abandonments.iter().filter_map(|a| MultiSigned::open(&a.0).ok());
    let mut said: Vec<MultiSigned<Abandonment>> =
        opened.filter(|said: &MultiSigned<Abandonment>| said.statement().offer == *offer).collect();
    said.sort_by_key(|said| std::cmp::Reverse(said.signers().len()));
    said
}

impl Abandon {
    fn run(&self, context: &Context) -> Result<u8> {
        let keys = context.keys()?;
        let client = context.client(&self.target.host)?.signed(&keys.signing, Role::Party)?;
        let (study, round) = (self.target.study, self.round);
        eprintln!(
            "An abandoned offer counts as possibly released: if its instance did release, that \
             aggregate stays comparable with the next one on the same model."
        );
        let reason = match &self.reason {
            Some(reason) => reason.clone(),
            None => self.words_of_others(&client.round(&study, round)?)?,
        };
        let abandonment = Abandonment { study, round, offer: self.offer, reason };
        let question = format!("abandon offer {}, because: {:?}?", self.offer, abandonment.reason);
        confirm(&question, self.yes)?;
        let signed = MultiSigned::sign(abandonment, &keys.signing)?;
        let merged = client.abandon(&study, round, &signed.envelope()?)?;
        let merged = MultiSigned::<Abandonment>::open(&merged.envelope.0)?;
        let approval = in_force(&client.study(&study)?)?.statement().terms.approval.clone();
        let found = merged.expect_approvals(&approval.approvers, 0)?;
        let mut text =
            format!("{found} of {} signatures that an abandonment takes", approval.required);
        let mut others = said_of(&self.offer, &client.round(&study, round)?);
        others.retain(|other| other.digest() != merged.digest());
        if found < approval.required {
            for other in &others {
                text.push_str(&format!(
                    "\n{} have signed other words: {:?}; without --reason you sign those of most",
                    other.signers().len(),
                    other.statement().reason
                ));
            }
        }
        let others = others.iter().map(|other| {
            json!({ "reason": other.statement().reason, "signatures": other.signers().len() })
        });
        let machine = json!({ "signatures": found, "required": approval.required,
            "reason": merged.statement().reason, "others": others.collect::<Vec<_>>() });
        context.voice.result(&machine, &text);
        Ok(0)
    }

    /// The words that most have signed so far.
    fn words_of_others(&self, status: &RoundStatus) -> Result<String> {
        let said = said_of(&self.offer, status);
        let most = said.first().ok_or_else(|| {
            Error::input("reason", "words of your own, or of other approvers", "none of that offer")
                .next("give --reason")
        })?;
        Ok(most.statement().reason.clone())
    }
}
