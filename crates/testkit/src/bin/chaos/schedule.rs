//! What can go wrong and how often: the kinds of faults, what this machine can do of them, and their order in a campaign.

use crate::disk;
use docmill_testkit::proxy::HttpFault;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::path::{Path, PathBuf};

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal / $share:literal),+ $(,)?) => {
        /// Kinds of faults.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $($(#[doc = $doc])* $variant,)+ }
        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant,)+];
            /// As on the command line.
            pub fn name(self) -> &'static str { match self { $(Kind::$variant => $name,)+ } }
            /// How many kills there are for each of this kind.
            fn share(self) -> f64 { match self { $(Kind::$variant => $share,)+ } }
        }
    };
}

kinds! {
    /// `kill -9` of a process or service.
    Kill "kill" / 1.0,
    /// SIGSTOP for up to three leases, then SIGCONT.
    Stop "stop" / 10.0,
    /// Postgres is shut down with `-m immediate`.
    Immediate "immediate" / 10.0,
    /// The broker's store is gone.
    Wipe "wipe" / 40.0,
    /// The broker's store is as it was some time ago.
    Rollback "rollback" / 40.0,
    /// One bit of the broker's store is another.
    Flip "flip" / 13.0,
    /// The consumers of all stages are deleted.
    Consumer "consumer" / 20.0,
    /// The object store answers 500.
    StoreError "store-error" / 20.0,
    /// Bodies from the object store end half-way.
    Truncated "truncated" / 20.0,
    /// Bodies from the object store hold a wrong byte.
    WrongBytes "wrong-bytes" / 20.0,
    /// A link is a black hole for a while; afterwards it goes on, or its connections are cut.
    Hole "hole" / 20.0,
    /// All connections of a link are silent for good, new ones work.
    Orphans "orphans" / 40.0,
    /// No space on the disk of NATS, the object store or the lexical index.
    Disk "disk" / 50.0,
    /// A worker whose clock is an hour off.
    Clock "clock" / 40.0,
    /// Every event there was, ten times and shuffled.
    Repeat "repeat" / 20.0,
}

impl Kind {
    /// What goes wrong with answers of the object store, if it is about them.
    pub fn spoils(self) -> Option<HttpFault> {
        match self {
            Self::StoreError => Some(HttpFault::Error),
            Self::Truncated => Some(HttpFault::Truncated),
            Self::WrongBytes => Some(HttpFault::WrongByte),
            _ => None,
        }
    }
}

/// Kinds with a number, as the command line may give it.
pub fn parse(text: &str) -> Result<(Kind, Option<usize>), String> {
    let (name, count) = text.split_once('=').map_or((text, None), |(name, count)| (name, Some(count)));
    let known = || Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    let kind = Kind::ALL.iter().find(|kind| kind.name() == name).ok_or_else(|| format!("known are {}", known()))?;
    let count = count.map(|count| count.parse().map_err(|_| format!("`{count}` is no number"))).transpose()?;
    Ok((*kind, count))
}

/// Why this machine cannot do it, if so.
fn impossible(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Disk if !disk::may_mount() => Some("mounting needs root"),
        Kind::Clock if faketime().is_none() => Some("libfaketime is not installed (apt-get install libfaketime)"),
        _ => None,
    }
}

/// Kinds that this machine cannot do, and why.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Of the usual mix.
    pub left_out: Vec<String>,
    /// Asked for by name.
    pub untried: Vec<String>,
}

/// What a campaign lacks on this machine.
pub fn undone(asked: &[(Kind, Option<usize>)]) -> Undone {
    undone_by(asked, impossible)
}

fn undone_by(asked: &[(Kind, Option<usize>)], impossible: impl Fn(Kind) -> Option<&'static str>) -> Undone {
    let mut undone = Undone::default();
    for kind in Kind::ALL {
        let Some(why) = impossible(*kind) else { continue };
        let line = format!("{}: {why}", kind.name());
        match asked.iter().find(|(asked, _)| asked == kind) {
            Some((_, Some(0))) => {}
            Some(_) => undone.untried.push(line),
            None if asked.is_empty() => undone.left_out.push(line),
            None => {}
        }
    }
    undone
}

/// The order of a campaign's faults: the same for the same seed.
pub fn schedule(seed: u64, kills: usize, asked: &[(Kind, Option<usize>)]) -> Vec<Kind> {
    let mut all = Vec::new();
    for kind in Kind::ALL.iter().copied().filter(|kind| impossible(*kind).is_none()) {
        let named = asked.iter().find(|(asked, _)| *asked == kind);
        let usual = ((kills as f64 / kind.share()).round() as usize).max(1);
        let count = match named {
            Some((_, Some(count))) => *count,
            Some(_) => usual,
            None if asked.is_empty() && kills > 0 => usual,
            None => 0,
        };
        all.extend(std::iter::repeat_n(kind, count));
    }
    all.shuffle(&mut StdRng::seed_from_u64(seed));
    all
}

/// The library that shifts the clock of a process, where it is installed.
pub fn faketime() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib64/faketime"];
    folders.iter().map(|folder| Path::new(folder).join("libfaketime.so.1")).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_cannot_do_is_left_out_unless_it_was_asked_for() {
        let no_clock = |kind: Kind| (kind == Kind::Clock).then_some("no library");
        let line = vec!["clock: no library".to_owned()];
        let usual = undone_by(&[], no_clock);
        assert_eq!(usual, Undone { left_out: line.clone(), untried: vec![] });
        let named = undone_by(&[(Kind::Kill, None), (Kind::Clock, Some(3))], no_clock);
        assert_eq!(named, Undone { left_out: vec![], untried: line });
        let others = undone_by(&[(Kind::Kill, None), (Kind::Clock, Some(0))], no_clock);
        assert_eq!(others, Undone::default(), "none of them were asked for");
        assert_eq!(undone_by(&[(Kind::Kill, None)], no_clock), Undone::default());
    }

    #[test]
    fn the_order_follows_the_seed_and_the_numbers_what_was_asked_for() {
        let asked = [(Kind::Wipe, Some(5)), (Kind::Flip, Some(15)), (Kind::Kill, Some(0)), (Kind::Immediate, None)];
        let order = schedule(3, 40, &asked);
        let count = |kind: Kind| order.iter().filter(|scheduled| **scheduled == kind).count();
        assert_eq!((count(Kind::Wipe), count(Kind::Flip), count(Kind::Immediate), order.len()), (5, 15, 4, 24));
        assert_eq!(order, schedule(3, 40, &asked));
        assert_ne!(order, schedule(4, 40, &asked));
    }
}
