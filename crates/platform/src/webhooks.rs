//! Signed notifications to other people's servers, as <https://www.standardwebhooks.com> has them.
//!
//! Whoever registers a URL must not make us talk to our own network, so an address is looked at twice: by [`check_url`]
//! when a URL is registered, and when it is dialled, after the name was resolved and before a connection is opened
//! (every address of the name must be public; the connection goes to exactly those). Redirects are not followed. Not
//! here: when to try again and when to give up (the runtime's deliveries), and what is to be told (the notify stage's).

mod address;
mod signature;

pub use address::is_public;
pub use signature::{fresh_secret, is_secret, sign};

use bytes::Bytes;
use docmill_model::{Code, Failure};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use secrecy::SecretString;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Longest wait for an answer, connecting included.
pub const TIMEOUT: Duration = Duration::from_secs(15);
/// Ports a receiver may listen on.
const PORTS: [u16; 4] = [80, 443, 8080, 8443];
const MAX_URL_BYTES: usize = 2048;
/// Names that never mean a public host.
const PRIVATE_NAMES: [&str; 5] = ["localhost", "local", "internal", "home.arpa", "onion"];

/// One try of one notification.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The same for every try of one event and endpoint, so that the receiver can tell repetitions.
    pub id: String,
    /// The receiver.
    pub url: String,
    /// `whsec_…`, each of which signs.
    pub secrets: Vec<SecretString>,
    /// Unix time of this try in seconds.
    pub timestamp: i64,
    /// The JSON body, sent as it is.
    pub body: Bytes,
}

/// Sends deliveries.
#[derive(Clone)]
pub struct WebhookSender {
    client: reqwest::Client,
    allow_private: bool,
}

impl WebhookSender {
    /// A sender. `allow_private` lets it dial any address, port and plain HTTP: for the embedded mode only.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when TLS cannot be set up.
    pub fn new(allow_private: bool) -> Result<Self, Failure> {
        Self::with_timeout(allow_private, TIMEOUT)
    }

    /// As [`WebhookSender::new`], with another limit than [`TIMEOUT`].
    ///
    /// # Errors
    /// `CONFIG_INVALID` when TLS cannot be set up.
    pub fn with_timeout(allow_private: bool, timeout: Duration) -> Result<Self, Failure> {
        let client = crate::http::client(|builder| {
            // No idle connections: every try resolves the name and is checked.
            builder.timeout(timeout).pool_max_idle_per_host(0).dns_resolver(PublicResolver { allow_private })
        })?;
        Ok(Self { client, allow_private })
    }

    /// Sends one try and returns the status of the answer, whatever it is; 3xx is not followed, the body is not read.
    ///
    /// # Errors
    /// `DELIVERY_BLOCKED` for an address that is not allowed, `DELIVERY_FAILED` without an answer in time,
    /// `CONFIG_INVALID` for a secret that is none.
    pub async fn send(&self, delivery: &Delivery) -> Result<u16, Failure> {
        check_url(&delivery.url, self.allow_private)
            .map_err(|failure| Failure::new(Code::DeliveryBlocked, failure.message))?;
        let signatures = delivery
            .secrets
            .iter()
            .map(|secret| sign(secret, &delivery.id, delivery.timestamp, &delivery.body))
            .collect::<Result<Vec<_>, _>>()?;
        let request = self
            .client
            .post(&delivery.url)
            .header("content-type", "application/json")
            .header("webhook-id", &delivery.id)
            .header("webhook-timestamp", delivery.timestamp)
            .header("webhook-signature", signatures.join(" "))
            .body(delivery.body.clone());
        match request.send().await {
            Ok(answer) => Ok(answer.status().as_u16()),
            Err(error) if was_blocked(&error) => Err(blocked()),
            Err(error) => {
                let what = if error.is_timeout() {
                    "it took longer than the limit"
                } else if error.is_connect() {
                    "no connection"
                } else {
                    "the connection broke"
                };
                Err(Failure::new(Code::DeliveryFailed, format!("the webhook's receiver did not answer: {what}")))
            }
        }
    }
}

