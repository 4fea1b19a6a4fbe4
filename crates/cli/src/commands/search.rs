//! `warren search`: the archive by words and by meaning.

use clap::Args;
use serde_json::json;
use warren_messages::wire::{SearchRequest, SearchResponse, search_client::SearchClient};

use crate::{client::Server, error::CliError, output};

/// Search everything that was indexed.
#[derive(Args, Debug)]
pub(crate) struct Search {
    /// What to look for, in your own words.
    #[arg(required = true)]
    words: Vec<String>,
    /// Most hits.
    #[arg(short, long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
}

/// Runs the command.
///
/// # Errors
/// When the server refuses or stays away.
pub(crate) async fn run(server: &Server, arguments: &Search, json: bool) -> Result<(), CliError> {
    let found = search(server, &arguments.words.join(" "), arguments.limit).await?;
    for hit in &found.hits {
        if json {
            output::json_line(&json!({
                "job": hit.job, "name": hit.name, "start": hit.start, "end": hit.end, "text": hit.text,
                "score": hit.score, "similarity": hit.similarity,
            }))?;
        } else {
            let at = if hit.end > 0.0 { format!(" {}", output::clock(hit.start)) } else { String::new() };
            output::line(format_args!("{:.2}  {}{at}\n      {}", hit.similarity, hit.name, hit.text))?;
        }
    }
    if !found.hits.is_empty() && found.hits.iter().all(|hit| hit.similarity == 0.0) {
        eprintln!("only words were compared: no worker turned the query into a vector in time");
    }
    if found.hits.is_empty() && !json {
        let more = server.command("transcribe --index FILE");
        eprintln!("nothing found among {} passages; index more with: {more}", found.indexed);
    }
    Ok(())
}

/// Asks the server.
///
/// # Errors
/// When it refuses or stays away.
pub(crate) async fn search(server: &Server, query: &str, limit: u32) -> Result<SearchResponse, CliError> {
    let request = SearchRequest { query: query.to_owned(), limit };
    server
        .call(async |transport| {
            SearchClient::new(transport).query(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await
}
