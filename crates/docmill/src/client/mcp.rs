//! `mcp`: the tools for assistants over standard input and output, as a client of the API.

use super::api::Api;
use crate::exit::Ending;
use docmill_api::mcp::{Courier, ToolRequest, serve_stdio};
use docmill_model::{Code, Failure};
use serde_json::Value;

#[derive(Clone)]
struct OverHttp(Api);

#[async_trait::async_trait]
impl Courier for OverHttp {
    async fn send(&self, request: ToolRequest, _: Option<String>) -> Result<Value, Failure> {
        let sent = match &request.body {
            Some(body) => self.0.post(&request.path, body).await,
            None => self.0.get(&request.path, &[]).await,
        };
        sent.map_err(|ending| match ending {
            Ending::Refused(failure) | Ending::Failed(failure) => failure,
            _ => Failure::new(Code::Internal, "the API did not answer"),
        })
    }
}

/// Speaks until the assistant ends it.
pub async fn run(api: &Api) -> Result<(), Ending> {
    Ok(serve_stdio(OverHttp(api.clone())).await?)
}
