//! Servers on free ports of this machine, each in a process of its own that ends with the test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// moto, one request at a time: only so does a check and the write after it stay together.
const MOTO: &str = "
import sys
from werkzeug.serving import run_simple
from moto.server import DomainDispatcherApplication, create_backend_app
if len(sys.argv) > 1:
    run_simple('127.0.0.1', int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)
";

/// Makes a container: a request that is signed with the key that every Azurite has.
const MAKE_CONTAINER: &str = "
import base64, hashlib, hmac, http.client, sys
from email.utils import formatdate
port, account, key = sys.argv[1:]
date, version, resource = formatdate(usegmt=True), '2021-08-06', f'/{account}/archive'
signed = '\\n'.join(['PUT'] + [''] * 11 + [f'x-ms-date:{date}', f'x-ms-version:{version}',
    f'/{account}{resource}', 'restype:container'])
signature = base64.b64encode(hmac.new(base64.b64decode(key), signed.encode(), hashlib.sha256).digest()).decode()
connection = http.client.HTTPConnection('127.0.0.1', int(port), timeout=20)
connection.request('PUT', resource + '?restype=container', headers={'Content-Length': '0', 'x-ms-date': date,
    'x-ms-version': version, 'Authorization': f'SharedKey {account}:{signature}'})
answer = connection.getresponse()
sys.exit(0 if answer.status == 201 else f'{answer.status}: {answer.read()}')
";
/// Of the emulator, and public.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// What is emulated, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// moto.
    S3,
    /// Azurite.
    Azure,
}

impl Provider {
    pub const ALL: [Provider; 2] = [Provider::S3, Provider::Azure];

    pub fn name(self) -> &'static str {
        match self {
            Provider::S3 => "s3",
            Provider::Azure => "azure",
        }
    }

    /// The archive of that prefix.
    pub fn archive(self, prefix: &str) -> String {
        match self {
            Provider::S3 => format!("s3://archive/{prefix}"),
            Provider::Azure => format!("az://archive@{ACCOUNT}/{prefix}"),
        }
    }

    /// Why it cannot run here.
    pub fn lacks(self) -> Option<&'static str> {
        let mut python = Command::new("python3");
        let script = if self == Provider::S3 { MOTO } else { "" };
        let python = python.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match python.status() {
            Err(_) => Some("no python3"),
            Ok(status) if !status.success() => Some("no moto (pip install 'moto[server,s3]')"),
            Ok(_) if self == Provider::Azure && azurite().is_none() => {
                Some("no Azurite (npm install --prefix ~/.cache/morphkv/azurite azurite)")
            }
            Ok(_) => None,
        }
    }

    fn command(self, port: u16) -> Command {
        match self {
            Provider::S3 => {
                let mut python = Command::new("python3");
                python.args(["-c", MOTO, &port.to_string()]);
                python
            }
            Provider::Azure => {
                let mut azurite = Command::new(azurite().expect("Azurite was there a moment ago"));
                // Without the first it calls out.
                azurite.args(["--disableTelemetry", "--inMemoryPersistence", "--skipApiVersionCheck", "--silent"]);
                azurite.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
                azurite
            }
        }
    }
}

/// On the path, or in the cache.
fn azurite() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let folders =
        std::env::split_paths(&path).chain(cache.map(|cache| cache.join("morphkv/azurite/node_modules/.bin")));
    folders.map(|folder| folder.join("azurite-blob")).find(|file| file.is_file())
}

pub struct Server {
    provider: Provider,
    process: Child,
    port: u16,
}

impl Server {
    /// Starts it, with an empty bucket `archive`.
    pub fn start(provider: Provider) -> std::io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = provider.command(port);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let server = Server { provider, process, port };
        let begun = Instant::now();
        loop {
            match server.make_bucket() {
                Ok(()) => return Ok(server),
                Err(error) if begun.elapsed() > Duration::from_secs(60) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// What a client is told by its environment.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let url = format!("http://127.0.0.1:{}", self.port);
        let all = match self.provider {
            Provider::S3 => vec![
                ("AWS_ENDPOINT_URL", url.as_str()),
                ("AWS_REGION", "us-east-1"),
                ("AWS_ACCESS_KEY_ID", "test"),
                ("AWS_SECRET_ACCESS_KEY", "test"),
            ],
            Provider::Azure => vec![("AZURE_STORAGE_USE_EMULATOR", "true"), ("AZURITE_BLOB_STORAGE_URL", url.as_str())],
        };
        all.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
    }

    fn make_bucket(&self) -> std::io::Result<()> {
        match self.provider {
            Provider::S3 => self.make_s3_bucket(),
            Provider::Azure => {
                let mut python = Command::new("python3");
                let output =
                    python.args(["-c", MAKE_CONTAINER, &self.port.to_string(), ACCOUNT, ACCOUNT_KEY]).output()?;
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                if output.status.success() { Ok(()) } else { Err(std::io::Error::other(said)) }
            }
        }
    }

    fn make_s3_bucket(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let head = "PUT /archive HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n";
        let credentials = "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, \
                           SignedHeaders=host, Signature=0\r\n\r\n";
        stream.write_all(format!("{head}{credentials}").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let made = answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200");
        if made { Ok(()) } else { Err(std::io::Error::other(answer)) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
