//! The ceiling of `bench/append.py`: what axum answers when nothing is done with a request but to read its body.
//!
//! `ceiling PORT`

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(0_u16);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let answer = async |body: Bytes| {
        std::hint::black_box(body);
        StatusCode::NO_CONTENT
    };
    axum::serve(listener, Router::new().route("/append", post(answer))).await
}
