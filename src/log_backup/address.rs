//! Where an archive is: a URL without credentials, in one canonical spelling, so that two spellings of one place are
//! seen to be one.
//!
//! ```text
//! file:///srv/archive                                     a local directory, its symbolic links resolved
//! s3://bucket/prefix?endpoint=https://host&region=eu-1    endpoint and region from the environment where they are not said
//! gs://bucket/prefix
//! az://container@account/prefix?endpoint=http://host      the account from the environment where it is not said
//! memory://name/prefix                                    of this process; for tests and demonstrations
//! ```
//!
//! Credentials come from the environment, in the variables that `object_store` reads; a URL that holds some is refused,
//! since it would be written into files and logs.

use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// The longest URL, in bytes.
pub const URL_BYTES_MAX: usize = 1024;

const STEP: &str = "read the archive's URL";

/// The kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// A local directory.
    Local,
    /// Amazon S3 and what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
    /// This process.
    Memory,
}

/// A checked URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The kind of store.
    pub provider: Provider,
    /// The bucket, the container, or the name of an archive in memory; empty for directories.
    pub bucket: String,
    /// Azure's storage account.
    pub account: Option<String>,
    /// The server, where it is not the provider's own.
    pub endpoint: Option<String>,
    /// S3's region.
    pub region: Option<String>,
    /// What object names begin with; for a directory, its absolute path.
    pub prefix: String,
}

impl Address {
    /// Reads a URL. Touches nothing.
    ///
    /// # Errors
    /// `InvalidArgument`, also for a URL with credentials; the message never repeats them.
    pub fn parse(url: &str) -> Result<Self> {
        if url.len() > URL_BYTES_MAX || url.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(invalid(format!("it is over {URL_BYTES_MAX} bytes long, or holds control characters")));
        }
        let forms = "file:///PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or memory://NAME";
        let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid(format!("it must be one of {forms}")))?;
        let provider = match scheme {
            "file" => return Address::local(rest),
            "s3" | "s3a" => Provider::S3,
            "gs" => Provider::Gcs,
            "az" | "azure" => Provider::Azure,
            "memory" => Provider::Memory,
            _ => return Err(invalid(format!("it must be one of {forms}"))),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, prefix) = place.split_once('/').unwrap_or((place, ""));
        let (bucket, account) = match authority.split_once('@') {
            Some((bucket, account)) if provider == Provider::Azure => (bucket, Some(account)),
            Some(_) => return Err(invalid("credentials do not belong into a URL; set the environment's variables")),
            None => (authority, None),
        };
        let prefix = prefix.trim_matches('/');
        let sound_prefix = prefix.is_empty() || prefix.split('/').all(is_word);
        let sound_bucket = is_word(bucket) || (provider == Provider::Memory && bucket.is_empty());
        if !sound_bucket || !sound_prefix {
            return Err(invalid("bucket and prefix are made of letters, digits, `.`, `_` and `-`"));
        }
        if account.is_some_and(|account| !is_word(account)) {
            return Err(invalid("an account is made of letters, digits, `.`, `_` and `-`"));
        }
        let mut address = Address {
            provider,
            bucket: bucket.into(),
            account: account.map(String::from),
            endpoint: None,
            region: None,
            prefix: prefix.into(),
        };
        address.read_query(query)?;
        Ok(address)
    }

    fn local(path: &str) -> Result<Self> {
        // Percent signs would mean one thing to those who decode URLs and another to those who do not.
        let plain = path.starts_with('/') && !path.contains(['%', '?', '#']);
        if !plain || path.split('/').any(|part| part == "..") {
            return Err(invalid("a directory is file:///ABSOLUTE/PATH, without `..`, `%`, `?` or `#`"));
        }
        let prefix =
            format!("/{}", path.split('/').filter(|part| !["", "."].contains(part)).collect::<Vec<_>>().join("/"));
        let nothing = String::new();
        Ok(Address { provider: Provider::Local, bucket: nothing, account: None, endpoint: None, region: None, prefix })
    }

    fn read_query(&mut self, query: &str) -> Result<()> {
        let mut seen = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if seen.insert(name, ()).is_some() {
                return Err(invalid("it says the same thing twice"));
            }
            match (name, self.provider) {
                ("endpoint", Provider::S3 | Provider::Azure) => self.endpoint = Some(endpoint(value)?),
                ("region", Provider::S3) if is_word(value) => self.region = Some(value.into()),
                // The value is not shown: it could be a key.
                _ => return Err(invalid("after `?` only `endpoint=` and `region=` are known (and no credentials)")),
            }
        }
        Ok(())
    }

    /// Takes what the URL does not say from the environment.
    ///
    /// # Errors
    /// `InvalidArgument` if it says something that does not belong into a URL.
    pub fn complete(mut self, environment: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let first = |names: &[&str]| names.iter().find_map(|name| environment(name)).filter(|value| !value.is_empty());
        match self.provider {
            Provider::S3 => {
                if self.endpoint.is_none() {
                    let said = first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]);
                    self.endpoint = said.map(|value| endpoint(&value)).transpose()?;
                }
                if self.region.is_none() {
                    self.region = first(&["AWS_REGION", "AWS_DEFAULT_REGION"]).filter(|region| is_word(region));
                }
            }
            Provider::Azure => {
                if self.account.is_none() {
                    self.account = first(&["AZURE_STORAGE_ACCOUNT_NAME"]).filter(|account| is_word(account));
                }
                if self.endpoint.is_none() {
                    let said = first(&["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"]);
                    self.endpoint = said.map(|value| endpoint(&value)).transpose()?;
                }
            }
            Provider::Local | Provider::Gcs | Provider::Memory => {}
        }
        Ok(self)
    }

    /// The directory of a local archive.
    pub fn directory(&self) -> Option<PathBuf> {
        (self.provider == Provider::Local).then(|| PathBuf::from(&self.prefix))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.provider {
            Provider::Local => return write!(f, "file://{}", self.prefix),
            Provider::S3 => "s3",
            Provider::Gcs => "gs",
            Provider::Azure => "az",
            Provider::Memory => "memory",
        };
        write!(f, "{scheme}://{}", self.bucket)?;
        if let Some(account) = &self.account {
            write!(f, "@{account}")?;
        }
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        let said = [("endpoint", &self.endpoint), ("region", &self.region)];
        let said = said.iter().filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={value}")));
        let said: Vec<String> = said.collect();
        if said.is_empty() { Ok(()) } else { write!(f, "?{}", said.join("&")) }
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, STEP, message)
}

