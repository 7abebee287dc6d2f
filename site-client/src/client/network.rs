//! How the site reaches the network: authorities, a proxy, limits of time.

use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use ureq::middleware::Middleware;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Proxy};

/// How long the host may take to answer a request.
const ANSWER: Duration = Duration::from_mins(2);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(20);

/// How the site reaches the network.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// A certificate authority of the hospital's own, PEM, in place of the
    /// public ones.
    pub ca: Option<PathBuf>,
    /// A proxy; otherwise the environment's (`HTTPS_PROXY`, `NO_PROXY`).
    pub proxy: Option<String>,
}

/// Where a host is, as its URL says.
pub(super) struct Place<'a> {
    /// Name and port.
    pub name: &'a str,
    pub is_tls: bool,
    is_local: bool,
}

impl<'a> Place<'a> {
    /// Reads a URL; plain HTTP is for a host on this machine.
    pub fn of(url: &'a str) -> Result<Self> {
        let (is_tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => {
                return Err(Error::input("host", "an https:// or http:// URL", format!("{url:?}"))
                    .next("give --host another URL"));
            }
        };
        let name = rest.split('/').next().unwrap_or_default();
        let is_local = ["127.0.0.1", "localhost", "[::1]"]
            .iter()
            .any(|local| name == *local || name.starts_with(&format!("{local}:")));
        if !is_tls && !is_local {
            return Err(Error::input("host", "https:// beyond this machine", format!("{url:?}"))
                .next("use https://; plain HTTP is for a host on this machine"));
        }
        Ok(Self { name, is_tls, is_local })
    }
}

impl Network {
    /// What makes requests to a host.
    pub(super) fn agent(&self, place: &Place<'_>, carrier: impl Middleware) -> Result<Agent> {
        // Without TLS there is no authority to read.
        let roots = match self.ca.as_ref().filter(|_| place.is_tls) {
            None => RootCerts::WebPki,
            Some(path) => RootCerts::Specific(Arc::new(authorities(path)?)),
        };
        let proxy = match &self.proxy {
            Some(url) => Some(Proxy::new(url).map_err(|error| {
                Error::input("proxy", "a proxy's URL", format!("{url:?}: {error}"))
                    .next("give --proxy another URL")
            })?),
            None if place.is_local => None,
            None => Proxy::try_from_env(),
        };
        Ok(Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .proxy(proxy)
            .middleware(carrier)
            .build()
            .new_agent())
    }
}

/// The certificates in a PEM file, of which there must be some.
fn authorities(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let pem = crate::home::read_text(path)?;
    let certificates: Vec<_> = ureq::tls::parse_pem(pem.as_bytes())
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        let expected = format!("certificates in PEM in {}", path.display());
        return Err(Error::input("ca", expected, "none")
            .next("give --ca, SEALFOLD_CA or SSL_CERT_FILE another file"));
    }
    Ok(certificates)
}
