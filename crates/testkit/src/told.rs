//! What code under test tells as metrics.

use metrics::LocalRecorderGuard;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

/// Metrics of one test. Heard is what its own thread tells, so the test has to run on one.
pub struct Told(PrometheusRecorder);

impl Told {
    /// Nothing yet.
    #[must_use]
    pub fn nothing() -> Self {
        Self(PrometheusBuilder::new().build_recorder())
    }

    /// Hears what this thread tells until the guard is dropped.
    #[must_use]
    pub fn listen(&self) -> LocalRecorderGuard<'_> {
        metrics::set_default_local_recorder(&self.0)
    }

    /// How many violations of an invariant were told last; `None` before anybody did.
    #[must_use]
    pub fn violations_of(&self, invariant: &str) -> Option<f64> {
        let series = format!("docmill_invariant_violations{{invariant=\"{invariant}\"}} ");
        let text = self.0.handle().render();
        text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
    }
}
