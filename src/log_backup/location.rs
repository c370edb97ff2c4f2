//! Whether two archives are at one place. Pure.
//!
//! A compaction made of the log in one place says nothing of a log in another, even where bucket and prefix are called the
//! same. What is compared depends on the kind of store; credentials and ways to connect never are, since they are no part of
//! an [`Address`].
//!
//! | kind | compared |
//! |---|---|
//! | S3 | endpoint, region, bucket, prefix |
//! | Google Cloud Storage | bucket, prefix |
//! | Azure | account, endpoint, container, prefix |
//! | local directory | path |
//! | memory | name, prefix |
//!
//! Spelling does not count: `Address` has one for each place. Symbolic links of local directories were resolved when the
//! archive was opened, and what a URL does not say was taken from the environment then.

use crate::log_backup::address::{Address, Provider};
use std::fmt;

/// The first thing in which two places differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What differs: `kind`, `endpoint`, `region`, `bucket`, `container`, `account`, `prefix`, `path` or `name`.
    pub field: &'static str,
    /// How it is in the first.
    pub one: String,
    /// How it is in the second.
    pub other: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { field, one, other } = self;
        if *field == "kind" {
            return write!(f, "they are in stores of different kinds, {one} and {other}");
        }
        let shown = |text: &str| if text.is_empty() { "none".to_owned() } else { format!("`{text}`") };
        write!(f, "the {field} differs: {} and {}", shown(one), shown(other))
    }
}

fn kind(provider: Provider) -> &'static str {
    match provider {
        Provider::Local => "a local directory",
        Provider::S3 => "S3",
        Provider::Gcs => "Google Cloud Storage",
        Provider::Azure => "Azure Blob Storage",
        Provider::Memory => "memory",
    }
}

/// What tells one place from another, by name.
fn fields(address: &Address) -> Vec<(&'static str, &str)> {
    let Address { provider, bucket, account, endpoint, region, prefix } = address;
    match provider {
        Provider::Local => vec![("path", prefix)],
        Provider::S3 => vec![
            ("endpoint", endpoint.as_deref().unwrap_or_default()),
            ("region", region.as_deref().unwrap_or_default()),
            ("bucket", bucket),
            ("prefix", prefix),
        ],
        Provider::Gcs => vec![("bucket", bucket), ("prefix", prefix)],
        Provider::Azure => vec![
            ("account", account.as_deref().unwrap_or_default()),
            ("endpoint", endpoint.as_deref().unwrap_or_default()),
            ("container", bucket),
            ("prefix", prefix),
        ],
        Provider::Memory => vec![("name", bucket), ("prefix", prefix)],
    }
}

