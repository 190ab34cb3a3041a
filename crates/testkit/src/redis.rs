//! A Redis database of its own for each test.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// The URL of an empty Redis database that no other running test uses, or `None` where `TEST_REDIS_URL` is unset.
///
/// The server hands out numbers, so that tests in different processes agree; it needs many databases (`--databases 4096`).
pub fn redis() -> Option<String> {
    let server = url::Url::parse(&crate::wait::variable("TEST_REDIS_URL")?).expect("TEST_REDIS_URL is a URL");
    let address = (server.host_str().expect("a host"), server.port().unwrap_or(6379));
    let stream = TcpStream::connect(address).expect("TEST_REDIS_URL answers");
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut ask = |command: &str| {
        (&stream).write_all(command.as_bytes()).expect("Redis reads");
        let mut line = String::new();
        reader.read_line(&mut line).expect("Redis answers");
        assert!(!line.starts_with('-'), "{command:?} answered {line:?}");
        line.trim_end().to_owned()
    };
    let number: u32 = ask("INCR caracal:testkit:next\r\n").trim_start_matches(':').parse().expect("a number");
    let database = 1 + number % 4000;
    ask(&format!("SELECT {database}\r\n"));
    ask("FLUSHDB\r\n");
    let mut url = server;
    url.set_path(&database.to_string());
    Some(url.to_string())
}
