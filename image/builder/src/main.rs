//! `sealfold-image`: assembles the enclave image file (EIF).
//!
//! What goes in is the kernel, our init in the first ramdisk and the
//! application in the second, so that PCR2 measures the application alone.
//! Nothing of the time, the folder or the machine goes in, so that the same
//! parts give the same file everywhere.

mod bom;
mod compare;
mod ramdisk;
mod signer;

use anyhow::{Context, bail};
use aws_nitro_enclaves_image_format::defs::{EifBuildInfo, EifIdentityInfo};
use aws_nitro_enclaves_image_format::utils::EifBuilder;
use clap::{Parser, Subcommand};
use serde_json::json;
use sha2::{Digest, Sha256, Sha384};
use std::fs::File;
use std::path::{Path, PathBuf};

/// What AWS's own kernel is started with, less the console's wait after a
/// panic: <https://github.com/aws/aws-nitro-enclaves-cli>, `blobs/x86_64/cmdline`.
const COMMAND_LINE: &str = "reboot=k panic=1 pci=off nomodules console=ttyS0 random.trust_cpu=on \
    root=/dev/ram0 virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6";
/// The time in the image's description: every build's is the same.
const BUILD_TIME: &str = "2026-01-01T00:00:00+00:00";
/// The version of the crate that writes the format.
const FORMAT: &str = "aws-nitro-enclaves-image-format 0.8.1";

/// Assembles the enclave image file.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put an EIF together and write its measurements beside it.
    Assemble(Assemble),
    /// Print the image's bill of materials (CycloneDX 1.5, JSON).
    Bom(bom::Options),
    /// Compare two builds, and name every part that moved.
    Compare(compare::Options),
}

#[derive(Debug, clap::Args)]
struct Assemble {
    /// The folder of the kernel: bzImage, config and source.txt.
    #[arg(long, value_name = "FOLDER")]
    kernel: PathBuf,
    /// The init, a static binary.
    #[arg(long, value_name = "FILE")]
    init: PathBuf,
    /// The application, a static binary; /app/sealfold-enclave in the image.
    #[arg(long, value_name = "FILE")]
    application: PathBuf,
    /// An argument of the application; may be repeated.
    #[arg(long = "arg", value_name = "TEXT", allow_hyphen_values = true)]
    arguments: Vec<String>,
    /// A file for the application's ramdisk as NAME=FILE; /app/NAME in the
    /// image. May be repeated.
    #[arg(long = "file", value_name = "NAME=FILE")]
    files: Vec<String>,
    /// The version of the source, for the description.
    #[arg(long, value_name = "TEXT")]
    source: String,
    /// The compiler of init and application, for the description.
    #[arg(long, value_name = "TEXT")]
    compiler: String,
    /// The certificate of the signer, PEM.
    #[arg(long, value_name = "FILE", requires = "sign_key")]
    sign_certificate: Option<PathBuf>,
    /// The signer's private key (P-384), PEM, or the ARN of a KMS key.
    #[arg(long, value_name = "FILE", requires = "sign_certificate")]
    sign_key: Option<String>,
    /// Where the EIF is written; measurements.json is written beside it.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Assemble(options) => assemble(&options),
        Command::Bom(options) => bom::print(&options),
        Command::Compare(options) => compare::print(&options),
    }
}

fn assemble(options: &Assemble) -> anyhow::Result<()> {
    let bz_image = options.kernel.join("bzImage");
    for file in [&bz_image, &options.init, &options.application] {
        if !file.is_file() {
            bail!("{}: there is no such file; make eif builds it", file.display());
        }
    }
    let folder = options.out.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let work = tempfile::tempdir_in(folder)?;
    let (boot, application) = (work.path().join("boot"), work.path().join("application"));
    ramdisk::boot(&options.init, &boot)?;
    let command = std::iter::once("/app/sealfold-enclave")
        .chain(options.arguments.iter().map(String::as_str))
        .collect::<Vec<_>>();
    if let Some(odd) = command.iter().find(|argument| argument.contains('\n')) {
        bail!("--arg {odd:?}: an argument is one line");
    }
    let mut files = Vec::new();
    for file in &options.files {
        let (name, path) =
            file.split_once('=').with_context(|| format!("--file {file:?}: expected NAME=FILE"))?;
        files.push((name.to_owned(), PathBuf::from(path)));
    }
    ramdisk::application(&options.application, &command, &files, &application)?;
    let measurements = write(options, &bz_image, &[&boot, &application], work.path())?;
    let part = |path: &Path| -> anyhow::Result<serde_json::Value> {
        Ok(json!({ "bytes": std::fs::metadata(path)?.len(), "sha256": sha256(path)? }))
    };
    let sources = std::fs::read_to_string(options.kernel.join("source.txt"))?;
    let report = json!({
        "measurements": measurements,
        "image": part(&options.out)?,
        "parts": {
            "kernel": part(&bz_image)?,
            "init": part(&options.init)?,
            "application": part(&options.application)?,
            "boot_ramdisk": part(&boot)?,
            "application_ramdisk": part(&application)?,
        },
        "command_line": COMMAND_LINE,
        "command": command,
        "sources": {
            "sealfold": options.source,
            "kernel": sources.lines().collect::<Vec<_>>(),
            "compiler": options.compiler,
            "format": FORMAT,
        },
    });
    let path = folder.join("measurements.json");
    std::fs::write(&path, serde_json::to_string_pretty(&report)? + "\n")?;
    Ok(())
}

/// Writes the EIF and gives its measurements, with lower-case names.
fn write(
    options: &Assemble,
    kernel: &Path,
    ramdisks: &[&Path],
    work: &Path,
) -> anyhow::Result<serde_json::Value> {
    let sign = match (&options.sign_key, &options.sign_certificate) {
        (Some(key), Some(certificate)) => Some(
            signer::open(key, certificate)
                .context("the image cannot be signed with this key and certificate")?,
        ),
        _ => None,
    };
    let sources = std::fs::read_to_string(options.kernel.join("source.txt"))?;
    let kernel_version = sources.lines().next().unwrap_or_default().to_owned();
    let info = EifIdentityInfo {
        img_name: "sealfold".to_owned(),
        img_version: options.source.clone(),
        build_info: EifBuildInfo {
            build_time: BUILD_TIME.to_owned(),
            build_tool: env!("CARGO_PKG_NAME").to_owned(),
            build_tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            img_os: "Linux".to_owned(),
            img_kernel: kernel_version,
        },
        docker_info: json!(null),
        custom_info: json!(null),
    };
    let flags = 0; // x86_64
    let mut builder =
        EifBuilder::new(kernel, COMMAND_LINE.to_owned(), sign, Sha384::new(), flags, info);
    ramdisks.iter().for_each(|ramdisk| builder.add_ramdisk(ramdisk));
    // Written aside and moved, so that an interrupted build leaves no half image.
    let aside = work.join("image");
    let pcrs = builder.write_to(&mut File::create(&aside)?);
    std::fs::rename(&aside, &options.out)?;
    let pcrs = pcrs
        .into_iter()
        .filter(|(name, _)| name.starts_with("PCR"))
        .map(|(name, value)| (name.to_lowercase(), json!(value)));
    Ok(serde_json::Value::Object(pcrs.collect()))
}

fn sha256(path: &Path) -> anyhow::Result<String> {
    Ok(hex::encode(Sha256::digest(std::fs::read(path)?)))
}
