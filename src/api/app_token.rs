//! `POST /api/v1/token`, by which Run:ai's clients change an application's id and secret for a token. Here the id is a token's name, and the
//! secret the token.
//!
//! These clients read from a JSON Web Token (RFC 7519) when it ends. So what they get is the token itself in the dress of one: a header,
//! a payload with `exp`, and in place of a signature the token. There is nothing to sign, as nothing in it is taken at its word.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{RawQuery, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::Console;
use super::answer;
use super::parameters::Parameters;
use crate::clock::{Clock, SystemClock};
use crate::http::{Code, Problem};
use crate::record::{DAY_MS, Timestamp};

/// Where it is asked for.
pub(super) const PATH: &str = "/api/v1/token";
/// Bytes of a request.
const BODY_BYTES_MAX: usize = 16 << 10;
/// Of a dressed token: no signature.
const HEADER: &[u8] = br#"{"alg":"none","typ":"JWT"}"#;

/// Who asks for a token.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AppToken {
    /// `app_token`.
    grant_type: String,
    /// The name of a token.
    #[serde(rename = "AppId", alias = "appId")]
    app_id: String,
    /// The token.
    #[serde(rename = "AppSecret", alias = "appSecret")]
    app_secret: String,
}

/// The token, in the dress of a JSON Web Token.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Granted {
    /// To be sent as `Authorization: Bearer …`.
    access_token: String,
}

/// `POST /api/v1/token`.
pub(super) async fn grant(
    State(console): State<Arc<Console>>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Response, Problem> {
    Parameters::parse(query.as_deref(), &[])?;
    let body: Bytes = to_bytes(body, BODY_BYTES_MAX)
        .await
        .map_err(|_| Problem::new(Code::TooLarge, "the body did not come whole, or has more than 16 KiB"))?;
    let asked: AppToken = serde_json::from_slice(&body).map_err(|_| {
        Problem::new(Code::InvalidJson, "send {\"grantType\": \"app_token\", \"AppId\": …, \"AppSecret\": …}")
    })?;
    if asked.grant_type != "app_token" {
        return Err(Problem::new(Code::InvalidJson, "only the `grantType` `app_token` is known"));
    }
    let now = SystemClock.now();
    let expires = console.access.verify(&asked.app_id, asked.app_secret.as_bytes(), now)?;
    let expires = expires.unwrap_or_else(|| now.plus_millis(DAY_MS));
    Ok(answer::small(&Granted { access_token: dressed(&asked.app_secret, expires) }))
}

fn dressed(token: &str, expires: Timestamp) -> String {
    let payload = format!("{{\"exp\":{}}}", expires.millis() / 1000);
    format!("{}.{}.{token}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(payload))
}

/// The token in what a client shows, dressed or not.
pub(super) fn undressed(shown: &[u8]) -> &[u8] {
    let mut parts = shown.splitn(3, |byte| *byte == b'.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(_), Some(token)) => token,
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dressed_token_tells_when_it_ends_and_is_undressed() {
        let token = dressed("al_x-Y_z", Timestamp::from_millis(1_769_591_564_381));
        let payload = token.split('.').nth(1).unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(payload).unwrap(), br#"{"exp":1769591564}"#);
        assert_eq!(undressed(token.as_bytes()), b"al_x-Y_z");
        for bare in ["al_x", "", "a.b", "."] {
            assert_eq!(undressed(bare.as_bytes()), bare.as_bytes());
        }
    }
}
