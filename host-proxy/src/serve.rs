//! The HTTPS server for sites, and the start and the end of everything.

use crate::access::Peer;
use crate::access::nonces::Nonces;
use crate::conductor::Conductor;
use crate::enclave::Enclave;
use crate::host::{Host, Terms};
use crate::limits::{Peers, Taken};
use crate::log::Log;
use crate::staging::Staging;
use crate::store::Store;
use crate::witness::{self, Witness};
use crate::{door, routes};
use anyhow::{Context, bail};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusBuilder;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sealfold_protocol::api::MAX_HEAD_READ;
use sealfold_protocol::endpoint::{AsyncStream, Endpoint};
use sealfold_protocol::{Digest, VerifyingKey};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// The most connections at a time.
const MAX_CONNECTIONS: usize = 1024;
/// How long a client may take for the TLS handshake or a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);

/// What `sealfold-host serve` was asked for.
// The doc comments are the help texts, where links would be in the way.
#[allow(rustdoc::bare_urls, clippy::doc_markdown)]
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where sites are served; plain HTTP only on a loopback address.
    #[arg(long, value_name = "ENDPOINT", default_value = "tcp://127.0.0.1:8080")]
    pub listen: Endpoint,
    /// The TLS certificate chain, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The TLS private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Where the enclave serves, for example vsock://16:5000.
    #[arg(long, value_name = "ENDPOINT")]
    pub enclave: Endpoint,
    /// Where the enclave finds the record door, for example
    /// vsock://4294967295:5001.
    #[arg(long, value_name = "ENDPOINT")]
    pub door: Endpoint,
    /// The folder for uploads under way, and for everything else without
    /// --store.
    #[arg(long, value_name = "FOLDER", default_value = "data")]
    pub data: PathBuf,
    /// An object store for documents and aggregates, for example
    /// s3://bucket/prefix; credentials come from the environment.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// The identity of a study that this host serves; may be repeated. `sealfold
    /// operator introduce` adds more while it runs.
    #[arg(long = "study", value_name = "IDENTITY")]
    pub studies: Vec<Digest>,
    /// Serve every study that anybody publishes; they take turns at the enclave.
    /// Good for a trial, not for the open network.
    #[arg(long)]
    pub any_study: bool,
    /// The public key of an operator, as `sealfold operator key` prints it; may be
    /// repeated. Requests of an operator are signed with it.
    #[arg(long = "operator", value_name = "KEY")]
    pub operators: Vec<VerifyingKey>,
    /// A name that sites know this host by, with its port if that is not the
    /// scheme's own; may be repeated. With it a signed request to another name is
    /// refused, so that another host cannot pass on what was meant for it.
    #[arg(long = "name", value_name = "NAME[:PORT]")]
    pub names: Vec<String>,
    /// Requests a second that each site may make.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub site_rate: u32,
    /// Requests a second that each address may make without a known key. Behind a
    /// reverse proxy all of them have one address.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub stranger_rate: u32,
    /// Requests a minute for fresh evidence that each site may make, one at a time.
    /// A platform may sign few documents: Confidential Space ten tokens a minute,
    /// for all sites and for the host's own offers.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub evidence_rate: u32,
    /// Where metrics are served, at /metrics in the Prometheus text format and
    /// without TLS, for example tcp://127.0.0.1:9464; nowhere without it. They tell
    /// sizes, progress and refusals: keep them from strangers and from sites.
    #[arg(long, value_name = "ENDPOINT")]
    pub metrics: Option<Endpoint>,
    /// The log's name, such as log.hospital.example/heart; chosen once, when the
    /// log begins. Its key is made then and kept in the data folder; readers
    /// know the log by the key that is printed when the host starts.
    #[arg(long, value_name = "NAME")]
    pub log_origin: Option<String>,
    /// A witness of the log: its key, NAME+HASH+KEY, whose cosignatures are kept
    /// besides the sites', and behind a space the URL where it is asked for them
    /// (C2SP tlog-witness); may be repeated.
    #[arg(long = "witness", value_name = "KEY[ URL]")]
    pub witnesses: Vec<Witness>,
    /// The largest initial model that is taken, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 30)]
    pub largest_model: u64,
}

