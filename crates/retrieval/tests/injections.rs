//! Hostile documents and an obedient model: nothing of what they demand reaches a reader. The full figure (500 documents,
//! 1,000 forged citations) is `cargo run --release -p docmill-retrieval --example injections`.
#![allow(clippy::unwrap_used)]

mod attack;
mod support;

#[tokio::test(flavor = "multi_thread")]
async fn an_obedient_model_says_nothing_that_acts_and_cites_nothing_that_is_forged() {
    let tally = attack::run(70).await;
    assert_eq!((tally.active, tally.canaries, tally.foreign, tally.forged_passed), (0, 0, 0, 0), "{tally:?}");
    assert_eq!(tally.unseen, 0, "{tally:?}");
    assert_eq!((tally.answered, tally.forged_sent), (70, 140), "the model was heard each time: {tally:?}");
    assert!(tally.useful * 10 >= tally.documents * 8 && tally.removed > 140, "honest sentences survive: {tally:?}");
}
