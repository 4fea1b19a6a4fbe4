//! `warren audit`: who did what.

use clap::Args;
use serde_json::{Value, json};
use warren_messages::wire::{AuditRequest, operations_client::OperationsClient};

use crate::{client::Server, error::CliError, output};

/// Who did what, newest first.
#[derive(Args, Debug)]
pub(crate) struct Audit {
    /// Most rows.
    #[arg(short, long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

/// Lists.
///
/// # Errors
/// When the server refuses or stays away.
pub(crate) async fn run(server: &Server, arguments: &Audit, json: bool) -> Result<(), CliError> {
    let request = AuditRequest { limit: arguments.limit };
    let found = server
        .call(async |transport| OperationsClient::new(transport).audit(request).await.map(tonic::Response::into_inner))
        .await?;
    if json {
        return found.rows.iter().try_for_each(|row| {
            let detail = serde_json::from_str::<Value>(&row.detail).unwrap_or_else(|_| row.detail.clone().into());
            output::json_line(&json!({
                "at": row.at, "actor": row.actor, "verb": row.verb, "subject": row.subject, "detail": detail,
            }))
        });
    }
    let mut table = output::listing(&["when (UTC)", "who", "what", "to what", "detail"]);
    for row in &found.rows {
        let at = output::time(row.at.as_ref());
        table.add_row([&at, &row.actor, &row.verb, &row.subject, &output::beginning(&row.detail, 80)]);
    }
    output::line(table)
}
