//! Redaction by type: what a person wrote or a document says cannot be formatted by accident.

/// Text of a document, question, prompt or answer. `Debug` and `Display` print its length only, so it
/// cannot reach a log line, a metric label or an error body; [`Sensitive::reveal`] is the one way in.
#[derive(Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Sensitive<T>(T);

impl<T> Sensitive<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for the code whose purpose is to handle it.
    pub fn reveal(&self) -> &T {
        &self.0
    }

    /// Unwraps.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: AsRef<str>> std::fmt::Debug for Sensitive<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[redacted, {} chars]", self.0.as_ref().chars().count())
    }
}

impl<T: AsRef<str>> std::fmt::Display for Sensitive<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::Sensitive;

    #[test]
    fn formatting_never_shows_the_value() {
        let secret = Sensitive::new("the patient's name".to_owned());
        assert_eq!(format!("{secret} {secret:?}"), "[redacted, 18 chars] [redacted, 18 chars]");
        assert_eq!(secret.reveal(), "the patient's name");
    }
}
