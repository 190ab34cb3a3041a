//! A Redis database of its own for each test.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// The URL of an empty Redis database that no other running test uses, or `None` where `TEST_REDIS_URL` is unset.
///
/// The server hands out numbers, so that tests in different processes agree; it needs many databases (`--databases 4096`).
pub fn redis() -> Option<String> {
    let server = url::Url::parse(&crate::wait::variable("TEST_REDIS_URL")?).expect("TEST_REDIS_URL is a URL");
    let [number] = ask(&server, ["INCR caracal:testkit:next"]);
    let number: u32 = number.trim_start_matches(':').parse().expect("a number");
    let database = 1 + number % 4000;
    let mut url = server;
    url.set_path(&database.to_string());
    let url = url.to_string();
    redis_forgets(&url);
    Some(url)
}

/// Empties the database of a URL, as a Redis that lost its memory.
pub fn redis_forgets(url: &str) {
    let url = url::Url::parse(url).expect("a URL");
    ask(&url, [&format!("SELECT {}", url.path().trim_start_matches('/')), "FLUSHDB"]);
}

fn ask<const N: usize>(server: &url::Url, commands: [&str; N]) -> [String; N] {
    let address = (server.host_str().expect("a host"), server.port().unwrap_or(6379));
    let stream = TcpStream::connect(address).expect("TEST_REDIS_URL answers");
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    commands.map(|command| {
        (&stream).write_all(format!("{command}\r\n").as_bytes()).expect("Redis reads");
        let mut line = String::new();
        reader.read_line(&mut line).expect("Redis answers");
        assert!(!line.starts_with('-'), "{command:?} answered {line:?}");
        line.trim_end().to_owned()
    })
}