/// One part of a name, never `.` or `..`.
fn is_word(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=255).contains(&text.len()) && text != "." && text != ".." && text.bytes().all(allowed)
}

/// A server in one spelling: scheme and host in lower case, no `/` at the end.
fn endpoint(text: &str) -> Result<String> {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':' | b'/' | b'[' | b']');
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let rest = rest.trim_end_matches('/');
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = scheme.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https") || host.is_empty() || !rest.bytes().all(allowed) {
        return Err(invalid("an endpoint is http://HOST or https://HOST, without credentials"));
    }
    let (host, port) = (host.to_ascii_lowercase(), if scheme == "http" { ":80" } else { ":443" });
    Ok(format!("{scheme}://{}{path}", host.strip_suffix(port).filter(|host| !host.is_empty()).unwrap_or(&host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(url: &str) -> String {
        Address::parse(url).unwrap().to_string()
    }

    #[test]
    fn one_place_has_one_spelling() {
        assert_eq!(canonical("file:///srv//archive/"), "file:///srv/archive");
        assert_eq!(canonical("s3a://bucket//a/b/"), "s3://bucket/a/b");
        assert_eq!(
            canonical("s3://bucket?region=eu-1&endpoint=HTTPS://Host.example:9000/"),
            "s3://bucket?endpoint=https://host.example:9000&region=eu-1"
        );
        assert_eq!(canonical("gs://bucket/a"), "gs://bucket/a");
        assert_eq!(canonical("azure://container@account/a"), "az://container@account/a");
        assert_eq!(canonical("memory://"), "memory://");
        for url in ["file:///a", "s3://b/p?endpoint=http://h&region=r", "gs://b", "az://c@a/p", "memory://n/p"] {
            assert_eq!(canonical(url), url);
        }
    }

    #[test]
    fn credentials_and_nonsense_are_refused_and_not_repeated() {
        let long = format!("s3://bucket/{}", "x".repeat(1024));
        for url in [
            "",
            "/srv/archive",
            "http://host/archive",
            "file://host/archive",
            "file:///srv/../etc",
            "file:///srv/%2e%2e",
            "s3://AKIAKEY:s3cr3t@bucket/prefix",
            "s3://bucket/prefix?secret_access_key=s3cr3t",
            "s3://bucket/prefix?endpoint=https://AKIAKEY:s3cr3t@host",
            "az://c/p?sas=s3cr3t",
            "gs://bucket?region=eu",
            "s3://bucket?region=a&region=b",
            "s3://bucket/a//b",
            "s3://bucket/../b",
            "s3://",
            "s3://bucket/a\nb",
            long.as_str(),
        ] {
            let error = Address::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{url}");
            assert!(!format!("{error:?}").contains("s3cr3t"), "{error:?}");
        }
    }

    #[test]
    fn what_the_environment_says_becomes_part_of_the_address() {
        let environment = |name: &str| match name {
            "AWS_ENDPOINT_URL" => Some("http://127.0.0.1:5555/".to_string()),
            "AWS_REGION" => Some("eu-1".to_string()),
            "AZURE_STORAGE_ACCOUNT_NAME" => Some("account".to_string()),
            _ => None,
        };
        let complete = |url: &str| Address::parse(url).unwrap().complete(environment).unwrap().to_string();
        assert_eq!(complete("s3://b/p"), "s3://b/p?endpoint=http://127.0.0.1:5555&region=eu-1");
        assert_eq!(complete("s3://b?region=us-2"), "s3://b?endpoint=http://127.0.0.1:5555&region=us-2");
        assert_eq!(complete("az://c"), "az://c@account");
        let hostile = |_: &str| Some("http://key:s3cr3t@host".to_string());
        assert!(Address::parse("s3://b").unwrap().complete(hostile).is_err());
    }
}
