//! Files of a repository on the model hub, over HTTP, going on where an earlier try stopped.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::IpAddr,
    path::Path,
    thread,
    time::Duration,
};

use ureq::{Agent, http::Uri};

use crate::{
    HubFile, disk,
    progress::{Phase, Watch},
    pull::{Staging, Trouble},
};

/// Tries in a row that brought no byte before the source is given up.
const FRUITLESS: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const CONNECT: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(60);

/// Downloads `files` into the raw folder.
pub(crate) fn fetch(
    hub: &str,
    repository: &str,
    revision: &str,
    files: &[HubFile],
    staging: &Staging,
    watch: Watch<'_>,
) -> Result<(), Trouble> {
    let agent = agent(hub);
    for file in files {
        let url = format!("{}/{repository}/resolve/{revision}/{}", hub.trim_end_matches('/'), file.path);
        // The revision is a part of the name: a partial file of another one must not be continued.
        let kept = staging.downloads.join(format!("{revision}-{}", file.name()));
        if !kept.exists() || !is_right(file, &kept, watch)? {
            disk::remove(&kept)?;
            let partial = kept.with_added_extension("partial");
            download(&agent, &url, file, &partial, watch)?;
            if !is_right(file, &partial, watch)? {
                disk::remove(&partial)?;
                return Err(Trouble::Source(format!("{url} is not the file of the catalogue: its sha256 differs")));
            }
            fs::rename(&partial, &kept)?;
        }
    }
    for file in files {
        fs::rename(staging.downloads.join(format!("{revision}-{}", file.name())), staging.raw.join(file.name()))?;
    }
    Ok(())
}

fn agent(hub: &str) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .user_agent(concat!("warren/", env!("CARGO_PKG_VERSION")));
    // Proxies come from the environment; one must not catch a mirror on this machine.
    let config = if is_loopback(hub) { config.proxy(None) } else { config };
    config.build().new_agent()
}

fn is_loopback(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_right(file: &HubFile, path: &Path, watch: Watch<'_>) -> io::Result<bool> {
    let size = fs::metadata(path)?.len();
    if file.size.is_some_and(|expected| expected != size) {
        return Ok(false);
    }
    let Some(expected) = &file.sha256 else { return Ok(true) };
    Ok(disk::sha256(path, |done| watch.tell(Phase::Checking, file.name(), done, size))? == *expected)
}

fn download(agent: &Agent, url: &str, file: &HubFile, partial: &Path, watch: Watch<'_>) -> Result<(), Trouble> {
    let mut fruitless = 0;
    let mut wait = FIRST_WAIT;
    loop {
        let before = fs::metadata(partial).map_or(0, |found| found.len());
        let why = match attempt(agent, url, file, partial, before, watch) {
            Ok(()) => return Ok(()),
            Err(Broken::ForGood(trouble)) => return Err(trouble),
            Err(Broken::Now(why)) => why,
        };
        if fs::metadata(partial).map_or(0, |found| found.len()) > before {
            (fruitless, wait) = (0, FIRST_WAIT);
            continue;
        }
        fruitless += 1;
        if fruitless == FRUITLESS {
            return Err(Trouble::Source(format!("{url}: {why}")));
        }
        thread::sleep(wait);
        wait *= 2;
    }
}

/// How one attempt ended.
enum Broken {
    Now(String),
    ForGood(Trouble),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::ForGood(error.into())
    }
}

fn attempt(
    agent: &Agent,
    url: &str,
    file: &HubFile,
    partial: &Path,
    have: u64,
    watch: Watch<'_>,
) -> Result<(), Broken> {
    if have > 0 && file.size == Some(have) {
        return Ok(());
    }
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let response = request.call().map_err(|error| Broken::Now(error.to_string()))?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let status = response.status().as_u16();
    let (mut done, total) = match status {
        200 => (0, header("content-length").and_then(|length| length.parse().ok())),
        206 => match header("content-range").as_deref().and_then(content_range) {
            Some((first, total)) if first == have => (have, total),
            _ => {
                disk::remove(partial)?;
                return Err(Broken::Now("it answered with another range than the one asked for".to_owned()));
            }
        },
        // Nothing is left to send, or the partial file is longer than the real one.
        416 => {
            let total = header("content-range").and_then(|range| range.rsplit('/').next()?.parse::<u64>().ok());
            if total == Some(have) {
                return Ok(());
            }
            disk::remove(partial)?;
            return Err(Broken::Now("the partial file was of no use".to_owned()));
        }
        408 | 425 | 429 | 500..=599 => return Err(Broken::Now(format!("HTTP {status}"))),
        _ => return Err(Broken::ForGood(Trouble::Source(format!("{url}: HTTP {status}")))),
    };
    let total = file.size.or(total);
    let mut to = OpenOptions::new().create(true).write(true).truncate(done == 0).append(false).open(partial)?;
    if done > 0 {
        io::Seek::seek(&mut to, io::SeekFrom::Start(done))?;
    }
    let mut body = response.into_body().into_reader();
    let mut block = vec![0; 256 * 1024];
    loop {
        let count = match body.read(&mut block) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) => return Err(Broken::Now(error.to_string())),
        };
        done += count as u64;
        if total.is_some_and(|total| done > total) {
            disk::remove(partial)?;
            return Err(Broken::ForGood(Trouble::Source(format!("{url}: longer than announced"))));
        }
        to.write_all(&block[..count])?;
        watch.tell(Phase::Downloading, file.name(), done, total.unwrap_or(0));
    }
    if total.is_some_and(|total| done < total) {
        return Err(Broken::Now(format!("the connection was cut at byte {done}")));
    }
    File::sync_all(&to)?;
    Ok(())
}

/// First byte and total of `bytes 5-9/10`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let first = range.split_once('-')?.0.parse().ok()?;
    Some((first, total.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes */10", "5-9/10", "bytes -9/10", "bytes 5-9"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