/// Serves until the process is told to stop.
///
/// # Errors
/// If something cannot be opened, read or listened on.
pub async fn serve(options: Options) -> anyhow::Result<()> {
    let tls = match (&options.tls_cert, &options.tls_key) {
        (Some(certificate), Some(key)) => Some(acceptor(certificate, key)?),
        _ if is_local(&options.listen) => None,
        _ => bail!(
            "plain HTTP is served on a loopback address only, found {}; give --tls-cert and --tls-key",
            options.listen
        ),
    };
    let data = &options.data;
    // What is sealed is nobody's business either.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    let lock = File::options().create(true).truncate(false).write(true).open(data.join("lock"))?;
    if lock.try_lock().is_err() {
        bail!("another host runs on {}; each needs a folder of its own", data.display());
    }
    let store = match &options.store {
        Some(url) => Store::url(url).with_context(|| format!("cannot open the store {url}"))?,
        None => Store::folder(&data.join("store"))?,
    };
    let staging = Staging::open(&data.join("staging"))?;
    let metrics = PrometheusBuilder::new().install_recorder()?;
    let terms = Terms {
        studies: options.studies.into_iter().collect(),
        any_study: options.any_study,
        operators: options.operators.into_iter().collect(),
        names: options.names.iter().map(|name| name.to_ascii_lowercase()).collect(),
        site_rate: options.site_rate,
        stranger_rate: options.stranger_rate,
        evidence_rate: options.evidence_rate,
        largest_model: options.largest_model,
        witnesses: options.witnesses,
    };
    if terms.any_study {
        tracing::warn!("every study is served that anybody publishes (--any-study)");
    } else if terms.studies.is_empty() && terms.operators.is_empty() {
        tracing::warn!("no study can be introduced; give --study IDENTITY or --operator KEY");
    }
    let nonces = Nonces::open(&data.join("nonces"), jiff::Timestamp::now().as_second())
        .context("cannot read the nonces of signed requests")?;
    let log = Log::open(&store, data, options.log_origin.as_deref())
        .await
        .context("cannot open the log")?;
    let enclave = Enclave::new(options.enclave);
    let host = Host::open(store, staging.clone(), enclave, metrics, terms, log, nonces)
        .await
        .with_context(|| format!("cannot read what is in {}", data.display()))?;
    door::serve(&options.door, &staging)
        .with_context(|| format!("cannot listen at {}", options.door))?;
    witness::start(&host);
    let conductor = tokio::spawn(Conductor::new(host.clone()).run());
    let metrics = async {
        match &options.metrics {
            Some(at) => accept("metrics", at, None, routes::metrics(host.clone())).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = accept("listening", &options.listen, tls, routes::router(host.clone())) => result?,
        result = metrics => result?,
        result = conductor => result?,
        () = stop() => tracing::info!("stopping; nothing acknowledged is lost"),
    }
    drop(lock);
    Ok(())
}

fn is_local(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Tcp(address) => {
            let host = address.rsplit_once(':').map_or("", |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host == "localhost"
                || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Endpoint::Unix(_) => true,
        Endpoint::Vsock { .. } | Endpoint::HybridVsock { .. } => false,
    }
}

fn acceptor(certificate: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("no certificates in {}", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("no private key in {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves at an endpoint, and says what and where.
async fn accept(
    what: &str,
    endpoint: &Endpoint,
    tls: Option<TlsAcceptor>,
    router: axum::Router,
) -> anyhow::Result<()> {
    let listener =
        endpoint.listen_async().with_context(|| format!("cannot listen at {endpoint}"))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    match listener.place(endpoint) {
        Endpoint::Tcp(address) => eprintln!("{what} on {scheme}://{address}"),
        place => eprintln!("{what} on {place}"),
    }
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let peers = Peers::default();
    loop {
        let place = places.clone().acquire_owned().await?;
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the server does not accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // A peer with too many connections is not answered at all.
        let Some(peer) = peers.admit(address) else { continue };
        let (tls, router) = (tls.clone(), router.clone());
        tokio::spawn(async move {
            let stream: AsyncStream = match tls {
                None => stream,
                Some(tls) => match tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => Box::new(stream),
                    _ => return,
                },
            };
            let router = TowerToHyperService::new(router);
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(Peer(address));
                router.call(request)
            });
            // A client that hangs up or sends nonsense is its own affair.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(MAX_HEAD_READ)
                .serve_connection(TokioIo::new(Taken::new(stream)), service)
                .await;
            drop((place, peer));
        });
    }
}

async fn stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