/// Compares two places.
///
/// # Errors
/// The first field that differs; of different kinds nothing else is compared.
pub fn compare(one: &Address, other: &Address) -> Result<(), Difference> {
    if one.provider != other.provider {
        let (one, other) = (kind(one.provider).into(), kind(other.provider).into());
        return Err(Difference { field: "kind", one, other });
    }
    let differing = fields(one).into_iter().zip(fields(other)).find(|(one, other)| one != other);
    differing
        .map_or(Ok(()), |((field, one), (_, other))| Err(Difference { field, one: one.into(), other: other.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> Address {
        Address::parse(url).unwrap()
    }

    fn differs(one: &str, other: &str) -> &'static str {
        compare(&at(one), &at(other)).unwrap_err().field
    }

    #[test]
    fn each_field_alone_makes_a_difference_and_is_named() {
        let s3 = "s3://bucket/a/b?endpoint=https://host&region=eu-1";
        for (other, field) in [
            ("s3://bucket/a/b?endpoint=https://host2&region=eu-1", "endpoint"),
            ("s3://bucket/a/b?endpoint=http://host&region=eu-1", "endpoint"),
            ("s3://bucket/a/b?region=eu-1", "endpoint"),
            ("s3://bucket/a/b?endpoint=https://host&region=eu-2", "region"),
            ("s3://bucket/a/b?endpoint=https://host", "region"),
            ("s3://bucket2/a/b?endpoint=https://host&region=eu-1", "bucket"),
            ("s3://bucket/a/c?endpoint=https://host&region=eu-1", "prefix"),
            ("s3://bucket/a?endpoint=https://host&region=eu-1", "prefix"),
            ("s3://bucket/A/b?endpoint=https://host&region=eu-1", "prefix"),
        ] {
            assert_eq!(differs(s3, other), field, "{other}");
            assert_eq!(differs(other, s3), field, "{other}");
        }
        assert_eq!(differs("gs://bucket/a", "gs://bucket2/a"), "bucket");
        assert_eq!(differs("gs://bucket/a", "gs://bucket/b"), "prefix");
        let azure = "az://container@account/a?endpoint=https://host";
        for (other, field) in [
            ("az://container@account2/a?endpoint=https://host", "account"),
            ("az://container/a?endpoint=https://host", "account"),
            ("az://container@account/a?endpoint=https://host2", "endpoint"),
            ("az://container2@account/a?endpoint=https://host", "container"),
            ("az://container@account/b?endpoint=https://host", "prefix"),
        ] {
            assert_eq!(differs(azure, other), field, "{other}");
        }
        assert_eq!(differs("file:///log", "file:///log2"), "path");
        assert_eq!(differs("file:///log", "file:///log/a"), "path");
        assert_eq!(differs("file:///log", "file:///LOG"), "path");
        assert_eq!(differs("memory://one/a", "memory://two/a"), "name");
        assert_eq!(differs("memory://one/a", "memory://one/b"), "prefix");
    }

    #[test]
    fn spelling_and_credentials_make_none() {
        for (one, other) in [
            ("file:///log", "file:///log/"),
            ("file:///log", "file:///./log//."),
            ("file:///", "file:////"),
            ("s3://bucket", "s3a://bucket/"),
            ("s3://bucket/a/b", "s3a://bucket//a/b/"),
            ("s3://b?region=eu-1&endpoint=https://host", "s3://b?endpoint=HTTPS://Host/&region=eu-1"),
            ("s3://b?endpoint=https://host", "s3://b?endpoint=https://host:443"),
            ("s3://b?endpoint=http://host", "s3://b?endpoint=http://host:80/"),
            ("gs://bucket/a", "gs://bucket/a/"),
            ("az://container@account/a", "azure://container@account/a/"),
            ("memory://one", "memory://one/"),
        ] {
            assert_eq!(compare(&at(one), &at(other)), Ok(()), "{one} {other}");
        }
        // Credentials are in the environment alone, whatever they are.
        let secret = |name: &str| name.contains("SECRET").then(|| "x".to_owned());
        let with = |url: &str| at(url).complete(secret).unwrap();
        assert_eq!(compare(&with("s3://bucket/a"), &at("s3://bucket/a")), Ok(()));
    }

    #[test]
    fn what_the_environment_says_counts() {
        let region = |name: &str| (name == "AWS_REGION").then(|| "eu-1".to_owned());
        let completed = at("s3://bucket/a").complete(region).unwrap();
        assert_eq!(compare(&completed, &at("s3://bucket/a?region=eu-1")), Ok(()));
        assert_eq!(compare(&completed, &at("s3://bucket/a?region=eu-2")).unwrap_err().field, "region");
    }

    #[test]
    fn different_kinds_are_told_as_such() {
        let urls = ["s3://b/a", "gs://b/a", "az://b/a", "memory://b/a", "file:///b/a"];
        for one in urls {
            for other in urls.iter().filter(|other| **other != one) {
                let difference = compare(&at(one), &at(other)).unwrap_err();
                assert_eq!(difference.field, "kind");
                assert!(difference.to_string().starts_with("they are in stores of different kinds"), "{difference}");
            }
        }
        let message = compare(&at("s3://b/a?region=x"), &at("s3://b/a")).unwrap_err().to_string();
        assert_eq!(message, "the region differs: `x` and none");
    }
}