/// Whether `url` may be registered: https, a public host by what can be told from its spelling, a usual port and no
/// user or password. With `allow_private` only the form is checked.
///
/// # Errors
/// `WEBHOOK_URL_FORBIDDEN` saying what is wrong with it.
pub fn check_url(url: &str, allow_private: bool) -> Result<(), Failure> {
    let forbidden = |why: &str| Err(Failure::new(Code::WebhookUrlForbidden, format!("the webhook URL {why}")));
    if url.len() > MAX_URL_BYTES || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return forbidden("is longer than 2048 bytes or holds blanks");
    }
    let Ok(parsed) = Url::parse(url) else { return forbidden("cannot be read") };
    if !(parsed.scheme() == "https" || allow_private && parsed.scheme() == "http") {
        return forbidden("does not start with https://");
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return forbidden("holds a user or password");
    }
    let Some(host) = parsed.host_str().filter(|host| !host.is_empty()) else { return forbidden("names no host") };
    if allow_private {
        return Ok(());
    }
    if !parsed.port_or_known_default().is_some_and(|port| PORTS.contains(&port)) {
        return forbidden("names an unusual port");
    }
    // The parser has already turned odd spellings of addresses (0x7f.1, 2130706433) into plain ones.
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return if is_public(address) { Ok(()) } else { forbidden("names an address that is not public") };
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let is_private = PRIVATE_NAMES.iter().any(|p| name == *p || name.ends_with(&format!(".{p}")));
    if is_private || !name.contains('.') { forbidden("names a host that is not public") } else { Ok(()) }
}

fn blocked() -> Failure {
    Failure::new(Code::DeliveryBlocked, "the webhook's host resolves to an address that is not public")
}

/// Resolves a name and refuses it when one of its addresses is not public.
struct PublicResolver {
    allow_private: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the name resolves to an address that is not public")]
struct Blocked;

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Addrs = Box::new(allowed(found, allow_private)?.into_iter());
            Ok(allowed)
        })
    }
}

fn allowed(addresses: Vec<SocketAddr>, allow_private: bool) -> Result<Vec<SocketAddr>, Blocked> {
    let all_public = addresses.iter().all(|address| is_public(address.ip()));
    if allow_private || all_public { Ok(addresses) } else { Err(Blocked) }
}

fn was_blocked(error: &reqwest::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.is::<Blocked>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_public_https_urls_can_be_registered() {
        let fine = [
            "https://hooks.example.com/a?b=c",
            "https://example.org:8443/x",
            "https://8.8.8.8/",
            "https://[2606:4700::1111]/",
        ];
        for url in fine {
            assert!(check_url(url, false).is_ok(), "{url}");
        }
        let bad = [
            "http://example.com/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "//example.com",
            "",
            "https://",
            "https://user@example.com/",
            "https://a:b@example.com/",
            "http://a@127.0.0.1",
            "https://example.com:22/",
            "https://example.com:6379/",
            "https://127.0.0.1/",
            "https://127.1/",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://017700000001/",
            "https://0/",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/",
            "https://[::ffff:7f00:1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[fe80::1]/",
            "https://[fd00::1]/",
            "https://10.0.0.1/",
            "https://100.64.0.1/",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://a.localhost/",
            "https://printer.local/",
            "https://metadata.google.internal/",
            "https://intranet/",
            "https://example.com/ a",
            "https://exa\nmple.com/",
            "https://１２７.0.0.1/",
        ];
        for url in bad {
            assert_eq!(
                check_url(url, false).err().map(|failure| failure.code),
                Some(Code::WebhookUrlForbidden),
                "{url}"
            );
        }
        assert!(check_url(&format!("https://example.com/{}", "a".repeat(2048)), false).is_err());
        for url in ["http://127.0.0.1:9000/hook", "http://localhost/", "https://intranet:444/"] {
            assert!(check_url(url, true).is_ok(), "{url}");
        }
        for url in ["ftp://127.0.0.1/", "http://u@127.0.0.1/", "http://"] {
            assert!(check_url(url, true).is_err(), "{url}");
        }
    }

    #[test]
    fn a_name_with_one_private_address_is_refused_whole() {
        let addresses =
            |list: &[&str]| list.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect::<Vec<_>>();
        assert_eq!(allowed(addresses(&["8.8.8.8", "1.1.1.1"]), false).unwrap().len(), 2);
        assert!(allowed(addresses(&["8.8.8.8", "10.0.0.1"]), false).is_err());
        assert!(allowed(addresses(&["::ffff:10.0.0.1"]), false).is_err());
        assert_eq!(allowed(addresses(&["10.0.0.1"]), true).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_resolves_to_when_it_is_dialled() {
        let sender = WebhookSender::new(false).unwrap();
        let error = sender.client.get("http://localhost:8080/").send().await.unwrap_err();
        assert!(was_blocked(&error), "{error:?}");
        let open = WebhookSender::new(true).unwrap();
        let error = open.client.get("http://localhost:9/").send().await.unwrap_err();
        assert!(!was_blocked(&error) && error.is_connect(), "{error:?}");
    }
}
