//! moto's server on a free port of this machine, in a process of its own that ends with the test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One request at a time: only so does a check and the write after it stay together.
const SCRIPT: &str = "
import sys
from werkzeug.serving import run_simple
from moto.server import DomainDispatcherApplication, create_backend_app
if len(sys.argv) > 1:
    run_simple('127.0.0.1', int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)
";

/// Why it cannot run here.
pub fn lacks() -> Option<&'static str> {
    let mut python = Command::new("python3");
    let python = python.args(["-c", SCRIPT]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match python.status() {
        Ok(status) if status.success() => None,
        Ok(_) => Some("no moto (pip install 'moto[server,s3]')"),
        Err(_) => Some("no python3"),
    }
}

pub struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// Starts it, with an empty bucket `archive`.
    pub fn start() -> std::io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut python = Command::new("python3");
        let python = python.args(["-c", SCRIPT, &port.to_string()]).stdin(Stdio::null());
        let process = python.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let server = Server { process, port };
        let begun = Instant::now();
        loop {
            match server.make_bucket() {
                Ok(()) => return Ok(server),
                Err(error) if begun.elapsed() > Duration::from_secs(60) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn make_bucket(&self) -> std::io::Result<()> {
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
