//! Pages of lists: how long, and where the next one starts.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use tonic::Status;
use warren_clock::UnixMillis;
use warren_store::PageKey;

use crate::status::invalid;

/// A field's default and its largest value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    /// What 0 means.
    pub(crate) default: u32,
    /// Most that may be asked for.
    pub(crate) most: u32,
}

/// `page_size` of every list.
pub(crate) const PAGE: Range = Range { default: 50, most: 500 };

impl Range {
    /// The value of `field`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when it is too large.
    pub(crate) fn of(self, field: &str, given: u32) -> Result<u32, Status> {
        match given {
            0 => Ok(self.default),
            given if given <= self.most => Ok(given),
            given => Err(invalid(field, format!("must be 1 to {}, is {given}", self.most))),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Token {
    filter: String,
    at: i64,
    id: String,
}

/// The token of the page after `last`, good only with the same filter.
pub(crate) fn token<Id: ToString>(filter: &str, last: &PageKey<Id>) -> String {
    let token = Token { filter: filter.to_owned(), at: last.at.0, id: last.id.to_string() };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).expect("three plain fields always serialise"))
}

/// Reads a token back; `None` for the first page.
///
/// # Errors
/// `INVALID_ARGUMENT` for a token that this list did not give.
pub(crate) fn after<Id: std::str::FromStr>(filter: &str, token: &str) -> Result<Option<PageKey<Id>>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let token: Option<Token> = URL_SAFE_NO_PAD.decode(token).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let token = token.filter(|token| token.filter == filter);
    let key = token.and_then(|token| Some(PageKey { at: UnixMillis(token.at), id: token.id.parse().ok()? }));
    let problem = "is not from a page of this list; start again without it";
    key.map(Some).ok_or_else(|| invalid("page_token", problem))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn sizes_out_of_range_are_refused() {
        assert_eq!(PAGE.of("page_size", 0).expect("default"), 50);
        assert_eq!(PAGE.of("page_size", 500).expect("most"), 500);
        let status = PAGE.of("page_size", 501).expect_err("too many");
        assert!(status.message().contains("page_size") && status.message().contains("1 to 500"), "{status}");
    }

    #[test]
    fn a_token_reads_back_only_with_its_filter() {
        let key = PageKey { at: UnixMillis(7), id: Uuid::from_u128(3) };
        let token = token("running", &key);
        assert_eq!(after("running", &token).expect("its own"), Some(key));
        assert_eq!(after::<Uuid>("running", "").expect("the first page"), None);
        for (filter, token) in [("failed", token.as_str()), ("running", "%%"), ("running", "e30")] {
            assert!(after::<Uuid>(filter, token).is_err(), "{filter} {token}");
        }
    }
}
