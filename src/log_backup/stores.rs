//! What stands behind an address, and what its errors mean.

use crate::error::{Error, ErrorKind, Result};
use crate::fs::{FileKind, RealVfs, Vfs, parent_of};
use crate::log_backup::address::{Address, Provider};
use crate::log_backup::local::LocalStore;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::memory::InMemory;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

const STEP: &str = "open the archive";

/// Archives in memory, by name, so that two handles of one process reach the same. They live as long as the process.
static IN_MEMORY: LazyLock<Mutex<BTreeMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

/// Resolves the symbolic links of a local address; makes the directory if that is asked.
///
/// # Errors
/// `NotFound`, `Refused` (no directory), `Io`. At most an empty directory was made.
pub fn locate(mut address: Address, create: bool) -> Result<Address> {
    let Some(directory) = address.directory() else { return Ok(address) };
    let vfs = RealVfs::default();
    if create && vfs.stat(&directory)?.is_none() {
        vfs.make_dir(&directory)?;
        vfs.sync_dir(parent_of(&directory)?)?;
    }
    let resolved = directory.canonicalize().map_err(|error| Error::io(STEP, &directory, error))?;
    if vfs.stat(&resolved)?.is_none_or(|stat| stat.kind != FileKind::Directory) {
        return Err(Error::new(ErrorKind::Refused, STEP, "it is no directory").at(resolved));
    }
    let resolved = resolved.to_str().ok_or_else(|| Error::new(ErrorKind::InvalidArgument, STEP, "it is not UTF-8"))?;
    address = Address::parse(&format!("file://{resolved}"))?;
    Ok(address)
}

/// Connects to what stands behind an address; sends nothing yet. One attempt at a request, its own retries included, has
/// `timeout`.
///
/// # Errors
/// `InvalidArgument`, `Io`: what the environment says does not make a connection.
pub fn connect(address: &Address, timeout: Duration) -> Result<Arc<dyn ObjectStore>> {
    let failed = |source: object_store::Error| error(STEP, address.to_string(), source);
    if !matches!(address.provider, Provider::Local | Provider::Memory) {
        // reqwest asks rustls for a process-wide provider; whoever came first may have chosen another.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let plain = address.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let client = ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(timeout.min(Duration::from_secs(10)))
        .with_timeout(timeout.min(Duration::from_secs(60)));
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(5), ..BackoffConfig::default() };
    let retry = RetryConfig { backoff, max_retries: 3, retry_timeout: timeout.min(Duration::from_secs(60)) };
    let store: Arc<dyn ObjectStore> = match address.provider {
        Provider::Local => Arc::new(LocalStore::new(Path::new(&address.prefix).to_path_buf()).map_err(failed)?),
        Provider::Memory => Arc::clone(IN_MEMORY.lock().entry(address.bucket.clone()).or_default()) as _,
        Provider::S3 => {
            let builder = at_s3(AmazonS3Builder::from_env(), address);
            Arc::new(builder.with_client_options(client).with_retry(retry).build().map_err(failed)?)
        }
        Provider::Gcs => {
            let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(&address.bucket);
            Arc::new(builder.with_client_options(client).with_retry(retry).build().map_err(failed)?)
        }
        Provider::Azure => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(&address.bucket);
            if let Some(account) = &address.account {
                builder = builder.with_account(account);
            }
            if let Some(endpoint) = &address.endpoint {
                builder = builder.with_endpoint(endpoint.clone());
            }
            Arc::new(builder.with_client_options(client).with_retry(retry).build().map_err(failed)?)
        }
    };
    Ok(store)
}

/// The address wins over the environment: it is what was recorded.
fn at_s3(mut builder: AmazonS3Builder, address: &Address) -> AmazonS3Builder {
    builder = builder.with_bucket_name(&address.bucket);
    if let Some(endpoint) = &address.endpoint {
        // `with_endpoint` would set the one that gives way to AWS_ENDPOINT_URL_S3.
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    if let Some(region) = &address.region {
        builder = builder.with_region(region);
    }
    builder
}

/// Whether the same request may succeed a moment later.
pub fn is_transient(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Generic { .. } | object_store::Error::JoinError { .. }) && !is_full(error)
}

