//! Ramdisks: cpio archives whose bytes depend on their content alone.

use anyhow::Context;
use cpio::newc::{self, ModeFileType};
use flate2::{Compression, GzBuilder};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A file or a folder of a ramdisk.
enum Entry<'a> {
    Folder(&'a str),
    File { name: String, mode: u32, bytes: Vec<u8> },
}

/// The first ramdisk: init and the folders that it mounts on.
pub fn boot(init: &Path, out: &Path) -> anyhow::Result<()> {
    let mut entries: Vec<_> =
        ["dev", "proc", "sys", "tmp"].into_iter().map(Entry::Folder).collect();
    entries.push(Entry::File { name: "init".to_owned(), mode: 0o755, bytes: read(init)? });
    write(&entries, out)
}

/// The second ramdisk: the application, its command and its files.
pub fn application(
    binary: &Path,
    command: &[&str],
    files: &[(String, PathBuf)],
    out: &Path,
) -> anyhow::Result<()> {
    let file = |name: &str, mode, bytes| Entry::File { name: format!("app/{name}"), mode, bytes };
    let mut entries = vec![
        Entry::Folder("app"),
        file("command", 0o644, (command.join("\n") + "\n").into_bytes()),
        file("sealfold-enclave", 0o755, read(binary)?),
    ];
    for (name, path) in files {
        entries.push(file(name, 0o644, read(path)?));
    }
    write(&entries, out)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes entries in their order, with numbered inodes, owned by root, without
/// a time.
fn write(entries: &[Entry<'_>], out: &Path) -> anyhow::Result<()> {
    let file = std::fs::File::create(out)?;
    let mut archive =
        GzBuilder::new().mtime(0).operating_system(255).write(file, Compression::best());
    for (inode, entry) in (1..).zip(entries) {
        let (name, kind, mode, bytes) = match entry {
            Entry::Folder(name) => (*name, ModeFileType::Directory, 0o755, &[][..]),
            Entry::File { name, mode, bytes } => {
                (name.as_str(), ModeFileType::Regular, *mode, bytes.as_slice())
            }
        };
        let length = u32::try_from(bytes.len()).context("a file is larger than 4 GiB")?;
        let header = newc::Builder::new(name)
            .ino(inode)
            .uid(0)
            .gid(0)
            .nlink(1)
            .mtime(0)
            .mode(mode)
            .set_mode_file_type(kind);
        let mut writer = header.write(archive, length);
        writer.write_all(bytes)?;
        archive = writer.finish()?;
    }
    newc::trailer(archive)?.finish()?.sync_all()?;
    Ok(())
}
