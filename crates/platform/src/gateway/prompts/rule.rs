//! Who gets which version of a prompt.

use docmill_model::{Sha256Hex, TenantId};
use std::collections::{BTreeMap, BTreeSet};

/// A part of the calls that uses another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The other version.
    pub version: i32,
    /// Of a hundred calls, 0 to 100.
    pub percent: u8,
}

/// Which version is used: a tenant's own, else the share's, else the one for everybody.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// For everybody.
    pub version: i32,
    /// For a part of the calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// For single tenants.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tenants: BTreeMap<TenantId, i32>,
}

impl Rule {
    /// One version for everybody.
    #[must_use]
    pub fn all(version: i32) -> Self {
        Self { version, share: None, tenants: BTreeMap::new() }
    }

    /// The version for a call. Equal tenants and inputs get the same one, so that remembered answers are found again.
    #[must_use]
    pub fn version_for(&self, tenant: TenantId, input: &str) -> i32 {
        if let Some(version) = self.tenants.get(&tenant) {
            return *version;
        }
        match self.share {
            Some(share) if percentile(tenant, input) < u32::from(share.percent) => share.version,
            _ => self.version,
        }
    }

    /// The versions that somebody gets by this rule who did not get them by `current`: what a rollout has to answer for.
    /// What is everybody's by `current`, or stays as far as it was, is not among them.
    #[must_use]
    pub fn raised(&self, current: &Rule) -> BTreeSet<i32> {
        let share = |rule: &Rule| rule.share.filter(|share| share.percent > 0);
        let is_kept =
            |new: &Share| share(current).is_some_and(|old| old.version == new.version && old.percent >= new.percent);
        let share = share(self).filter(|new| !is_kept(new)).map(|share| share.version);
        let tenants = self.tenants.iter().filter(|(tenant, version)| current.tenants.get(tenant) != Some(version));
        let named = std::iter::once(self.version).chain(share).chain(tenants.map(|(_, version)| *version));
        named.filter(|version| *version != current.version).collect()
    }

    /// Every version it names.
    pub fn versions(&self) -> impl Iterator<Item = i32> {
        let share = self.share.map(|share| share.version);
        std::iter::once(self.version).chain(share).chain(self.tenants.values().copied())
    }
}

/// 0 to 99, evenly.
fn percentile(tenant: TenantId, input: &str) -> u32 {
    let hash = Sha256Hex::of(format!("{tenant} {input}").as_bytes()).to_bytes();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_come_first_then_the_share_and_choices_are_stable() {
        let (own, other) = (TenantId::fresh(), TenantId::fresh());
        let share = Share { version: 2, percent: 20 };
        let rule = Rule { version: 1, share: Some(share), tenants: BTreeMap::from([(own, 3)]) };
        let chosen: Vec<i32> = (0..5_000).map(|n| rule.version_for(other, &n.to_string())).collect();
        let twos = chosen.iter().filter(|version| **version == 2).count();
        assert!((800..1_200).contains(&twos), "{twos} of 5,000 is not a fifth");
        assert_eq!(chosen, (0..5_000).map(|n| rule.version_for(other, &n.to_string())).collect::<Vec<_>>());
        assert!((0..100).all(|n| rule.version_for(own, &n.to_string()) == 3));
        let none = Rule { share: Some(Share { version: 2, percent: 0 }), ..rule.clone() };
        let all = Rule { share: Some(Share { version: 2, percent: 100 }), ..rule };
        assert!(
            (0..200)
                .all(|n| none.version_for(other, &n.to_string()) == 1 && all.version_for(other, &n.to_string()) == 2)
        );
    }

    #[test]
    fn what_somebody_newly_gets_is_raised_and_what_stays_or_shrinks_is_not() {
        let (own, other) = (TenantId::fresh(), TenantId::fresh());
        let share = |version, percent| Some(Share { version, percent });
        let current = Rule { version: 1, share: share(2, 10), tenants: BTreeMap::from([(own, 3)]) };
        let raised = |rule: &Rule| rule.raised(&current).into_iter().collect::<Vec<_>>();
        let of_share = |share| Rule { share, ..current.clone() };
        for (rule, expected) in [
            (current.clone(), vec![]),
            (Rule::all(1), vec![]),
            (Rule::all(2), vec![2]),
            (of_share(share(2, 5)), vec![]),
            (of_share(share(2, 11)), vec![2]),
            (of_share(share(4, 0)), vec![]),
            (of_share(share(4, 1)), vec![4]),
            (of_share(share(1, 50)), vec![]),
            (Rule { tenants: BTreeMap::from([(own, 3), (other, 3)]), ..current.clone() }, vec![3]),
            (Rule { tenants: BTreeMap::from([(own, 1)]), ..current.clone() }, vec![]),
            (Rule { version: 4, share: share(5, 1), tenants: BTreeMap::from([(other, 6)]) }, vec![4, 5, 6]),
        ] {
            assert_eq!(raised(&rule), expected, "{rule:?}");
        }
    }
}