fn is_full(error: &object_store::Error) -> bool {
    let full = |error: &std::io::Error| {
        matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    };
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref().is_some_and(full) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// An error of a store, sorted by what the caller can do.
pub fn error(step: &'static str, place: String, source: object_store::Error) -> Error {
    use object_store::Error as Cause;
    let (kind, advice) = match &source {
        Cause::NotFound { .. } => (ErrorKind::NotFound, None),
        Cause::AlreadyExists { .. } | Cause::Precondition { .. } => (ErrorKind::Conflict, None),
        Cause::NotImplemented { .. } | Cause::NotSupported { .. } => (ErrorKind::Unsupported, None),
        Cause::InvalidPath { .. } | Cause::UnknownConfigurationKey { .. } => (ErrorKind::InvalidArgument, None),
        Cause::PermissionDenied { .. } | Cause::Unauthenticated { .. } => {
            (ErrorKind::Io, Some("check the credentials in the environment, and what they may do"))
        }
        _ if is_full(&source) => (ErrorKind::NoSpace, None),
        _ => (ErrorKind::Io, Some("check the network and the store, and repeat; what was acknowledged is safe")),
    };
    let text = match &source {
        Cause::NotFound { .. } => "it is not there".to_string(),
        _ => source.to_string(),
    };
    let error = Error::new(kind, step, text).at(place).because(source);
    advice.into_iter().fold(error, Error::next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted_by_what_the_caller_can_do() {
        let generic = |error: std::io::Error| object_store::Error::Generic { store: "test", source: error.into() };
        let full = generic(std::io::Error::from_raw_os_error(28));
        assert!(!is_transient(&full));
        assert_eq!(error("write", "x".into(), full).kind(), ErrorKind::NoSpace);
        let broken = generic(std::io::Error::from_raw_os_error(5));
        assert!(is_transient(&broken));
        let broken = error("write", "x".into(), broken);
        assert_eq!((broken.kind(), broken.next_command().is_some()), (ErrorKind::Io, true));
        let denied = object_store::Error::PermissionDenied { path: "x".into(), source: "no".into() };
        assert!(!is_transient(&denied));
        assert!(error("write", "x".into(), denied).next_command().unwrap().contains("credentials"));
    }

    #[test]
    fn every_kind_of_address_makes_a_store() {
        for url in ["memory://stores-test", "s3://bucket/p?endpoint=http://127.0.0.1:1&region=r", "az://c@account/p"] {
            let address = Address::parse(url).unwrap();
            assert!(connect(&address, Duration::from_secs(1)).is_ok(), "{url}");
        }
    }

    #[test]
    fn an_endpoint_in_the_url_wins_over_the_environment() {
        let address = Address::parse("s3://bucket?endpoint=http://here:1&region=r").unwrap();
        let environment = AmazonS3Builder::new().with_config(AmazonS3ConfigKey::S3Endpoint, "http://elsewhere:2");
        let built = at_s3(environment.with_region("other"), &address);
        let said = |key| built.get_config_value(&key).unwrap();
        assert_eq!(said(AmazonS3ConfigKey::S3Endpoint), "http://here:1");
        assert_eq!((said(AmazonS3ConfigKey::Bucket), said(AmazonS3ConfigKey::Region)), ("bucket".into(), "r".into()));
    }

    #[test]
    fn a_link_to_a_directory_is_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        let real = directory.path().join("real");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let address = |path: &Path| Address::parse(&format!("file://{}", path.display())).unwrap();
        assert_eq!(locate(address(&real), false).unwrap_err().kind(), ErrorKind::NotFound);
        let resolved = locate(address(&real), true).unwrap();
        assert_eq!(locate(address(&link), false).unwrap(), resolved);
        std::fs::write(directory.path().join("file"), "").unwrap();
        assert_eq!(locate(address(&directory.path().join("file")), true).unwrap_err().kind(), ErrorKind::Refused);
    }
}
