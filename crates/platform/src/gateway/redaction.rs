//! What never leaves for a provider: matches of configured patterns, replaced by their name.

use docmill_model::{Code, Failure};
use regex::Regex;

/// One pattern.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redaction {
    /// What it finds; stands in the text instead: `[redacted NAME]`.
    pub name: String,
    /// Regular expression.
    pub pattern: String,
}

impl Redaction {
    /// Credentials that can be told by their form: private keys, tokens of large providers, Docmill's own keys.
    #[must_use]
    pub fn committed() -> Vec<Self> {
        let patterns = [
            ("private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"),
            ("access key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
            ("token", r"\b(?:ghp|gho|ghs|ghu|github_pat|glpat|xox[abpr])[-_][0-9A-Za-z_-]{16,}"),
            ("api key", r"\b(?:sk|pk|rk)[-_](?:live|test|proj|ant)?[-_]?[0-9A-Za-z_-]{20,}"),
            ("api key", r"\bdmk_[0-9A-Za-z]{20,}"),
            ("webhook secret", r"\bwhsec_[0-9A-Za-z+/=]{24,}"),
            ("token", r"\beyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{10,}"),
            ("password", r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,100}:[^\s/@]{1,200}@"),
        ];
        patterns.map(|(name, pattern)| Self { name: name.to_owned(), pattern: pattern.to_owned() }).to_vec()
    }
}

/// Compiled patterns.
pub(super) struct Redactor(Vec<(String, Regex)>);

impl Redactor {
    pub(super) fn new(redactions: &[Redaction]) -> Result<Self, Failure> {
        let compile = |redaction: &Redaction| match Regex::new(&redaction.pattern) {
            Ok(pattern) => Ok((format!("[redacted {}]", redaction.name), pattern)),
            Err(_) => Err(Failure::new(
                Code::ConfigInvalid,
                format!("the redaction `{}` is no regular expression", redaction.name),
            )),
        };
        redactions.iter().map(compile).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn clean(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (replacement, pattern)| {
            pattern.replace_all(&text, regex::NoExpand(replacement)).into_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn credentials_are_replaced_and_prose_is_not() {
        let redactor = Redactor::new(&Redaction::committed()).unwrap();
        let secrets = [
            "AKIAIOSFODNN7EXAMPLE",
            "sk-proj-abcdefghijklmnopqrstuvwx",
            "ghp_0123456789abcdefghijABCDEFGHIJ012345",
            "dmk_0123456789abcdefghijklmnop",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "postgres://user:hunter2@db.example/x",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlMTIz",
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
        ];
        for secret in secrets {
            let cleaned = redactor.clean(&format!("before {secret} after"));
            assert!(
                cleaned.contains("[redacted ") && cleaned.starts_with("before ") && cleaned.contains("after"),
                "{cleaned}"
            );
            assert!(!cleaned.contains(&secret[6..20]), "{cleaned}");
        }
        let prose = "The task-force met at 10:30; see https://example.com/a@b and skills, pk-12. Clause 4.2: $1 fee.";
        assert_eq!(redactor.clean(prose), prose);
        assert!(Redactor::new(&[Redaction { name: "bad".to_owned(), pattern: "(".to_owned() }]).is_err());
    }
}
