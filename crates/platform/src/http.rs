//! How outgoing HTTP clients are made: one TLS provider, no redirects, and no proxy of the environment.

use docmill_model::{Code, Failure};
use reqwest::{Client, ClientBuilder, redirect};

/// A client as `configure` wants it. On a machine without root certificates it can still speak plain HTTP.
///
/// # Errors
/// `CONFIG_INVALID` when TLS cannot be set up.
pub(crate) fn client(configure: impl Fn(ClientBuilder) -> ClientBuilder) -> Result<Client, Failure> {
    // Fails when the process has installed one before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let base = || configure(Client::builder().redirect(redirect::Policy::none()).no_proxy().user_agent("docmill"));
    base()
        .build()
        .or_else(|_| base().tls_certs_only([]).build())
        .map_err(|error| Failure::new(Code::ConfigInvalid, format!("no HTTP client can be made: {error}")))
}
