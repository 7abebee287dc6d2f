//! A real browser without a window: Debian's chromium, which `tests/tools.sh`
//! installs.

use crate::process;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The browser, with a profile of its own.
pub struct Browser {
    profile: tempfile::TempDir,
}

impl Browser {
    /// A fresh profile.
    #[must_use]
    pub fn new() -> Self {
        Self { profile: tempfile::tempdir().unwrap() }
    }

    fn run(&self, arguments: &[&str], url: &str) -> Output {
        let mut command = Command::new("chromium");
        // As root, which CI is, it has no sandbox to start.
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]);
        command.args(["--disable-dev-shm-usage", "--no-first-run", "--disable-extensions"]);
        command.arg("--enable-logging=stderr");
        command.arg(format!("--user-data-dir={}", self.profile.path().display()));
        let output = command.args(arguments).arg(url).stdin(Stdio::null()).output();
        let output = output.expect("chromium is not installed: run tests/tools.sh");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        // A style that the page's policy does not let through is said here.
        assert!(!said.contains("Content Security Policy"), "{said}");
        output
    }

    /// The page as the browser understood it.
    #[must_use]
    pub fn document(&self, url: &str) -> String {
        String::from_utf8(self.run(&["--dump-dom"], url).stdout).unwrap()
    }

    /// A picture of the page in a window of that size, in the folder of the
    /// build; its PNG.
    #[must_use]
    pub fn picture(&self, url: &str, name: &str, size: (u32, u32), more: &[&str]) -> Vec<u8> {
        let folder: PathBuf = process::binaries().join("page");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{name}.png"));
        let _ = std::fs::remove_file(&path);
        let (to, window) = (
            format!("--screenshot={}", path.display()),
            format!("--window-size={},{}", size.0, size.1),
        );
        self.run(&[&[to.as_str(), window.as_str()], more].concat(), url);
        std::fs::read(&path).unwrap()
    }
}

impl Default for Browser {
    fn default() -> Self {
        Self::new()
    }
}
