//! Statements that both databases understand, and lists of any length as one parameter.
//!
//! A list travels as one JSON text and becomes a table inside the statement. The statement's text is then the same for
//! one row and for a thousand: it is prepared once for each connection, and a group of results costs one round trip.

use sea_orm::{DbBackend, FromQueryResult, Statement, Value};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::StoreError;

/// Type of a column of a [`table`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column {
    /// A UUID, written with [`id`].
    Id(&'static str),
    /// Bytes, written with [`bytes`].
    Bytes(&'static str),
    /// 64 bits.
    Int(&'static str),
    /// A double.
    Real(&'static str),
    /// Text, or null.
    Text(&'static str),
}

pub(crate) fn statement(
    backend: DbBackend,
    text: impl Into<String>,
    values: impl IntoIterator<Item = Value>,
) -> Statement {
    Statement::from_sql_and_values(backend, text, values)
}

/// A table named `v` made from the JSON array of objects in parameter number `parameter`.
pub(crate) fn table(backend: DbBackend, parameter: u32, columns: &[Column]) -> String {
    let list = |one: &dyn Fn(&Column) -> String| columns.iter().map(one).collect::<Vec<_>>().join(", ");
    match backend {
        DbBackend::Sqlite => {
            let columns = list(&|column| match column {
                Column::Id(name) | Column::Bytes(name) => format!("unhex(value->>'{name}') AS {name}"),
                Column::Int(name) | Column::Real(name) | Column::Text(name) => format!("value->>'{name}' AS {name}"),
            });
            format!("(SELECT {columns} FROM json_each(${parameter})) AS v")
        }
        _ => {
            let types = list(&|column| match column {
                Column::Id(name) => format!("{name} uuid"),
                Column::Int(name) => format!("{name} bigint"),
                Column::Real(name) => format!("{name} double precision"),
                Column::Bytes(name) | Column::Text(name) => format!("{name} text"),
            });
            let columns = list(&|column| match column {
                Column::Bytes(name) => format!("decode({name}, 'hex') AS {name}"),
                Column::Id(name) | Column::Int(name) | Column::Real(name) | Column::Text(name) => (*name).to_owned(),
            });
            format!("(SELECT {columns} FROM jsonb_to_recordset(CAST(${parameter} AS jsonb)) AS r({types})) AS v")
        }
    }
}

/// The parameter for a [`table`].
pub(crate) fn list(rows: impl IntoIterator<Item = Json>) -> Value {
    Value::from(Json::Array(rows.into_iter().collect()).to_string())
}

/// The parameter for a [`table`] of ids alone, in a column `id`.
pub(crate) fn ids<'i>(ids: impl IntoIterator<Item = &'i Uuid>) -> Value {
    list(ids.into_iter().map(|each| serde_json::json!({ "id": id(each) })))
}

/// `id IN (…)` for the ids in parameter number `parameter`.
pub(crate) fn is_one_of(backend: DbBackend, column: &str, parameter: u32) -> String {
    is_one_of_these(backend, column, parameter, Column::Id("id"))
}

/// The same for a list of rows that have but an `id`, which may be a number.
pub(crate) fn is_one_of_these(backend: DbBackend, column: &str, parameter: u32, id: Column) -> String {
    let ids = format!("SELECT id FROM {}", table(backend, parameter, &[id]));
    match backend {
        DbBackend::Sqlite => format!("{column} IN ({ids})"),
        // A join would be planned for a hundred ids, whatever their number, and read the whole table for one job.
        _ => format!("{column} = ANY(ARRAY({ids}))"),
    }
}

/// A UUID inside a list.
pub(crate) fn id(id: &Uuid) -> String {
    id.simple().to_string()
}

/// Bytes inside a list.
pub(crate) fn bytes(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// Text as the databases can hold it: PostgreSQL has no place for the character NUL.
pub(crate) fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A number as the databases can hold it: SQLite turns NaN into null.
pub(crate) fn finite(number: f64) -> f64 {
    if number.is_finite() { number } else { 0.0 }
}

/// Reads the word in `column` as one of its type's names.
pub(crate) fn word<T: std::str::FromStr>(column: &str, word: &str) -> Result<T, StoreError> {
    word.parse().map_err(|_| StoreError::corrupt(format!("{column} = `{word}`")))
}

/// One number.
#[derive(Debug, FromQueryResult)]
pub(crate) struct Number {
    pub(crate) n: i64,
}

/// One id.
#[derive(Debug, FromQueryResult)]
pub(crate) struct OneId {
    pub(crate) id: Uuid,
}
