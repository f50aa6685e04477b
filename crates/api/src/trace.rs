//! W3C trace context: the caller's trace goes on through jobs and events, or one begins here.
//!
//! <https://www.w3.org/TR/trace-context/>, version 00.

use axum::http::HeaderMap;
use rand::RngExt;

/// The `traceparent` that work caused by this request carries: the caller's trace id with a span of our own, or a fresh
/// trace when the header is missing or malformed.
#[must_use]
pub fn traceparent(headers: &HeaderMap) -> Option<String> {
    let mut rng = rand::rng();
    let span: u64 = rng.random_range(1..=u64::MAX);
    let given = headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(parse);
    let (trace, flags) =
        given.unwrap_or_else(|| (format!("{:032x}", rng.random_range(1..=u128::MAX)), "01".to_owned()));
    Some(format!("00-{trace}-{span:016x}-{flags}"))
}

/// Trace id and flags of a well-formed header.
fn parse(header: &str) -> Option<(String, String)> {
    let mut fields = header.trim().split('-');
    let (version, trace, parent, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let zero = |text: &str| text.bytes().all(|b| b == b'0');
    let known = version == "00" && fields.next().is_none();
    let later = hex(version, 2) && version != "ff" && version != "00";
    let sound = hex(trace, 32) && !zero(trace) && hex(parent, 16) && !zero(parent) && hex(flags, 2);
    ((known || later) && sound).then(|| (trace.to_owned(), flags.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(header: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", header.parse().unwrap());
        traceparent(&headers).unwrap()
    }

    #[test]
    fn a_callers_trace_goes_on_under_a_new_span() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let ours = of(given);
        assert_eq!(ours[..36], given[..36], "the trace id stays");
        assert_ne!(ours[36..52], given[36..52], "the span is ours");
        assert!(ours.ends_with("-00"), "the sampling decision stays");
    }

    #[test]
    fn a_malformed_header_begins_a_fresh_trace() {
        for bad in [
            "",
            "x",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            let ours = of(bad);
            assert!(parse(&ours).is_some() && !ours.contains("4bf92f"), "{bad}: {ours}");
        }
    }
}
